"""Plants every forbidden import in a copy of the tree and sees import-linter name it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
FORBIDDEN = [
    (source, forbidden)
    for contract in CONTRACTS
    if contract["type"] == "forbidden"
    for source in contract["source_modules"]
    for forbidden in contract["forbidden_modules"]
]
# What the architecture asks for, independent of what the configuration says.
ENGINES = {"torch", "transformers", "vllm", "llama_cpp"}
MAY_USE_TORCH_BACKEND = {"backplane_cuda", "backplane_rocm", "backplane_xpu"}


def import_packages(root):
    """Folder of each first-party import package, by name."""
    places = [*root.glob("*/src/backplane_*"), *root.glob("backends/*/src/backplane_*")]
    return {place.name: place for place in places}


def lint(root):
    sources = {str(place.parent) for place in import_packages(root).values()}
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": os.pathsep.join(sorted(sources)), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources alone, with the configuration."""
    copy = tmp_path_factory.mktemp("tree")
    for place in import_packages(ROOT).values():
        target = copy / place.relative_to(ROOT)
        shutil.copytree(place, target, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


@pytest.fixture(scope="module")
def planted_report(tree, tmp_path_factory):
    """import-linter's answer when each forbidden import stands in a module of its own."""
    copy = tmp_path_factory.mktemp("planted") / "tree"
    shutil.copytree(tree, copy)
    packages = import_packages(copy)
    for source, forbidden in FORBIDDEN:
        module = packages[source] / f"planted_{forbidden}.py"
        # Inside a function: a lazy import breaks the contract just the same.
        module.write_text(f"def plant():\n    import {forbidden}\n    return {forbidden}\n")
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


def test_the_tree_keeps_its_contracts(tree):
    result = lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("source", "forbidden"), FORBIDDEN)
def test_a_planted_import_is_caught(planted_report, source, forbidden):
    chain = rf"{source}\.planted_{forbidden} -> {forbidden}\b"
    assert re.search(chain, planted_report), planted_report


def test_an_indirect_import_is_caught(tree, tmp_path):
    """Launcher uses core; an engine hidden in core reaches the launcher through it."""
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    packages = import_packages(copy)
    (packages["backplane_core"] / "planted_carrier.py").write_text("import llama_cpp\n")
    (packages["backplane_launcher"] / "planted_user.py").write_text(
        "import backplane_core.planted_carrier\n"
    )
    result = lint(copy)
    assert result.returncode == 1
    assert "backplane_launcher.planted_user -> backplane_core.planted_carrier" in result.stdout


@pytest.mark.parametrize(
    ("package", "lower", "upper"),
    [
        ("backplane_core", "errors", "worker"),
        ("backplane_server", "text/planted", "services"),
        ("backplane_llamacpp", "settings", "runner"),
    ],
)
def test_an_import_against_the_layers_is_caught(tree, tmp_path, package, lower, upper):
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    module = import_packages(copy)[package] / f"{lower}.py"
    before = module.read_text() if module.exists() else ""
    module.write_text(f"{before}\n\ndef plant():\n    import {package}.{upper}\n")
    result = lint(copy)
    assert result.returncode == 1
    dotted = lower.replace("/", ".")
    assert f"{package}.{dotted} -> {package}.{upper}" in result.stdout


def test_a_module_without_a_layer_is_caught(tree, tmp_path):
    copy = tmp_path / "tree"
    shutil.copytree(tree, copy)
    (import_packages(copy)["backplane_core"] / "planted_newcomer.py").write_text("")
    result = lint(copy)
    assert result.returncode == 1
    assert "planted_newcomer" in result.stdout


def expected_forbidden(package, packages):
    backends = packages - {"backplane_core", "backplane_server", "backplane_launcher"}
    if package not in backends:
        others = packages - {package, "backplane_core"}
        return ENGINES | others
    others = packages - {package, "backplane_core"}
    return others - {"backplane_torch"} if package in MAY_USE_TORCH_BACKEND else others


@pytest.mark.parametrize("package", sorted(import_packages(ROOT)))
def test_every_package_is_under_the_contracts(package):
    """A new backend fails here until its contract stands in pyproject.toml."""
    forbidden = {name for source, name in FORBIDDEN if source == package}
    missing = expected_forbidden(package, set(import_packages(ROOT))) - forbidden
    assert not missing, f"pyproject.toml lets {package} import {sorted(missing)}"


@pytest.mark.parametrize("package", ["backplane_core", "backplane_server", "backplane_launcher"])
def test_discovery_is_import_light(package):
    """Importing the front end's packages loads no engine."""
    probe = f"import sys, {package}; print(sorted({ENGINES!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
