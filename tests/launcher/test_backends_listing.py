"""`backplane backends` over real interpreters, with plugins that are broken, hung and elsewhere."""

import io
import os
import subprocess
import sys
import textwrap

import msgspec
import pytest
from backplane_core.backend import Available
from backplane_core.describe import ask_one
from backplane_launcher.backends_listing import print_backends
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.commands import BackendsCommand

PLUGIN = """
import time
from backplane_core.backend import Available, Backend, Device, Native, Unavailable, setting
from backplane_core.hookspecs import hookimpl
import dataclasses

@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    depth: int = setting(3, "how deep", flags=("--{name}-depth",))

class Toy(Backend):
    name = "{name}"
    summary = "a test's backend"
    settings = Settings
    def probe(self):
        {probe}
    def supports(self, model):
        return Native()
    def select_files(self, model):
        return ()
    def create_runner(self, spec, progress):
        raise AssertionError("never asked")

@hookimpl
def backplane_register_backends(register):
    register(Toy)
"""
TOY = 'return Available(devices=(Device(name="Toy 9000", memory_bytes=2**33),), version="4.2")'


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    def write(name, probe=TOY, source=PLUGIN):
        text = textwrap.dedent(source).format(name=name, probe=probe)
        (tmp_path / f"plug_{name}.py").write_text(text)
        known = os.environ.get("BACKPLANE_EXTRA_PLUGINS", "")
        monkeypatch.setenv("BACKPLANE_EXTRA_PLUGINS", f"{known},plug_{name}".strip(","))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        if str(tmp_path) not in sys.path:
            monkeypatch.syspath_prepend(str(tmp_path))

    yield write
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        del sys.modules[name]


def listing(catalogue, *, as_json=True):
    output = io.StringIO()
    assert print_backends(BackendsCommand(catalogue=catalogue, as_json=as_json), output) == 0
    text = output.getvalue()
    return {row["name"]: row for row in msgspec.json.decode(text)} if as_json else text


def test_good_absent_and_broken_side_by_side(plugins):
    plugins("good")
    plugins("absent", 'return Unavailable(reason="no card", remedy="buy one")')
    plugins("crash", "import os; os._exit(9)")
    plugins("careless", 'return "yes"')
    plugins("broken", source="import a_driver_that_is_not_here")
    rows = listing(Catalogue.load({}))
    assert rows["good"]["available"] is True
    assert rows["good"]["devices"] == [{"name": "Toy 9000", "memory_bytes": 2**33}]
    assert rows["good"]["engine_version"] == "4.2"
    assert rows["absent"]["available"] is False
    assert (rows["absent"]["reason"], rows["absent"]["remedy"]) == ("no card", "buy one")
    assert rows["careless"]["available"] is False
    assert "its probe returned 'yes'" in rows["careless"]["reason"]
    assert "ended with status 9" in rows["crash"]["reason"]
    assert rows["plug_broken"]["available"] is False
    assert "a_driver_that_is_not_here" in rows["plug_broken"]["error"]


def test_one_that_hangs_is_given_up(plugins, monkeypatch):
    plugins("hung", "time.sleep(600)")
    monkeypatch.setattr("backplane_launcher.catalogue.LIVE_TIMEOUT_S", 0.5)
    row = listing(Catalogue.load({}))["hung"]
    assert "no answer about its backends within 0.5 s" in row["reason"]
    assert row["summary"] == "a test's backend"


def test_one_that_cannot_be_asked_hides_no_other(plugins, monkeypatch):
    plugins("good")
    plugins("cursed")

    def ask(python, name, *arguments):
        if name == "cursed":
            raise KeyError("a defect of ours")
        return ask_one(python, name, *arguments)

    monkeypatch.setattr("backplane_launcher.catalogue.ask_one", ask)
    cursed, good = Catalogue.load({}).ask(None, ["cursed", "good"])
    assert cursed.availability.reason == "it could not be asked: KeyError: 'a defect of ours'"
    assert isinstance(good.availability, Available)


def test_those_that_are_asked_get_no_keys(plugins, monkeypatch):
    plugins(
        "nosy", 'import os; return Unavailable(reason=str(os.environ.get("HF_TOKEN")), remedy="")'
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (nosy,) = Catalogue.load({}).ask(None, ["nosy"])
    assert nosy.availability.reason == "None"


def test_the_table_says_all_of_it(plugins):
    plugins("good")
    plugins("absent", 'return Unavailable(reason="no card", remedy="buy one")')
    text = listing(Catalogue.load({}), as_json=False)
    assert text.split("\n")[-4].startswith("echo 0."), "those for tests come last"
    assert " (for tests): available" in text
    assert (
        "good: available, engine 4.2\n    a test's backend\n    device: Toy 9000, 8.0 GiB" in text
    )
    assert "absent: not available\n" in text
    assert "    why: no card\n    remedy: buy one" in text


def test_a_backend_in_another_python(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "plug_far.py").write_text(textwrap.dedent(PLUGIN).format(name="far", probe=TOY))
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nPYTHONPATH={elsewhere} BACKPLANE_EXTRA_PLUGINS=plug_far "
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    catalogue = Catalogue.load({"far": str(python)})
    row = listing(catalogue)["far"]
    assert row["available"] is True
    assert row["python"] == str(python)
    assert row["devices"][0]["name"] == "Toy 9000"
    (description,) = catalogue.ask(None, ["far"])
    assert isinstance(description.availability, Available)
    # Its settings are flags of this launcher, though its package is not installed here.
    page = subprocess.run(
        [sys.executable, "-m", "backplane_launcher", "--backend-python", f"far={python}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--far.depth, --far-depth N" in page


def test_another_python_without_the_backend(tmp_path):
    row = listing(Catalogue.load({"nothing_there": sys.executable}))["nothing_there"]
    assert row["available"] is False
    assert row["error"] == "not installed"
