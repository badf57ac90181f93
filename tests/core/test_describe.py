"""Live questions in another process: answers are data, a hang or a crash becomes a reason."""

import os
import subprocess
import sys
import time
import venv

import pytest
from backplane_core.backend import Available, ModelSource, Native, Unavailable, Unsupported
from backplane_core.describe import Question, ask, ask_one
from backplane_core.errors import BackendError

from tests.core.plugin_folder import AVAILABLE, BACKEND, write_plugin

MODEL = ModelSource(model_id="toy:model", files=("a.bin", "b.bin"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_all_backends_answer_at_once(folder):
    write_plugin(folder, "toy")
    write_plugin(folder, "broken", source="import nothing_here")
    answers = {one.facts.name: one for one in ask(sys.executable, Question(model=MODEL), 20)}
    assert isinstance(answers["toy"].availability, Available)
    assert answers["toy"].availability.devices[0].name == "toy"
    assert isinstance(answers["toy"].support, Native)
    assert answers["toy"].files == ("a.bin",)
    assert isinstance(answers["echo"].support, Unsupported)
    assert isinstance(answers["broken"].availability, Unavailable)
    assert "nothing_here" in answers["broken"].availability.reason


def test_static_facts_ask_no_driver(folder):
    write_plugin(folder, "toy", probe="raise OSError('asked the driver')")
    (answer,) = ask(sys.executable, Question(backends=("toy",), live=False), 20)
    assert answer.facts.summary
    assert answer.availability is None


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("raise OSError('driver too old')", "driver too old"),
        ("import os; os.abort()", "status -6"),
        ("import time; time.sleep(60)", "no answer"),
    ],
    ids=["raises", "crashes", "hangs"],
)
def test_a_probe_that_fails_is_a_backend_unavailable(folder, probe, reason):
    write_plugin(folder, "bad", probe=probe)
    started = time.monotonic()
    answer = ask_one(sys.executable, "bad", Question(), timeout=3)
    assert time.monotonic() - started < 10
    assert isinstance(answer.availability, Unavailable)
    assert reason in answer.availability.reason


WRONG_ANSWERS = {
    "probe": ("return None", "", "its probe returned None"),
    "supports": ("", "def supports(self, model): return True", "its supports returned True"),
    "select_files": ("", "def select_files(self, model): return 'a.bin'", "its select_files"),
}


@pytest.mark.parametrize("method", WRONG_ANSWERS)
def test_an_answer_of_the_wrong_type_is_told_and_hides_nobody(folder, method):
    probe, override, complaint = WRONG_ANSWERS[method]
    source = BACKEND.format(cls="Toy", name="wrong", probe=probe or AVAILABLE, extra="")
    source += f"\nclass Wrong(Toy):\n    {override or 'pass'}\n"
    source = source.replace("register(Toy)", "register(Wrong)")
    write_plugin(folder, "wrong", source=source)
    answers = {one.facts.name: one for one in ask(sys.executable, Question(model=MODEL), 20)}
    assert isinstance(answers["echo"].availability, Available)
    answer = answers["wrong"]
    reason = answer.availability.reason if method == "probe" else answer.support.reason
    assert complaint in reason


def test_an_interpreter_that_answers_in_another_form_is_told(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'backplane-describe: {\"a\": 1}'\n")
    python.chmod(0o755)
    with pytest.raises(BackendError, match="another form"):
        ask(str(python), Question(), 20)
    python.write_text("#!/bin/sh\necho 'backplane-describe: []'\n")
    answer = ask_one(str(python), "toy", Question(), 20)
    assert "said nothing" in answer.availability.reason


def test_the_child_gets_the_environment_it_is_given(folder):
    write_plugin(
        folder, "nosy", probe="import os; return Available(devices=(), version=str(os.environ))"
    )
    (answer,) = ask(
        sys.executable, Question(backends=("nosy",)), 20, {"PYTHONPATH": str(folder), "SEEN": "1"}
    )
    assert "SEEN" in answer.availability.version
    assert "HOME" not in answer.availability.version


def test_a_plugin_that_prints_does_not_spoil_the_answer(folder):
    write_plugin(
        folder, "loud", probe="print('loading…'); return Available(devices=(), version='')"
    )
    (answer,) = ask(sys.executable, Question(backends=("loud",)), 20)
    assert isinstance(answer.availability, Available)


def test_an_unknown_backend_is_unavailable_and_lists_the_known():
    (answer,) = ask(sys.executable, Question(backends=("nonesuch",)), 20)
    assert isinstance(answer.availability, Unavailable)
    assert "echo" in answer.availability.remedy


def test_a_backend_of_another_python_answers_from_there(tmp_path):
    """An environment of its own, with the contract and a plugin this interpreter lacks."""
    environment = tmp_path / "other"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python3*/site-packages"))
    write_plugin(
        site, "elsewhere", probe="import sys; return Available(devices=(), version=sys.prefix)"
    )
    paths = [path for path in sys.path if path.endswith(("site-packages", "core/src"))]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (site / "borrowed.pth").write_text("\n".join(paths))
    core = subprocess.run(
        [python, "-c", "import backplane_core"], env=clean, capture_output=True, check=False
    )
    assert core.returncode == 0, core.stderr
    (answer,) = ask(str(python), Question(backends=("elsewhere",)), 20)
    assert isinstance(answer.availability, Available)
    assert answer.availability.version == str(environment)
    (here,) = ask(sys.executable, Question(backends=("elsewhere",)), 20)
    assert isinstance(here.availability, Unavailable)


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_an_interpreter_without_backplane_is_an_error_with_a_remedy(python):
    with pytest.raises(BackendError) as error:
        ask(python, Question(), 20)
    assert error.value.remedy
