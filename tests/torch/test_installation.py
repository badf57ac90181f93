"""Whether PyTorch is there and fits: read from metadata, never by importing it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from backplane_torch import installation

ROOT = Path(__file__).resolve().parents[2]
FITTING = {"torch": "2.13.0+cpu", "transformers": "5.23.0"}


def test_what_is_installed_here_fits() -> None:
    versions = installation.installed_versions()
    assert set(versions) == {"torch", "transformers"}
    assert installation.objection(versions) is None


@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        (["torch"], "torch is not installed"),
        (["transformers"], "transformers is not installed"),
        (["torch", "transformers"], "torch and transformers are not installed"),
    ],
)
def test_what_is_missing_is_named_with_both_ways_to_get_it(absent: list[str], reason: str) -> None:
    found = installation.objection({**FITTING, **dict.fromkeys(absent)})
    assert found is not None
    assert found.reason == reason
    assert "make install-torch" in found.remedy
    assert "pip install 'torch>=2.11' 'transformers>=5.17,<6'" in found.remedy


@pytest.mark.parametrize(
    "versions",
    [
        {"torch": "2.11.0+cu130"},
        {"torch": "2.15.0"},
        {"torch": "3.0"},
        {"torch": "2.12.0.dev20260101"},
        {"transformers": "5.17.0"},
        {"transformers": "5.99.1"},
    ],
)
def test_versions_in_range_are_taken(versions: dict[str, str | None]) -> None:
    assert installation.objection({**FITTING, **versions}) is None


@pytest.mark.parametrize(
    ("name", "version", "needed"),
    [
        ("torch", "2.10.1+cpu", ">=2.11"),
        ("torch", "1.13", ">=2.11"),
        ("transformers", "5.16.2", ">=5.17,<6"),
        ("transformers", "4.57.1", ">=5.17,<6"),
        ("transformers", "6.0.0", ">=5.17,<6"),
    ],
)
def test_versions_out_of_range_are_named_with_what_is_needed(
    name: str, version: str, needed: str
) -> None:
    found = installation.objection({**FITTING, name: version})
    assert found is not None
    assert found.reason == f"{name} {version} is installed, but {needed} is needed"


def test_the_range_is_that_of_the_package() -> None:
    manifest = tomllib.loads((ROOT / "backends" / "torch" / "pyproject.toml").read_text())
    extra = manifest["project"]["optional-dependencies"]["engine"]
    declared = {row for row in extra if re.match(r"torch|transformers", row)}
    assert {library.requirement for library in installation.LIBRARIES} == declared


def test_nothing_heavy_is_imported() -> None:
    probe = (
        "import sys; from backplane_torch import installation; "
        "installation.objection(installation.installed_versions()); "
        "print(sorted({'torch', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "[]"
