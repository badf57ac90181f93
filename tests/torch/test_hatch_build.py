"""The build hook that compiles `native/*.c`: a library that loads, or none and a line of why."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from backplane_torch.engine.devices.native import library

HOOK = Path(__file__).resolve().parents[2] / "backends" / "torch" / "hatch_build.py"
SOURCES = Path(library.__file__).parent
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The hook over a copy of the smaller sources, beside which an older library lies."""
    spec = importlib.util.spec_from_file_location("torch_hatch_build", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("CC", raising=False)
    for name in ("sources.c", "threads.c", "threads.h"):
        shutil.copy(module.FOLDER / name, tmp_path)
    monkeypatch.setattr(module, "LIBRARY", tmp_path / module.LIBRARY.name)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(library, "_LIBRARY", module.LIBRARY)
    library.load.cache_clear()
    module.LIBRARY.write_text("an older one")
    yield module
    library.load.cache_clear()


@needs_compiler
def test_the_library_is_compiled_into_place(hook: ModuleType) -> None:
    for source in SOURCES.glob("*.[ch]"):
        shutil.copy(source, hook.FOLDER)
    before = {path.name for path in hook.FOLDER.iterdir()}
    assert hook.compile_library()
    assert library.load() is not None
    assert {path.name for path in hook.FOLDER.iterdir()} == before


@needs_compiler
@pytest.mark.parametrize("change", ["another line", "another file", "a file less"])
def test_a_library_of_other_sources_is_not_taken(hook: ModuleType, change: str) -> None:
    assert hook.compile_library()
    if change == "another line":
        (hook.FOLDER / "threads.c").write_text("/* changed */")
    elif change == "another file":
        (hook.FOLDER / "more.h").write_text("/* more */")
    else:
        (hook.FOLDER / "threads.h").unlink()
    assert library.load() is None


@needs_compiler
def test_a_library_that_does_not_say_of_which_sources_it_is_is_not_taken(hook: ModuleType) -> None:
    (hook.FOLDER / "sources.c").unlink()
    assert hook.compile_library()
    assert library.load() is None


@pytest.mark.parametrize("there", [True, False])
def test_without_a_library_the_log_says_so_once(
    hook: ModuleType, caplog: pytest.LogCaptureFixture, there: bool
) -> None:
    if not there:
        hook.LIBRARY.unlink()
    caplog.set_level("INFO", logger=library.__name__)
    assert library.load() is None
    assert library.load() is None
    [record] = caplog.records
    assert "which is slower: " in record.getMessage()


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
    assert said.count("does without compiled code") == 1
    assert len(said.split()) > 8
    assert not hook.LIBRARY.exists()
