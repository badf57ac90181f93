"""Build hooks of backends, `hatch_build.py`, as modules that compile where a test wants it."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BACKENDS = Path(__file__).resolve().parents[1] / "backends"


def build_hook(backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A backend's hook, whose library goes into `folder`, where an older one lies."""
    spec = importlib.util.spec_from_file_location(
        f"{backend}_hatch_build", BACKENDS / backend / "hatch_build.py"
    )
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(hook, "LIBRARY", folder / hook.LIBRARY.name)
    monkeypatch.setattr(hook, "FOLDER", folder)
    hook.LIBRARY.write_text("an older one")
    return hook
