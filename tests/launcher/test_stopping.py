"""How the launcher stops: signals, whoever else they reach, and what is still in flight."""

import os
import signal
import time

import pytest

from .launched import LIMIT_S, Launched

# Named, since asking the other backends too takes time.
ECHO = ("--model-id", "echo:x", "--port", "0", "--backend", "echo")


def gone(launched: Launched) -> None:
    launched.until(lambda: not launched.pids(), LIMIT_S, "end of every child")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains(tmp_path, number):
    environ = {"FAKE_SERVER_DRAIN_S": "0.5"}
    with Launched(tmp_path, *ECHO, "-g", "7", environ=environ) as launched:
        launched.wait_connected()
        launched.signal(number)
        assert launched.wait_for_event("Shutdown")["grace_s"] == 7.0
        assert launched.wait() == 0
        drained = launched.wait_for_event("drained")
        assert drained["workers_there"] == [True], "the worker outlives the draining server"
        gone(launched)


def test_a_second_signal_stops_at_once(tmp_path):
    tuned = {"serve._ONE_STOP_S": 0.1}
    environ = {"FAKE_SERVER_DRAIN_S": "60"}
    with Launched(tmp_path, *ECHO, environ=environ, tuned=tuned) as launched:
        launched.wait_connected()
        launched.signal(signal.SIGTERM)
        launched.wait_for_event("Shutdown")
        time.sleep(0.2)
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0, "well before the server has drained"
        gone(launched)
    assert "SIGTERM again: stopping at once" in launched.output
    assert launched.lines[-1].endswith(": stopped")


def test_one_stop_told_twice_is_one_stop(tmp_path):
    environ = {"FAKE_SERVER_DRAIN_S": "0.5"}
    tuned = {"serve._ONE_STOP_S": 60}
    with Launched(tmp_path, *ECHO, environ=environ, tuned=tuned) as launched:
        launched.wait_connected()
        launched.signal(signal.SIGTERM)
        launched.wait_for_line("finishing what is in flight")
        launched.signal(signal.SIGTERM)  # make, and shells and systemd too, pass theirs on
        launched.signal(signal.SIGHUP)
        assert launched.wait() == 0
        assert launched.wait_for_event("drained")["workers_there"] == [True]
    assert "again: stopping" not in launched.output


def test_a_worker_leaves_signals_to_its_launcher(tmp_path):
    with Launched(tmp_path, *ECHO, environ={"FAKE_SERVER_DRAIN_S": "0.5"}) as launched:
        launched.wait_connected()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(launched.worker_pid(), number)
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
        assert launched.wait_for_event("drained")["workers_there"] == [True]
        gone(launched)
    assert "was killed by" not in launched.output


def test_a_worker_that_dies_while_all_stops_is_not_started_again(tmp_path):
    with Launched(tmp_path, *ECHO, environ={"FAKE_SERVER_DRAIN_S": "1.5"}) as launched:
        launched.wait_connected()
        launched.signal(signal.SIGTERM)
        launched.wait_for_event("Shutdown")
        os.kill(launched.worker_pid(), signal.SIGKILL)
        assert launched.wait() == 0
        gone(launched)
    assert "worker-0 was killed by SIGKILL while all was stopping" in launched.output
    assert "starting it again" not in launched.output
    assert len([event for event in launched.events() if event["event"] == "WorkerUp"]) == 1


def test_a_stop_reads_in_order_and_has_an_end(tmp_path):
    with Launched(tmp_path, *ECHO, "-g", "7") as launched:
        launched.wait_connected()
        before = len(launched.lines)
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
    said = [line.split(": ", 1)[1] for line in launched.lines[before:]]
    assert said == [
        "SIGTERM: finishing what is in flight, 7 s at most; again to stop at once",
        "the servers have ended; now the workers",
        "stopping",
        "stopped",
    ]


def test_a_server_that_does_not_stop_is_killed(tmp_path):
    environ = {"FAKE_SERVER_DEAF": "1"}
    tuned = {"supervisor._MARGIN_S": 0.5}
    with Launched(tmp_path, *ECHO, "-g", "0", environ=environ, tuned=tuned) as launched:
        launched.wait_connected()
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
        assert "server-0 did not stop within 0.5 s; killing it" in launched.output
        gone(launched)


def test_a_signal_while_the_model_loads(tmp_path):
    with Launched(tmp_path, *ECHO, "--echo.load-seconds", "60") as launched:
        launched.until(
            lambda: [e for e in launched.events() if e.get("stage") == "load"], LIMIT_S, "loading"
        )
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0, "well before it is loaded"
        gone(launched)
