import os

import pytest
from backplane_core.errors import SetupError
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.template_files import check_template_files

from .launched import Launched

GOOD_CONFIGS = [
    "{}",
    '{"chat_template": "{{ messages }}", "bos_token": "<s>"}',
    '{"chat_template": [{"name": "default", "template": "x"}]}',
    '{"chat_template": {"default": "x"}}',
]
NO_TEMPLATE = ["{}", '{"chat_template": null}', '{"chat_template": []}', '{"chat_template": {}}']
BAD_CONFIGS = [
    b"[" * 100_000,
    b"",
    b"[]",
    b"{",
    b'{"chat_template": 7}',
    b'{"chat_template": "\xff"}',
]


@pytest.mark.parametrize("template", ["{{ messages }}", "one line\nanother", None])
def test_a_template_itself_names_no_file(template):
    check_template_files(LaunchSettings(chat_template=template))


@pytest.mark.parametrize("text", GOOD_CONFIGS)
def test_files_that_can_be_used(tmp_path, text):
    template, config = tmp_path / "chat.jinja", tmp_path / "tokenizer_config.json"
    template.write_text("{{ messages }} ✓")
    config.write_text(text)
    check_template_files(
        LaunchSettings(chat_template=str(template), tokenizer_config_path=str(config))
    )


@pytest.mark.parametrize("name", ["chat_template", "tokenizer_config_path"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe{}"), "is not text: it is not UTF-8"),
        (lambda path: os.truncate(path, 65 << 20), "is larger than"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, make, why):
    path = tmp_path / "file"
    if "larger" in why:
        path.touch()
    make(path)
    with pytest.raises(SetupError, match=f"{path} .*{why}") as caught:
        check_template_files(LaunchSettings(**{name: str(path)}))
    assert str(caught.value).startswith(f"--{name.replace('_', '-')} ")
    assert caught.value.remedy.startswith("check ")


@pytest.mark.parametrize("content", BAD_CONFIGS)
def test_a_file_that_is_no_tokenizer_config(tmp_path, content):
    path = tmp_path / "tokenizer_config.json"
    path.write_bytes(content)
    for name in ("tokenizer_config_path", "chat_template"):
        flag = f"--{name.replace('_', '-')} {path}"
        with pytest.raises(SetupError, match=f"^{flag} (holds no|is not text)"):
            check_template_files(LaunchSettings(**{name: str(path)}))


@pytest.mark.parametrize("text", [text for text in GOOD_CONFIGS if text not in NO_TEMPLATE])
def test_a_template_may_be_a_config_that_holds_one(tmp_path, text):
    path = tmp_path / "chat_template.json"
    path.write_text(text)
    check_template_files(LaunchSettings(chat_template=str(path)))


@pytest.mark.parametrize("text", NO_TEMPLATE)
def test_a_config_in_a_templates_place_must_hold_one(tmp_path, text):
    path = tmp_path / "tokenizer_config.json"
    path.write_text(text)
    check_template_files(LaunchSettings(tokenizer_config_path=str(path)))
    with pytest.raises(SetupError, match=f"^--chat-template {path} holds no chat template"):
        check_template_files(LaunchSettings(chat_template=str(path)))


def test_the_launcher_refuses_before_anything_starts(tmp_path):
    argv = ("--model-id", "echo:x", "--port", "0", "--chat-template", "no/such.jinja")
    with Launched(tmp_path, *argv) as launched:
        assert launched.wait() == 1
    (line,) = launched.lines
    assert line.startswith("Error: --chat-template no/such.jinja cannot be read: No such file")
    assert launched.events() == []
