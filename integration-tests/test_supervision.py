"""Killed, hung and stopped: what clients see, and that service returns by itself."""

import json
import os
import signal
import threading
import time

import httpx
import pytest
from deployment import Deployment, alive, deployed, processes_below, wait_until

STALL_TIMEOUT_S = 2.0


class OpenStream(threading.Thread):
    """A client that reads a long stream to its end and remembers how it ended."""

    def __init__(self, deployment: Deployment, max_tokens: int) -> None:
        super().__init__(daemon=True)
        self.url = f"{deployment.url}/v1/completions"
        self.body = {
            "prompt": "Once",
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "stream": True,
        }
        self.started = threading.Event()
        self.events: list[dict] = []
        self.done_mark = False
        self.error: Exception | None = None
        self.ended_at = 0.0
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream("POST", self.url, json=self.body, timeout=60) as reply:
                for line in reply.iter_lines():
                    if line == "data: [DONE]":
                        self.done_mark = True
                    elif line.startswith("data:"):
                        self.events.append(json.loads(line[5:]))
                        self.started.set()
        except httpx.HTTPError as error:
            self.error = error
        self.ended_at = time.monotonic()
        self.started.set()


def open_streams(deployment: Deployment, number: int, max_tokens: int = 1900) -> list[OpenStream]:
    streams = [OpenStream(deployment, max_tokens) for _ in range(number)]
    for stream in streams:
        assert stream.started.wait(30)
    return streams


@pytest.fixture(scope="module")
def supervised():
    with deployed("--worker-stall-timeout", str(STALL_TIMEOUT_S)) as deployment:
        yield deployment


def expect_typed_errors(streams: list[OpenStream], since: float, within_s: float) -> None:
    for stream in streams:
        stream.join(within_s + 10)
        assert not stream.is_alive()
        assert stream.error is None, stream.error
        assert "error" in stream.events[-1], stream.events[-1]
        assert stream.events[-1]["error"]["code"] == "worker_died"
        assert stream.ended_at - since < within_s


def test_a_killed_worker_costs_its_streams_and_service_returns(supervised):
    streams = open_streams(supervised, 6)
    (worker,) = supervised.workers()
    killed_at = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    expect_typed_errors(streams, killed_at, 1.0)
    wait_until(lambda: supervised.status() == 503, 3, "503 while it restarts")
    reason = httpx.get(f"{supervised.url}/health").json()
    supervised.wait_ready(30)
    assert supervised.workers() != [worker]
    answer = httpx.post(f"{supervised.url}/generate", json={"inputs": "Hello"}, timeout=30)
    assert answer.is_success
    assert reason["error_type"] in {"healthcheck", "unavailable"}


def test_a_hung_worker_is_ended_by_the_stall_timeout(supervised):
    streams = open_streams(supervised, 4)
    (worker,) = supervised.workers()
    stopped_at = time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    expect_typed_errors(streams, stopped_at, STALL_TIMEOUT_S + 3.0)
    wait_until(lambda: not alive(worker), 5, "the hung worker is killed")
    supervised.wait_ready(30)
    answer = httpx.post(f"{supervised.url}/generate", json={"inputs": "Hello"}, timeout=30)
    assert answer.is_success


def test_a_killed_server_is_restarted(supervised):
    def servers() -> list[int]:
        below = processes_below(supervised.process.pid)
        return [pid for pid, command in below.items() if "-m backplane_server " in command]

    (server,) = servers()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: servers() and servers() != [server], 10, "another server")
    supervised.wait_ready(30)
    assert httpx.post(f"{supervised.url}/generate", json={"inputs": "x"}, timeout=30).is_success


def late_request(deployment: Deployment) -> int:
    """The status of a request that comes during the drain; 0 if nobody listens any more."""
    try:
        return httpx.post(
            f"{deployment.url}/generate", json={"inputs": "x"}, timeout=10
        ).status_code
    except httpx.TransportError:
        return 0


def test_sigterm_finishes_sixteen_streams_and_exits_0():
    with deployed() as deployment:
        streams = open_streams(deployment, 16, max_tokens=200)
        family = processes_below(deployment.process.pid)
        deployment.process.send_signal(signal.SIGTERM)
        # 0 is nobody listening: the streams were finished sooner than this asked.
        wait_until(lambda: deployment.status() in {0, 503}, 10, "nothing new is taken")
        assert late_request(deployment) in {0, 503}
        assert deployment.process.wait(60) == 0, deployment.output
        for stream in streams:
            stream.join(10)
            assert stream.error is None
            assert stream.done_mark
            assert len(stream.events) >= 200 or stream.events[-1]["choices"][0]["finish_reason"]
            assert not any("error" in event for event in stream.events)
        wait_until(lambda: not any(alive(pid) for pid in family), 5, "no process is left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_every_process_finishes_the_streams(number):
    """As systemd's KillMode=control-group sends it."""
    with deployed() as deployment:
        streams = open_streams(deployment, 4, max_tokens=150)
        family = processes_below(deployment.process.pid)
        for pid in (*family, deployment.process.pid):
            os.kill(pid, number)
        assert deployment.process.wait(60) == 0, deployment.output
        for stream in streams:
            stream.join(10)
            assert stream.error is None
            assert stream.done_mark
            assert not any("error" in event for event in stream.events)
        wait_until(lambda: not any(alive(pid) for pid in family), 5, "no process is left")
        wait_until(lambda: deployment.lines[-1].endswith(": stopped"), 5, deployment.output)
    assert " ERROR " not in deployment.output
    assert "lost" not in deployment.output


def test_kill_9_of_the_launcher_leaves_no_orphan():
    with deployed() as deployment:
        family = processes_below(deployment.process.pid)
        assert len(family) >= 2
        deployment.process.kill()
        deployment.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in family), 5, "no process is left")


def test_kill_9_of_the_launcher_over_a_stopped_worker_leaves_no_orphan():
    with deployed() as deployment:
        family = processes_below(deployment.process.pid)
        (worker,) = deployment.workers()
        os.kill(worker, signal.SIGSTOP)
        deployment.process.kill()
        deployment.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in family), 5, "no process is left")
