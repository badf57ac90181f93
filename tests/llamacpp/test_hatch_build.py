"""The build hook that compiles `rows.c`: a library that loads, or none and a line that says why."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from backplane_llamacpp.native import rows

HOOK = Path(__file__).resolve().parents[2] / "backends" / "llamacpp" / "hatch_build.py"


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook over a copy of the source, beside which an older library lies."""
    spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("CC", raising=False)
    for source in (*module.SOURCES, module.FOLDER / "rows.h"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(module, "SOURCES", [tmp_path / path.name for path in module.SOURCES])
    monkeypatch.setattr(module, "LIBRARY", tmp_path / module.LIBRARY.name)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    module.LIBRARY.write_text("an older one")
    return module


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_library_is_compiled_into_place(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hook.compile_library()
    monkeypatch.setattr(rows, "_LIBRARY", hook.LIBRARY)
    assert rows.load() is not None
    assert sorted(path.name for path in hook.FOLDER.iterdir()) == [
        *("librows.so", "rows.c", "rows.h", "sample.c")
    ]


@pytest.mark.parametrize("fault", ["no compiler", "a compiler that fails", "a folder to read only"])
def test_what_fails_is_told_and_leaves_no_library(
    hook: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    if fault == "no compiler":
        monkeypatch.setenv("PATH", "")
    elif fault == "a compiler that fails":
        monkeypatch.setenv("CC", "false")
    else:

        def refuse(**_: object) -> str:
            raise PermissionError("read-only file system")

        monkeypatch.setattr(hook.tempfile, "TemporaryDirectory", refuse)
    assert not hook.compile_library()
    said = capsys.readouterr().err
    assert said.count("numpy") == 1
    assert len(said.split()) > 4
    assert not hook.LIBRARY.exists()
