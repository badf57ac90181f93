"""The launcher as a process, with core's real worker, the echo backend and a listening server."""

import json
import os
import signal
import socket
import stat
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest
from backplane_core.errors import SetupError
from backplane_launcher.run_directory import RunDirectory

from .launched import HERE, LIMIT_S, Launched

# Named, since asking the other backends too takes time.
ECHO = ("--model-id", "echo:x", "--port", "0", "--backend", "echo")
HASTY = {"backoff.FIRST_S": 0.05}


def gone(launched: Launched) -> None:
    launched.until(lambda: not launched.pids(), LIMIT_S, "end of every child")


def test_from_start_to_stop(tmp_path):
    with Launched(tmp_path, *ECHO, "--echo.load-seconds", "0.3") as launched:
        url = launched.wait_connected()
        with urllib.request.urlopen(f"{url}/health/ready") as answer:  # noqa: S310 - our own server
            assert answer.status == 200
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
        gone(launched)
    kinds = [event["event"] for event in launched.events()]
    assert kinds[0] == "launch", "the server starts first"
    assert "Progress" in kinds[1 : kinds.index("WorkerUp")]
    assert kinds[-2:] == ["Shutdown", "drained"]
    assert "server-0: a line on standard output" in launched.lines
    assert list(launched.runtime.iterdir()) == [], "the run directory is removed"


def test_secrets_travel_in_a_private_document_only(tmp_path):
    environ = {"API_KEY": "secret-of-the-environment", "HF_TOKEN": "hf_secret"}
    with Launched(tmp_path, *ECHO, environ=environ) as launched:
        launched.wait_connected()
        event = launched.wait_for_event("launch")
        assert event["document"]["api_keys"] == ["secret-of-the-environment"]
        assert event["secrets"] == []
        assert event["mode"] == "0o600"
        (folder,) = launched.runtime.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not list(folder.glob("*.json")), "documents are removed once they are read"
        assert "secret-of" not in launched.output
        assert "hf_secret" not in launched.output


def test_a_killed_worker_is_replaced_with_doubling_pauses_and_the_servers_know(tmp_path):
    with Launched(tmp_path, *ECHO) as launched:
        launched.wait_connected()
        first = launched.wait_for_event("WorkerUp")
        for number, pause in ((1, "0.5"), (2, "1")):
            os.kill(launched.worker_pid(), signal.SIGKILL)
            down = launched.wait_for_event("WorkerDown", number)
            assert down["reason"] == f"was killed by SIGKILL; it is started again in {pause} s"
            assert down["summary"] == f"the worker {down['reason']}"
            assert not down.get("final", False)
            again = launched.wait_for_event("WorkerUp", number + 1)
            assert again["worker_id"] == first["worker_id"]
            assert again["socket_path"] != first["socket_path"]
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0


def test_a_stopped_worker_is_replaced_after_the_stall_timeout(tmp_path):
    with Launched(tmp_path, *ECHO, "--worker-stall-timeout", "1.5") as launched:
        launched.wait_connected()
        pid = launched.worker_pid()
        os.kill(pid, signal.SIGSTOP)
        down = launched.wait_for_event("WorkerDown")
        assert down["reason"] == "hung: no heartbeat for 1.5 s; it is being replaced"
        launched.wait_for_event("WorkerUp", 2)
        assert launched.worker_pid() != pid
        assert pid not in launched.pids()


def test_a_killed_server_is_replaced_on_the_same_port(tmp_path):
    with Launched(tmp_path, *ECHO) as launched:
        url = launched.wait_connected()
        os.kill(launched.server_pid(), signal.SIGKILL)
        again = launched.wait_for_event("launch", 2)
        assert again["server"] == "server-0.2", "request ids must never come twice"
        assert url.endswith(f":{again['document']['port']}")
        launched.until(
            lambda: [
                e
                for e in launched.events()
                if e["server"] == "server-0.2" and e["event"] == "WorkerUp"
            ],
            LIMIT_S,
            "present state for the server that joined late",
        )
        with urllib.request.urlopen(f"{url}/health/ready") as answer:  # noqa: S310 - our own server
            assert answer.status == 200


def test_a_model_that_cannot_be_loaded_ends_the_launcher_with_one_line(tmp_path):
    with Launched(tmp_path, *ECHO, "--echo.load-error", "the weights are torn") as launched:
        assert launched.wait() == 1
        gone(launched)
    (error,) = [line for line in launched.lines if "the weights are torn" in line]
    assert error.startswith("Error: ")
    assert "Traceback" not in launched.output
    down = launched.wait_for_event("WorkerDown")
    assert down["final"] is True
    assert "torn" not in down["summary"], "clients read no paths and no engine's words"


def test_a_worker_that_never_comes_up_is_given_up(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in *backplane_core.worker*) echo "libgpu.so: cannot open" >&2; exit 9;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    argv = (*ECHO, "--backend-python", f"echo={python}")
    with Launched(tmp_path, *argv, tuned=HASTY) as launched:
        assert launched.wait() == 1
        gone(launched)
    assert "Error: worker-0 could not start, 3 times: exited with status 9" in launched.output
    assert "libgpu.so: cannot open" in launched.lines[-1]


def test_a_replica_that_never_comes_up_is_given_up_while_another_loads_and_serves(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '*worker-1*) echo "libgpu.so: cannot open" >&2; exit 9;;\n'
        f"*worker-0*) until test -e {tmp_path}/go; do sleep 0.1; done;;\n"
        "esac\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    argv = (*ECHO, "--backend-python", f"echo={python}", "--num-replicas", "2")
    with Launched(tmp_path, *argv, tuned=HASTY) as launched:
        launched.until(lambda: "worker-1 is given up" in launched.output, LIMIT_S, "given up")
        assert "worker-0 goes on" in launched.output
        launched.until(
            lambda: any(
                event.get("worker_id") == "worker-1" and event.get("final")
                for event in launched.events()
            ),
            LIMIT_S,
            "servers are told",
        )
        (tmp_path / "go").touch()
        launched.wait_for_event("WorkerUp")
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
        gone(launched)


def test_a_sweep_takes_nobody_else_s_folder(tmp_path):
    run = tmp_path / "run"
    theirs = run / "backplane-build"
    theirs.mkdir(parents=True, mode=0o700)
    (theirs / "lock").touch()
    (theirs / "notes.txt").write_text("mine")
    with RunDirectory(str(run)) as ours:
        assert ours.path.parent == run
        assert stat.S_IMODE(ours.path.stat().st_mode) == 0o700
        assert (theirs / "notes.txt").exists()
    assert not ours.path.exists()


def test_a_server_that_never_comes_up_is_given_up(tmp_path):
    with Launched(tmp_path, *ECHO, environ={"FAKE_SERVER_FAILS": "1"}, tuned=HASTY) as launched:
        assert launched.wait() == 1
        gone(launched)
    assert "Error: server-0 could not start, 3 times: exited with status 1" in launched.output


@pytest.mark.parametrize("logs", [(), ("--json-output",)])
def test_a_server_that_a_person_must_see_to_is_not_started_again(tmp_path, logs):
    with Launched(tmp_path, *ECHO, *logs, environ={"FAKE_SERVER_FAILS": "3"}) as launched:
        assert launched.wait() == 1
        gone(launched)
    assert launched.lines[-1] == "Error: no template: here (write one)"
    assert "starting it again" not in launched.output
    if logs:
        records = [json.loads(line) for line in launched.lines[:-1]]
        (last,) = [each for each in records if each["process"] == "launcher"][-1:]
        assert (last["level"], last["message"]) == ("ERROR", "no template: here (write one)")


def test_a_worker_that_the_server_cannot_use_ends_the_launcher(tmp_path):
    environ = {"FAKE_SERVER_CANNOT_USE_IT": "unhealthy: its tokenizer is torn"}
    with Launched(tmp_path, *ECHO, environ=environ) as launched:
        assert launched.wait() == 1
        gone(launched)
    assert "cannot use the worker: unhealthy: its tokenizer is torn" in launched.lines[-1]
    assert launched.lines[-1].startswith("Error: ")


@pytest.mark.parametrize("runtime", [True, False])
def test_nowhere_to_write_is_one_sentence(tmp_path, monkeypatch, runtime):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    if runtime:
        with RunDirectory(str(tmp_path)) as run:
            assert run.path.parent == tmp_path, "nobody asks for what is not needed"
        return
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SetupError) as error:
        RunDirectory(None)
    assert str(error.value) == (
        "no folder for temporary files can be written (mount an emptyDir on /tmp, or set TMPDIR)"
    )


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped worker"])
def test_kill_9_of_the_launcher_leaves_no_orphan(tmp_path, stopped):
    argv = (*ECHO, "--num-replicas", "2", "--num-servers", "2")
    with Launched(tmp_path, *argv) as launched:
        launched.wait_for_event("WorkerUp", 4)
        assert len(launched.pids()) == 4
        if stopped:
            os.kill(launched.worker_pid(), signal.SIGSTOP)
        launched.signal(signal.SIGKILL)
        launched.wait()
        gone(launched)


def test_kill_9_leaves_no_orphan_that_was_stopped_before_it_could_say_so(tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *backplane_core.worker*) echo $$ >{tmp_path}/stopped; kill -STOP $$;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    with Launched(tmp_path, *ECHO, "--backend-python", f"echo={python}") as launched:
        launched.until(lambda: is_stopped(tmp_path / "stopped"), LIMIT_S, "stopped worker")
        launched.signal(signal.SIGKILL)
        launched.wait()
        gone(launched)


def is_stopped(pid_file) -> bool:
    if not pid_file.exists() or not (pid := pid_file.read_text().strip()):
        return False
    return "State:\tT" in Path(f"/proc/{pid}/status").read_text()


def test_what_a_killed_launcher_left_is_swept_by_the_next_one(tmp_path):
    with Launched(tmp_path, *ECHO) as launched:
        launched.wait_for_event("Progress")
        launched.signal(signal.SIGKILL)
        launched.wait()
        gone(launched)
    (leftover,) = launched.runtime.iterdir()
    with Launched(tmp_path, *ECHO) as launched:
        launched.until(lambda: not leftover.exists(), LIMIT_S, "sweep")


def test_a_hangup_that_nohup_ignores_stays_ignored(tmp_path):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        launched = Launched(tmp_path, *ECHO)
    finally:
        signal.signal(signal.SIGHUP, previous)
    with launched:
        launched.wait_connected()
        launched.signal(signal.SIGHUP)
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
    assert "SIGHUP" not in launched.output


def test_kill_9_while_loading_leaves_no_orphan(tmp_path):
    with Launched(tmp_path, *ECHO, "--echo.load-seconds", "60") as launched:
        launched.until(lambda: len(launched.pids()) == 2, LIMIT_S, "both children")
        launched.signal(signal.SIGKILL)
        launched.wait()
        gone(launched)


def test_kill_9_while_a_probe_hangs_leaves_no_orphan(tmp_path):
    (tmp_path / "plug_hung.py").write_text(
        "import time\n"
        "from backplane_core.hookspecs import hookimpl\n"
        "from backplane_core.testing.echo import EchoBackend\n"
        "class Hung(EchoBackend):\n"
        "    name = 'hung'\n"
        "    def probe(self):\n"
        "        time.sleep(600)\n"
        "@hookimpl\n"
        "def backplane_register_backends(register):\n"
        "    register(Hung)\n"
    )
    environ = {
        "PYTHONPATH": f"{HERE / 'fake_server'}:{tmp_path}",
        "BACKPLANE_EXTRA_PLUGINS": "plug_hung",
    }
    argv = ("--model-id", "echo:x", "--port", "0")
    with Launched(tmp_path, *argv, environ=environ) as launched:
        launched.wait_for_event("Progress")
        launched.until(lambda: len(launched.pids()) >= 2, LIMIT_S, "the server and the probe")
        launched.signal(signal.SIGKILL)
        launched.wait()
        gone(launched)


def test_a_taken_port(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Launched(tmp_path, "--model-id", "echo:x", "--port", str(port)) as launched:
            assert launched.wait() == 1
    assert launched.lines[-1] == (
        f"Error: port {port} is in use on 127.0.0.1 "
        "(stop what listens there, or choose another --port)"
    )


def test_json_output_is_json_lines_only(tmp_path):
    with Launched(tmp_path, *ECHO, "--json-output") as launched:
        launched.wait_connected()
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
    documents = [json.loads(line) for line in launched.lines]
    assert any("Connected" in document["message"] for document in documents)
    assert {each["process"] for each in documents} == {"launcher", "server-0", "worker-0"}
    assert any(document["target"] == "server-0" for document in documents)
    assert all("timestamp" in document for document in documents)


@pytest.mark.parametrize(
    ("argv", "environ", "as_json"),
    [
        (("--json-output",), {}, True),
        ((), {"JSON_OUTPUT": "true"}, True),
        ((), {"JSON_OUTPUT": "true", "BACKPLANE_JSON_OUTPUT": "0"}, False),
        (("--json-output=false",), {"JSON_OUTPUT": "true"}, False),
        ((), {}, False),
    ],
)
def test_what_ends_the_launcher_is_a_record_too_where_logs_are_json(
    tmp_path, argv, environ, as_json
):
    with Launched(tmp_path, "--port", "no number", *argv, environ=environ) as launched:
        assert launched.wait() == 2
    assert "error: " in launched.output
    records = [json.loads(line) for line in launched.lines if line.startswith("{")]
    told = [(each["level"], each["process"]) for each in records]
    assert told == ([("ERROR", "launcher")] if as_json else [])
    assert all(each["message"] in launched.output.split("error: ")[1] for each in records)


def test_an_unnamed_model_is_the_demo_and_says_so(tmp_path):
    with Launched(tmp_path, "--port", "0") as launched:
        launched.wait_for_line(r"serving the bundled demo model.*--model-id")


def test_a_named_backend_that_cannot_serve_the_model_is_an_error(tmp_path):
    with Launched(tmp_path, "--port", "0", "--backend", "echo") as launched:
        assert launched.wait() == 1
    assert "Error: backend echo cannot serve this model" in launched.lines[-1]
