"""The build hook that compiles `rows.c` makes a library that loads."""

import shutil
from pathlib import Path
from types import ModuleType

import pytest
from backplane_llamacpp.native import rows

from tests.build_hooks import build_hook


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook over a copy of the source, beside which an older library lies."""
    module = build_hook("llamacpp", tmp_path, monkeypatch)
    sources = Path(rows.__file__).parent
    for source in (*module.SOURCES, sources / "rows.h"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(module, "SOURCES", [tmp_path / path.name for path in module.SOURCES])
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
