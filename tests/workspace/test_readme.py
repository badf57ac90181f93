"""What README and CONTRIBUTING promise exists: targets, flags, backends, snippets that parse."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from backplane_core.backend import Available, BestEffort, ModelSource, Unsupported
from backplane_core.registry import discover

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
PAGES |= {
    str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    """Each command line of the README's shell blocks, as words."""
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def make_targets():
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_make_target_named_exists(page):
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`([^`]*)`", PAGES[page]))))
    if page == "README.md":
        named |= {words[1] for words in commands() if words[0] == "make"}
        assert {"serve", "test"} <= named
    assert named <= make_targets()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def curl_bodies():
    """The JSON that each curl command sends to a server of the reader's own."""
    for words in commands():
        if words[0] == "curl":
            assert words[1].startswith("http://localhost:3000/")
            yield json.loads(words[words.index("-d") + 1])


def test_the_python_snippets_are_python():
    snippets = blocks("python")
    assert len(snippets) == 3
    for snippet in snippets:
        ast.parse(snippet)


def test_every_flag_named_exists():
    help_page = subprocess.run(
        [Path(sys.executable).with_name("backplane"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = re.sub(r"```bash\n(nix|curl).*?```", "", README, flags=re.DOTALL)
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help"}
    assert flags
    assert {flag for flag in flags if flag not in help_page} == set()


def test_the_backends_table_says_what_is_here():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|$", README, re.MULTILINE))
    here = {path.parent.name for path in (ROOT / "backends").glob("*/pyproject.toml")}
    assert {name for name, status in rows.items() if status == "here"} == here
    assert set(rows.values()) == {"here", "planned"}


def test_the_plugin_snippet_is_discovered(tmp_path, monkeypatch):
    """The README's backend is a plugin as it stands: saved as a module, it is found and asked."""
    (snippet,) = [text for text in blocks("python") if "hookimpl" in text]
    (tmp_path / "readme_backend.py").write_text(snippet)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BACKPLANE_EXTRA_PLUGINS", "readme_backend")
    registry = discover(only=["readme_backend"])
    assert registry.failures == {}
    backend = registry.create("alphabet")
    assert isinstance(backend.probe(), Available)
    assert isinstance(backend.supports(ModelSource(model_id="alphabet:latin")), BestEffort)
    assert isinstance(backend.supports(ModelSource(model_id="other")), Unsupported)


def test_every_page_is_linked_once_in_the_readmes_table():
    table = README[README.index("## More") :]
    links = re.findall(r"^\| \[.*?\]\((.*?)\) \|", table, re.MULTILINE)
    assert sorted(links) == sorted([*(set(PAGES) - {"README.md"}), "CHANGELOG.md"])


def test_the_chat_samples_are_greedy():
    """The demo model is tiny: what it is likeliest to say makes sense."""
    chats = [body for body in curl_bodies() if "messages" in body]
    assert len(chats) == 2
    assert all(body["temperature"] == 0 for body in chats)
    assert "temperature=0," in blocks("python")[0]


def test_how_long_the_first_build_takes_is_said_once_and_the_same():
    script = (ROOT / "scripts" / "llama_cpp_wheel.py").read_text()
    said = {*re.findall(r"about (\w+) minutes on two cores", README + script)}
    assert len(said) == 1
