"""Which families there are, plugins' included, and which one a model is taken to write."""

import logging
from pathlib import Path

import pytest
from backplane_core.errors import SetupError
from backplane_core.registry import EXTRA_PLUGINS_VARIABLE, discover
from backplane_core.tool_parser_registry import DuplicateToolParserError, discover_tool_parsers
from backplane_server.tools.catalogue import ToolCatalogue

from tests.core.plugin_folder import importable, write_plugin

ROOT = Path(__file__).resolve().parents[3]
FAMILY = """
from backplane_core.hookspecs import hookimpl
from backplane_core.messages import Grammar
from backplane_core.tool_parsers import ParsedText, ToolParser

class Toy(ToolParser):
    name = "{name}"
    @classmethod
    def matches(cls, template):
        {matches}
    def push(self, text):
        return ParsedText(content=text)
    def finish(self):
        return ParsedText()
    @classmethod
    def grammar(cls, functions, *, parallel, special_tokens):
        return Grammar(kind="regex", source="x")

@hookimpl
def backplane_register_tool_parsers(register):
    register(Toy)
"""


def family(name="toy", matches="return '<toy>' in template"):
    return FAMILY.format(name=name, matches=matches)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with importable(tmp_path, monkeypatch) as found:
        yield found


TEMPLATES = {
    "hermes": "{%- for t in tools %}...{% endfor %}<tool_call>\n{{ call }}\n</tool_call>",
    "mistral": "{{ '[AVAILABLE_TOOLS]' }}{{ '[TOOL_CALLS]' + '[' }}",
    "llama3_json": '<|start_header_id|>{{ \'{"name": "\' }}{{ \'"parameters": \' }}',
    "pythonic": "<|start_header_id|>[func_name1(params_name1=params_value1, ...), func_name2()]",
    "json": "<|im_start|>{{ message.content }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_auto_takes_the_family_whose_marks_the_template_has(name):
    assert ToolCatalogue.discovered().choose("auto", TEMPLATES[name]).name == name


def test_a_model_without_a_template_writes_generic_json():
    assert ToolCatalogue.discovered().choose("auto", None).name == "json"


def test_qwen3_coders_xml_is_not_hermes():
    template = "<tool_call>\n<function=example>\n<parameter=a>"
    assert ToolCatalogue.discovered().choose("auto", template).name == "json"


def test_the_demo_models_template_is_hermes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "demo-model"))
    from recipe.chat_format import CHAT_TEMPLATE  # noqa: PLC0415 -- the path is set here

    assert ToolCatalogue.discovered().choose("auto", CHAT_TEMPLATE).name == "hermes"


def test_a_named_family_is_taken_whatever_the_template_says():
    assert ToolCatalogue.discovered().choose("mistral", TEMPLATES["hermes"]).name == "mistral"


def test_a_name_that_nobody_has_is_an_error_that_lists_the_others(folder):
    write_plugin(folder, "broken", source="import a_driver_that_is_not_here")
    catalogue = ToolCatalogue.discovered()
    with pytest.raises(SetupError) as caught:
        catalogue.check("hermse")
    assert "no tool parser is called hermse" in str(caught.value)
    assert "a_driver_that_is_not_here" in str(caught.value)
    assert "auto, hermes, json, llama3_json, mistral, pythonic" in str(caught.value)


def test_hook_backplane_register_tool_parsers(folder):
    write_plugin(folder, "toy", source=family())
    catalogue = ToolCatalogue.discovered()
    assert "toy" in catalogue.names
    assert catalogue.choose("toy", None).name == "toy"
    assert catalogue.choose("auto", "x <toy> y").name == "toy"


def test_a_plugins_family_goes_before_the_built_in_ones(folder):
    write_plugin(folder, "toy", source=family(matches="return True"))
    assert ToolCatalogue.discovered().choose("auto", TEMPLATES["hermes"]).name == "toy"


def test_a_plugin_may_be_named_by_a_variable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples" / "tagged_calls"))
    monkeypatch.setenv(EXTRA_PLUGINS_VARIABLE, "backplane_tagged_calls")
    assert ToolCatalogue.discovered().choose("tagged", None).name == "tagged"


def test_a_plugin_of_tools_only_and_one_of_backends_only_leave_each_other_alone(folder):
    write_plugin(folder, "tools", source=family())
    write_plugin(folder, "backend")
    found = discover_tool_parsers({})
    assert (list(found.parsers), found.failures) == (["toy"], {})
    registry = discover()
    assert "backend" in registry.backends
    assert registry.failures == {}


def test_a_plugin_may_have_a_backend_and_a_family(folder):
    source = (folder / f"{write_plugin(folder, 'both')}.py").read_text() + family().replace(
        "Toy", "Family"
    )
    (folder / "plugin_both.py").write_text(source)
    assert list(discover_tool_parsers({}).parsers) == ["toy"]
    assert "both" in discover().backends


BROKEN = {
    "import error": ("import a_driver_that_is_not_here", "a_driver_that_is_not_here"),
    "exit at import": ("raise SystemExit('no licence')", "no licence"),
    "misspelt hook": (
        family().replace("register_tool_parsers", "register_tool_parser"),
        "backplane_register_tool_parser",
    ),
    "hook that raises": (family().replace("register(Toy)", "raise OSError('no disk')"), "no disk"),
    "not a parser": (family().replace("register(Toy)", "register(object)"), "no ToolParser class"),
    "half a parser": (family().replace("def finish", "def finished"), "lacks finish"),
    "no name": (family().replace('name = "toy"', "pass"), "name"),
    "a name that means something else": (family(name="auto"), "auto"),
    "a name with capitals": (family(name="Toy"), "Toy"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_logged_with_its_error_and_hides_nobody(folder, caplog, case):
    source, cause = BROKEN[case]
    write_plugin(folder, "broken", source=source)
    write_plugin(folder, "good", source=family(name="good"))
    with caplog.at_level(logging.WARNING):
        catalogue = ToolCatalogue.discovered()
    assert {"good", "hermes"} <= set(catalogue.names)
    (record,) = [record for record in caplog.records if "plugin" in record.message]
    assert "broken" in record.message
    assert cause in record.message


def test_a_family_that_fails_to_look_at_a_template_is_passed_over(folder, caplog):
    write_plugin(folder, "toy", source=family(matches="raise KeyError('oh')"))
    assert ToolCatalogue.discovered().choose("auto", TEMPLATES["hermes"]).name == "hermes"
    assert "toy failed to look at the chat template" in caplog.text


@pytest.mark.parametrize("name", ["toy", "hermes"])
def test_two_families_with_one_name_are_an_error_that_names_both(folder, name):
    write_plugin(folder, "first", source=family(name=name))
    if name == "toy":
        write_plugin(folder, "second", source=family(name=name))
    other = "second" if name == "toy" else "backplane-server"
    with pytest.raises(
        DuplicateToolParserError, match=rf"{name} is registered twice.*{other}.*first"
    ):
        ToolCatalogue.discovered()
