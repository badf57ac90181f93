"""Discovery: one broken plugin is listed with its error and hides nobody."""

import subprocess
import sys

import pytest
from backplane_core.errors import BackendError
from backplane_core.registry import EXTRA_PLUGINS_VARIABLE, discover

from tests.core.plugin_folder import importable, write_plugin


@pytest.fixture
def folder(tmp_path, monkeypatch):
    with importable(tmp_path, monkeypatch) as found:
        yield found


def test_an_installed_backend_is_found_with_its_distribution(folder):
    write_plugin(folder, "toy")
    facts = {one.name: one for one in discover().facts()}["toy"]
    assert (facts.distribution, facts.version, facts.error) == ("plugin_toy", "1.2", None)


def test_a_plugin_may_be_named_by_a_variable(folder, monkeypatch):
    (folder / "loose.py").write_text((folder / f"{write_plugin(folder, 'x')}.py").read_text())
    monkeypatch.setenv(EXTRA_PLUGINS_VARIABLE, "loose")
    assert "x" in discover(only=["loose"]).backends


HOOK = """
from backplane_core.hookspecs import hookimpl
@hookimpl
def backplane_register_{name}(register):
    {body}
"""
BROKEN = {
    "import error": ("import a_driver_that_is_not_here", "a_driver_that_is_not_here"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "exit at import": ("raise SystemExit('no licence')", "no licence"),
    "our own error at import": (
        "from backplane_core.errors import BackendError\nraise BackendError('driver 1.0 wanted')",
        "driver 1.0 wanted",
    ),
    "misspelt hook": (HOOK.format(name="backend", body="pass"), "backplane_register_backend"),
    "hook that raises": (
        HOOK.format(name="backends", body="raise OSError('no device')"),
        "no device",
    ),
    "not a backend": (HOOK.format(name="backends", body="register(object)"), "object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_listed_with_its_error_and_hides_nobody(folder, case):
    source, cause = BROKEN[case]
    write_plugin(folder, "broken", source=source)
    write_plugin(folder, "toy")
    registry = discover()
    assert {"echo", "toy"} <= set(registry.backends)
    facts = {one.name: one for one in registry.facts()}
    assert cause in facts["broken"].error
    with pytest.raises(BackendError, match="broken"):
        registry.create("broken")


def test_a_backend_of_another_contract_is_listed_with_both_versions(folder):
    write_plugin(folder, "old", extra="protocol = (0, 9)")
    assert "0.9" in discover().failures["old"]


def test_two_plugins_with_one_name_are_an_error_that_names_both(folder):
    write_plugin(folder, "first", backend="same")
    write_plugin(folder, "second", backend="same")
    with pytest.raises(BackendError, match=r"second.*first"):
        discover()


def test_an_unknown_backend_is_an_error_that_lists_the_known():
    with pytest.raises(BackendError, match="echo"):
        discover().create("nonesuch")


def test_discovery_imports_no_engine():
    code = (
        "import sys; from backplane_core.registry import discover; discover().facts();"
        "print({'torch', 'transformers', 'llama_cpp', 'vllm', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
