"""The build hook that compiles `native/*.c`: a library that loads, of these sources alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from backplane_torch.engine.devices.native import library

from tests.build_hooks import build_hook

SOURCES = Path(library.__file__).parent
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The hook over a copy of the smaller sources, beside which an older library lies."""
    module = build_hook("torch", tmp_path, monkeypatch)
    for name in ("sources.c", "threads.c", "threads.h"):
        shutil.copy(SOURCES / name, tmp_path)
    monkeypatch.setattr(library, "_LIBRARY", module.LIBRARY)
    library.load.cache_clear()
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
