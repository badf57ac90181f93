"""Which chat template a model's folder brings."""

import json

import pytest
from backplane_core.chat_templates import (
    find_chat_templates,
    read_template_file,
    read_templates,
)
from backplane_core.errors import ModelError


def config(template):
    return json.dumps({"chat_template": template, "added_tokens_decoder": {"0": {}}})


FILES = {
    "processor_config.json": config("of the processor"),
    "tokenizer_config.json": config(
        [
            {"name": "default", "template": "of the tokenizer"},
            {"name": "tool_use", "template": "of the tokenizer, for tools"},
        ]
    ),
    "chat_template.json": config({"default": "of its own JSON"}),
    "chat_template.jinja": "of its own file",
}
FOUND = [
    {"default": "of the processor"},
    {"default": "of the tokenizer", "tool_use": "of the tokenizer, for tools"},
    {"default": "of its own JSON"},
    {"default": "of its own file"},
]


def test_the_newer_way_of_shipping_a_template_goes_first(tmp_path):
    assert find_chat_templates(tmp_path) == {}
    for (name, text), found in zip(FILES.items(), FOUND, strict=True):
        (tmp_path / name).write_text(text)
        assert find_chat_templates(tmp_path) == found


def test_more_templates_stand_beside_the_first_by_name(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("plain")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("for tools")
    assert find_chat_templates(tmp_path) == {"default": "plain", "tool_use": "for tools"}


@pytest.mark.parametrize(
    "broken", [b"{", b"[]", b'{"chat_template": 5}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_cannot_be_read_is_passed_over_and_logged(tmp_path, caplog, broken):
    (tmp_path / "chat_template.json").write_bytes(broken)
    (tmp_path / "tokenizer_config.json").write_text(config("well"))
    assert find_chat_templates(tmp_path) == {"default": "well"}
    assert "chat_template.json" in caplog.text
    with pytest.raises(ModelError):
        read_template_file(tmp_path / "chat_template.json")


def test_a_config_without_a_template_has_none(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert find_chat_templates(tmp_path) == {}


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_template_file(tmp_path / "nothing.jinja")


def test_what_an_operator_means(tmp_path):
    for text in ("{{ messages }}", "one\nline", "/no/such/{file}"):
        assert read_templates(text) == {"default": text}
    path = tmp_path / "template.txt"
    path.write_text("of a file")
    assert read_templates(str(path)) == {"default": "of a file"}
    path = tmp_path / "chat_template.json"
    path.write_text(config({"default": "a", "tool_use": "b"}))
    assert read_templates(str(path)) == {"default": "a", "tool_use": "b"}
    path.write_text("{}")
    with pytest.raises(ModelError, match=f"{path} holds no chat template"):
        read_templates(str(path))
