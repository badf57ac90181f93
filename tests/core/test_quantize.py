"""Quantizing in the backend's interpreter: the order carried out, and what goes wrong."""

import sys
import textwrap

import pytest
from backplane_core.backend import ModelSource
from backplane_core.errors import BackendError, ModelError
from backplane_core.quantize import Order, run

PLUGIN = """
import os, sys, threading, time
from pathlib import Path
from backplane_core.errors import ModelError
from backplane_core.hookspecs import hookimpl
from backplane_core.testing.echo import EchoBackend

class Quantizing(EchoBackend):
    name = "quantizing"
    quantizations = ("small",)
    def quantize(self, source, target, quantization, progress):
        print("an engine's own words", flush=True)
        progress("quantize", 0.25, "first")
        if quantization == "torn":
            raise ModelError("the model is torn", remedy="mend it")
        if quantization == "dead":
            os._exit(9)
        if quantization == "defect":
            raise ZeroDivisionError("of the plugin's own")
        if quantization == "open":
            print("writing...", end=" ", flush=True)
        if quantization == "stuck":
            threading.Thread(target=time.sleep, args=(300,)).start()
        target.write_bytes(Path(source.path).read_bytes() + quantization.encode())
        progress("quantize", 1.0)

class Plain(EchoBackend):
    name = "plain"

@hookimpl
def backplane_register_backends(register):
    register(Quantizing)
    register(Plain)
"""


@pytest.fixture
def quantize(tmp_path, monkeypatch):
    (tmp_path / "plugin_for_quantize.py").write_text(textwrap.dedent(PLUGIN))
    (tmp_path / "source").write_bytes(b"weights ")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("BACKPLANE_EXTRA_PLUGINS", "plugin_for_quantize")
    reports = []

    def start(quantization, *, backend="quantizing", python=sys.executable):
        order = Order(
            backend=backend,
            source=ModelSource(model_id="m", path=str(tmp_path / "source")),
            target=str(tmp_path / "target"),
            quantization=quantization,
        )
        run(python, order, lambda *report: reports.append(report))
        return reports

    return start


def test_it_writes_and_reports(quantize, tmp_path, capfd):
    reports = quantize("small")
    assert (tmp_path / "target").read_bytes() == b"weights small"
    assert reports == [("quantize", 0.25, "first"), ("quantize", 1.0, "")]
    assert "an engine's own words" in capfd.readouterr().err


def test_a_line_that_the_engine_left_open_hides_nothing(quantize, tmp_path, capfd):
    reports = quantize("open")
    assert (tmp_path / "target").read_bytes() == b"weights open"
    assert reports == [("quantize", 0.25, "first"), ("quantize", 1.0, "")]
    assert "writing... " in capfd.readouterr().err


def test_a_process_that_does_not_end_once_it_is_done_is_ended(quantize, tmp_path, monkeypatch):
    monkeypatch.setattr("backplane_core.errand._END_S", 0.1)
    quantize("stuck")
    assert (tmp_path / "target").read_bytes() == b"weights stuck"


def test_what_stands_in_the_way_comes_as_the_error_it_was(quantize):
    with pytest.raises(ModelError, match="the model is torn") as caught:
        quantize("torn")
    assert caught.value.remedy == "mend it"


def test_a_backend_that_makes_none_says_so(quantize):
    with pytest.raises(BackendError, match="backend plain cannot write m as small") as caught:
        quantize("small", backend="plain")
    assert caught.value.remedy == "it makes: none"


@pytest.mark.parametrize("kind", ["dead", "defect"])
def test_a_process_that_ends_before_it_is_done(quantize, kind, capfd):
    status = {"dead": "9", "defect": "1"}[kind]
    with pytest.raises(BackendError, match=f"stopped while it wrote .*, with status {status}"):
        quantize(kind)
    assert ("of the plugin's own" in capfd.readouterr().err) == (kind == "defect")


def test_what_is_there_already_is_not_written_over(quantize, tmp_path):
    (tmp_path / "target").write_text("kept")
    with pytest.raises(BackendError, match="exists already"):
        quantize("small")
    assert (tmp_path / "target").read_text() == "kept"


def test_an_interpreter_that_is_none(quantize):
    with pytest.raises(BackendError, match="cannot start /no/python"):
        quantize("small", python="/no/python")


def test_an_interpreter_without_backplane(quantize, tmp_path):
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\nexit 3\n")
    empty.chmod(0o755)
    with pytest.raises(BackendError, match="with status 3"):
        quantize("small", python=str(empty))
