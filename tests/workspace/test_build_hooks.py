"""A backend that cannot be compiled is installed all the same, and says why."""

from pathlib import Path

import pytest

from tests.build_hooks import build_hook

FAULTS = {
    "no compiler": "there is no C compiler",
    "a compiler that fails": "returned non-zero exit status 1",
    "a folder to read only": "read-only file system",
}


@pytest.mark.parametrize(
    ("backend", "instead"), [("llamacpp", "numpy"), ("torch", "does without compiled code")]
)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_is_told_and_leaves_no_library(
    backend: str,
    instead: str,
    fault: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hook = build_hook(backend, tmp_path, monkeypatch)
    if fault == "no compiler":
        monkeypatch.setenv("PATH", "")
    elif fault == "a compiler that fails":
        monkeypatch.setenv("CC", "false")
    else:

        def refuse(**_: object) -> str:
            raise PermissionError(FAULTS[fault])

        monkeypatch.setattr(hook.tempfile, "TemporaryDirectory", refuse)
    assert not hook.compile_library()
    said = capsys.readouterr().err
    assert said.count(instead) == 1
    assert FAULTS[fault] in said
    assert not hook.LIBRARY.exists()
