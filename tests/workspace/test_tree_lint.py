"""The tree lint: fat files, vague names, machine paths, suppressions without a reason."""

import subprocess
from pathlib import Path, PurePath

import pytest


@pytest.fixture(scope="module")
def tree(script):
    return script("lint_tree")


def test_a_file_at_the_ceiling_passes_and_one_line_more_fails(tree):
    text = "x = 1\n" * tree.MAX_LINES
    assert tree.lint_names_and_sizes(PurePath("a/b.py"), text) == []
    (finding,) = tree.lint_names_and_sizes(PurePath("a/b.py"), text + "y = 2\n")
    assert str(tree.MAX_LINES) in finding.message


def test_data_may_be_long(tree):
    assert tree.lint_names_and_sizes(PurePath("words.txt"), "x\n" * 5000) == []


def test_a_vague_name_is_refused(tree):
    (finding,) = tree.lint_names_and_sizes(PurePath("core/utils.py"), "")
    assert "utils.py" in finding.message


@pytest.mark.parametrize("folder", ["work", "root", "opt", "home"])
def test_machine_paths_are_refused(tree, folder):
    (finding,) = tree.lint_words(PurePath("a.md"), f"see /{folder}/thing/x")
    assert finding.line == 1


@pytest.mark.parametrize(
    "line",
    ["core/work/thing", "$out/opt/x", "${HOME}/home/x", "https://example.org/root/x", "a /rooted"],
)
def test_lookalikes_of_machine_paths_pass(tree, line):
    assert tree.lint_words(PurePath("a.md"), line) == []


def test_sagemakers_model_folder_is_a_contract_not_a_machine(tree):
    folder = "/opt" + "/ml/model"
    assert tree.lint_words(PurePath("a.md"), folder) == []


def test_index_hosts_are_refused(tree):
    host = "files.python" + "hosted.org"
    assert len(tree.lint_words(PurePath("a.md"), f"x\nhttps://{host}/y")) == 1


@pytest.mark.parametrize(
    "comment",
    ["noqa: S603", "noqa: S603, S607", "type: ignore[misc]", "pyright: ignore", "noqa: E501 --"],
)
def test_a_suppression_needs_a_reason(tree, comment):
    source = f"x = 1  # {comment}\n"
    assert len(tree.lint_suppressions(PurePath("a.py"), source)) == 1
    explained = f"x = 1  # {comment} -- a constant command\n"
    assert tree.lint_suppressions(PurePath("a.py"), explained) == []


def test_a_ruff_ignore_needs_a_reason(tree):
    config = '[tool.ruff.lint]\nignore = [\n  "D105",\n  "D107",  # described by the class\n]\n'
    (finding,) = tree.lint_ruff_ignores(config)
    assert finding.line == 3
    per_file = '[tool.ruff.lint.per-file-ignores]\n"x/**" = [\n  "T20",\n]\n'
    assert len(tree.lint_ruff_ignores(per_file)) == 1


def test_main_sees_what_git_would_track_and_skips_what_it_ignores(tree, tmp_path, capsys):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "utils.py").write_text("")
    (tmp_path / "weights.bin").write_bytes(b"\xff\xfe\x00")
    assert tree.main(tmp_path) == 0
    (tmp_path / "utils.py").write_text("")
    assert tree.main(tmp_path) == 1
    assert str(Path("utils.py")) in capsys.readouterr().out
