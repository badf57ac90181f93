"""What an operator sees of two servers and a worker: one set of numbers, one line a request."""

import json
import os
import signal
from collections import Counter

import httpx
import pytest
from deployment import Deployment, alive, deployed, processes_below, wait_until

ECHO = ("--model-id", "echo:test", "--backend", "echo", "--num-servers", "2")
NUM_REQUESTS = 40
TOKENS = 4
GAUGES = (
    "tgi_queue",
    "tgi_batch_current",
    "tgi_batch_max",
    "backplane_cache",
    "backplane_batch",
    "backplane_workers_ready",
    "backplane_requests_in_flight",
)


def scrape(deployment: Deployment) -> dict[str, float]:
    """One reading, by a connection of its own: any server may answer."""
    text = httpx.get(f"{deployment.url}/metrics", timeout=30).text
    pairs = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def ask(deployment: Deployment, number: int) -> httpx.Response:
    """A request by a connection of its own, with an id of its own; each fourth is wrong."""
    body = {"inputs": "hello", "parameters": {"max_new_tokens": TOKENS if number % 4 else 0}}
    return httpx.post(
        f"{deployment.url}/{'generate_stream' if number % 2 else 'generate'}",
        json=body,
        headers={"x-request-id": f"request-{number}"},
        timeout=30,
    )


def servers_of(deployment: Deployment) -> list[int]:
    below = processes_below(deployment.process.pid)
    return [pid for pid, command in below.items() if "-m backplane_server " in command]


@pytest.fixture(scope="module")
def pair():
    with deployed(*ECHO, "--json-output") as deployment:
        wait_until(lambda: len(servers_of(deployment)) == 2, 30, "two servers")
        # From here on connections reach the one or the other.
        heard = "listening at"
        wait_until(lambda: deployment.output.count(heard) == 2, 30, "two that listen")
        yield deployment


def test_numbers_are_those_of_both_servers_and_outlive_them(pair):
    first = scrape(pair)
    statuses = Counter(ask(pair, number).status_code for number in range(NUM_REQUESTS))
    assert statuses == {200: 30, 422: 10}
    readings = [scrape(pair) for _ in range(6)]
    for now in readings:
        grown = {name: now[name] - first[name] for name in now}
        assert grown["tgi_request_count"] == NUM_REQUESTS
        assert grown["tgi_request_success"] == 30
        assert grown['tgi_request_failure{err="validation"}'] == 10
        assert grown["tgi_request_generated_tokens_count"] == 30
        assert grown["tgi_request_generated_tokens_sum"] == 30 * TOKENS
        assert grown["backplane_generated_tokens"] == 30 * TOKENS
        assert grown["backplane_inter_token_duration_count"] == 30 * (TOKENS - 1)
    before = readings[-1]
    for victims in (servers_of(pair)[:1], pair.workers()):
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not alive(pid), 10, "the end of it")
        pair.wait_ready()
        wait_until(lambda: len(servers_of(pair)) == 2, 30, "two servers again")
        for _ in range(6):
            now = scrape(pair)
            fallen = [
                name
                for name, value in before.items()
                if now[name] < value and not name.startswith(GAUGES)
            ]
            assert not fallen
            assert now["tgi_request_count"] == before["tgi_request_count"]
            assert now["backplane_generated_tokens"] == before["backplane_generated_tokens"]
    wait_until(lambda: scrape(pair)["backplane_workers_ready"] == 1, 30, "the worker again")
    assert scrape(pair)["backplane_worker_restarts"] == 1


def test_each_request_has_its_line(pair):
    answers = [ask(pair, number) for number in range(8)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert ids == [f"request-{number}" for number in range(8)]

    def told() -> list[dict]:
        lines = [json.loads(line) for line in pair.lines]
        return [line for line in lines if line.get("request_id") in ids]

    wait_until(lambda: {line["request_id"] for line in told()} == set(ids), 30, "their lines")
    for line in told():
        number = int(line["request_id"].removeprefix("request-"))
        assert line["status"] == (200 if number % 4 else 422)
        assert line["route"] == ("/generate_stream" if number % 2 else "/generate")
        if number % 4:
            assert line["generated_tokens"] == TOKENS
            assert line["worker_requests"].startswith("server-")
        else:
            assert line["failure"] == "validation"
    assert "hello" not in pair.output
