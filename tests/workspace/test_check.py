"""`make check` as a whole: every gate runs, a failing one is named with its remedy."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check(script):
    return script("check")


def gate(check, name, code):
    return check.Gate(name, (sys.executable, "-c", code), f"remedy of {name}")


def test_all_gates_run_and_the_failing_one_says_how_to_mend_it(check, monkeypatch, capsys):
    planted = [
        gate(check, "first", "print('what is wrong'); raise SystemExit(1)"),
        gate(check, "second", "print('noise')"),
    ]
    monkeypatch.setattr(check, "gates", lambda: planted)
    assert check.main([]) == 1
    shown = capsys.readouterr().out
    assert "what is wrong" in shown
    assert "gate first failed. To mend: remedy of first" in shown
    assert "second   ok" in shown
    assert "noise" not in shown


def test_a_clean_run_says_so(check, monkeypatch, capsys):
    monkeypatch.setattr(check, "gates", lambda: [gate(check, "only", "")])
    assert check.main([]) == 0
    assert capsys.readouterr().out.endswith("all gates passed\n")


def test_gates_can_be_chosen(check, monkeypatch, capsys):
    planted = [gate(check, "wanted", ""), gate(check, "other", "raise SystemExit(1)")]
    monkeypatch.setattr(check, "gates", lambda: planted)
    assert check.main(["wanted"]) == 0
    assert "other" not in capsys.readouterr().out


def test_an_unknown_gate_is_an_error(check, capsys):
    assert check.main(["fromat"]) == 2
    assert "fromat" in capsys.readouterr().out


def test_every_member_is_on_the_path_of_the_import_contracts(check):
    names = {str(Path(entry).relative_to(ROOT)) for entry in check.source_path().split(":")}
    assert {"core/src", "server/src", "launcher/src", "backends/llamacpp/src"} <= names


def test_contributing_describes_every_gate(check):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for known in check.gates():
        assert f"`{known.name}`" in page, f"describe gate {known.name} in CONTRIBUTING.md"
