"""The repository as the workspace tests see it, and the lint programs as modules."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def members():
    """Each workspace member's folder and its parsed pyproject.toml."""
    folders = [ROOT / name for name in ("core", "server", "launcher")]
    folders += sorted(path.parent for path in (ROOT / "backends").glob("*/pyproject.toml"))
    return {folder: tomllib.loads((folder / "pyproject.toml").read_text()) for folder in folders}


@pytest.fixture(scope="session")
def script():
    """Loads one program of scripts/ by its name; they import each other as neighbours."""
    sys.path.insert(0, str(ROOT / "scripts"))

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path.remove(str(ROOT / "scripts"))
