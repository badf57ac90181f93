"""Plugins written on the spot: a folder that looks like an installed distribution."""

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

BACKEND = """
from backplane_core.backend import Available, Backend, Device, Native
from backplane_core.hookspecs import hookimpl

class {cls}(Backend):
    name = "{name}"
    summary = "a test's backend"
    {extra}
    def probe(self):
        {probe}
    def supports(self, model):
        return Native()
    def select_files(self, model):
        return model.files[:1]
    def create_runner(self, spec, progress):
        raise AssertionError("never asked")

@hookimpl
def backplane_register_backends(register):
    register({cls})
"""

AVAILABLE = 'return Available(devices=(Device(name="toy"),), version="1")'


@contextlib.contextmanager
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Plugins written to `folder` are found; what was imported of them is forgotten again."""
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


def write_plugin(
    folder: Path,
    name: str,
    *,
    backend: str | None = None,
    probe: str = AVAILABLE,
    extra: str = "",
    source: str | None = None,
) -> str:
    """Write module and metadata of a plugin whose entry point is `name`; returns the module."""
    module = f"plugin_{name}"
    text = source or BACKEND.format(
        cls="Toy", name=backend or name, probe=probe, extra=extra or "priority = 0"
    )
    (folder / f"{module}.py").write_text(textwrap.dedent(text))
    metadata = folder / f"{module}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[backplane]\n{name} = {module}\n")
    return module
