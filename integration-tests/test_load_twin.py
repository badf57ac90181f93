"""The twin of TGI's k6 scenario, against servers that keep up, refuse, and are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from deployment import deployed, free_port

LOAD = Path(__file__).resolve().parents[1] / "benchmarks" / "load"
ECHO = ("--model-id", "echo:load", "--backend", "echo")


def load(host, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(LOAD), *arguments],
        env={**os.environ, "HOST": host, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("scenario", ["common", "long"])
def test_its_counts_are_the_servers(tmp_path, scenario):
    with deployed(*ECHO) as echo:
        report = tmp_path / "report.json"
        words = ["--words", "300"] if scenario == "long" else []
        run = load(
            echo.url.removeprefix("http://"),
            scenario,
            *("--vus", "8", "--iterations", "20", "--json", str(report)),
            *words,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        numbers = json.loads(report.read_text())
        counters = numbers["counters"]
        assert counters["http_reqs"] == counters["iterations"] == 20
        assert counters["new_tokens"] == 20 * 50
        assert counters["tokens"] == counters["new_tokens"] + counters["input_tokens"]
        assert echo.metric("tgi_request_count") == 20
        assert echo.metric("tgi_request_generated_tokens_sum") == counters["new_tokens"]
        assert echo.metric("tgi_request_input_length_sum") == counters["input_tokens"]
    spread = numbers["trends"]["time_per_token"]
    assert 0 < spread["min"] <= spread["med"] <= spread["p(90)"] <= spread["p(95)"] <= spread["max"]
    assert "threshold rate==0: ok" in run.stdout


def test_a_refused_request_crosses_the_threshold():
    arguments = ("--max-concurrent-requests", "1", "--echo.step-seconds", "0.02")
    with deployed(*ECHO, *arguments) as narrow:
        run = load(narrow.url, "common", "--vus", "4", "--iterations", "6", "--duration", "20")
    assert run.returncode == 99
    assert "threshold rate==0: FAILED" in run.stdout
    assert " x 429 " in run.stdout


def test_nobody_there_crosses_it_too():
    run = load(f"127.0.0.1:{free_port()}", "common", "--vus", "2", "--iterations", "2")
    assert run.returncode == 99
    assert "100.00%  2 of 2" in run.stdout
    assert "no answer: ConnectError" in run.stdout


def test_time_that_is_up_leaves_iterations_undone(tmp_path):
    report = tmp_path / "report.json"
    with deployed(*ECHO, "--echo.step-seconds", "0.02") as slow:
        run = load(
            slow.url,
            *("--vus", "2", "--iterations", "1000", "--duration", "2", "--json", str(report)),
        )
    assert run.returncode == 0, run.stdout
    counters = json.loads(report.read_text())["counters"]
    assert 2 <= counters["iterations"] < 1000
    assert counters["iterations"] + counters["dropped_iterations"] == 1000


def test_a_key_is_sent():
    with deployed(*ECHO, "--api-key", "sesame", wait=False) as keyed:
        while keyed.status("/health/ready") != 200:
            assert keyed.process.poll() is None, keyed.output
        asked = ("--vus", "1", "--iterations", "1")
        assert load(keyed.url, *asked, API_KEY="sesame").returncode == 0
        refused = load(keyed.url, *asked)
    assert refused.returncode == 99
    assert " x 401 " in refused.stdout


@pytest.mark.parametrize("number", [3, 11])
def test_the_same_number_is_the_same_question(number):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import conversations as c;"
        f"print(c.short_question({number}, 60)); print(c.long_question({number}, 500))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", script, str(LOAD)], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(texts) == 1
    assert 480 < len(texts.pop().split()) < 700
