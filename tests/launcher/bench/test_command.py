"""`backplane bench` as a process: against our own server, and against programs that it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.server.stack import Stack, pid_alive

from .scripted_server import GOOD, ScriptedServer, whole

STARTABLE = Path(__file__).with_name("startable.py")
LIMIT_S = 60.0
# It is asked for its version in three ways first.
FACTS = [[whole("404 No", b"")]] * 3
SILENT = [LIMIT_S]


def environ():
    return {name: value for name, value in os.environ.items() if not name.startswith("BACKPLANE_")}


def bench(*argv):
    return subprocess.run(
        [sys.executable, "-m", "backplane_launcher", "bench", *argv],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environ(),
    )


def result(*argv, status=0):
    done = bench(*argv, "--json", "-")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def echo():
    with Stack(settings={"step_seconds": 0.002}, max_concurrent_requests=64) as running:
        yield running.url


def test_a_closed_loop_at_our_own_server(echo):
    report = result(
        *("--url", echo, "--concurrency", "1,4", "--requests", "6", "--token-ids", "97:123"),
        *("--prompt-length", "20", "--output-length", "10", "--seed", "5", "--slo", "e2e:60000"),
        "--per-request",
    )
    assert (report["model"], report["seed"]) == ("echo:test", 5)
    assert "api_key" not in report["settings"]
    assert [level["figures"]["concurrency"] for level in report["levels"]] == [1, 4]
    for level in report["levels"]:
        figures = level["figures"]
        assert (figures["num_requests"], figures["num_ok"]) == (6, 6)
        # The server's own counts, and one event for each token.
        assert figures["num_prompt_tokens"] == 6 * 20
        assert figures["num_output_tokens"] == 6 * 10
        assert figures["num_counted_by_events"] == 0
        assert figures["ttft_ms"]["num"] == figures["e2e_ms"]["num"] == 6
        assert figures["goodput"] == pytest.approx(figures["requests_per_s"])
        assert any("backplane_server" in use["name"] for use in figures["processes"])
        assert len(level["requests"]) == 6
        assert {request["num_output"] for request in level["requests"]} == {10}


@pytest.mark.parametrize("api", ["openai-completions", "openai-chat", "tgi"])
@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_an_open_loop_in_every_dialect(echo, api, more):
    report = result(
        *("--url", echo, "--rate", "100", "--requests", "5", "--api", api, *more),
        *("--prompts", "words", "--prompt-length", "uniform:3:9", "--output-length", "8"),
    )
    (level,) = report["levels"]
    figures = level["figures"]
    assert (figures["rate"], figures["num_ok"]) == (100.0, 5)
    assert figures["num_output_tokens"] == 40


def test_a_conversation_grows_turn_by_turn(echo):
    report = result(
        *("--url", echo, "--api", "openai-chat", "--turns", "3", "--requests", "2"),
        *("--prompt-length", "4", "--output-length", "6", "--per-request", "--warmup", "0"),
    )
    (level,) = report["levels"]
    counts = [request["num_prompt"] for request in level["requests"]]
    assert len(counts) == 6
    assert [request.get("turn", 1) for request in level["requests"]] == [1, 2, 3, 1, 2, 3]
    assert counts[0] < counts[1] < counts[2]
    assert counts[3] < counts[4] < counts[5]


def test_a_duration_ends_it(echo):
    report = result(
        *("--url", echo, "--concurrency", "2", "--duration", "0.3", "--token-ids", "97:123"),
        *("--prompt-length", "5", "--output-length", "2"),
    )
    figures = report["levels"][0]["figures"]
    assert figures["num_ok"] > 2
    assert figures["wall_s"] >= 0.29


def test_tables_for_people_and_a_file_for_programs(echo, tmp_path):
    path = tmp_path / "result.json"
    done = bench(
        *("--url", echo, "--requests", "2", "--token-ids", "97:123", "--json", str(path)),
        *("--output-length", "2"),
    )
    assert done.returncode == 0, done.stderr
    for word in ("output tok/s", "TTFT", "ITL", "E2E", "CPU us/tok", "seed"):
        assert word in done.stdout
    assert json.loads(path.read_text())["levels"]


def test_requests_that_fail_are_counted_and_end_with_1():
    with ScriptedServer(*FACTS, [whole("500 No", b"torn")], [GOOD]) as server:
        done = bench("--url", server.url, "--requests", "4", "--warmup", "0", "--model", "m")
    assert done.returncode == 1
    assert "1 failed, status 500: torn" in done.stdout


def test_prompts_of_a_file_and_what_is_left_out_of_them(tmp_path):
    path = tmp_path / "prompts"
    path.write_text('{"prompt": ""}\n{"prompt": "hello"}\n')
    with ScriptedServer(*FACTS, [GOOD]) as server:
        done = bench("--url", server.url, "--dataset", str(path), "--requests", "1", "--model", "m")
    assert done.returncode == 0, done.stderr
    assert f"--dataset {path}: 1 of 2 is left out: the prompt is empty (line 1)\n" in done.stderr


def test_a_file_that_cannot_be_written_is_found_before_anything_is_measured():
    with ScriptedServer([GOOD]) as server:
        done = bench("--url", server.url, "--json", "/no/such/folder/x")
        assert server.num_connections == 0
    assert done.returncode == 1
    assert "cannot write /no/such/folder/x" in done.stderr


def test_nobody_at_the_address():
    report = result("--url", "http://127.0.0.1:9", "--requests", "1", "--warmup", "0", status=1)
    (failure,) = report["levels"][0]["figures"]["failures"]
    assert failure["kind"] == "connect"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--concurrency", "x"), "no whole number"),
        (("--rate", "0"), "no number above 0"),
        (("--start", "a=serve"), "does not say where the port goes"),
        (("--start", "serve {port}"), "is not NAME="),
        (("--compare", "a=http://x", "a=http://y"), "two servers are called a"),
        (("--compare", "http//x"), "is not NAME=URL"),
        (("word",), "bench takes nothing but flags"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(argv, told):
    done = bench(*argv)
    assert done.returncode == 2
    assert told in done.stderr


# ── servers that it starts ───────────────────────────────────────────────────────────────────


def start(name, pace="0.001"):
    return f"{name}={sys.executable} {STARTABLE} {{port}} {pace}"


def test_a_server_is_started_and_stopped():
    report = result("--start", start("made"), "--requests", "2", "--warmup", "0")
    readiness = report["readiness"]
    assert 0.3 < readiness["ready_s"] < readiness["first_answer_s"]
    assert report["model"] == "made"
    (use,) = report["levels"][0]["figures"]["processes"]
    assert use["name"] == "startable.py"
    assert not pid_alive(use["pid"])


@pytest.mark.parametrize("more", [(), ("--keep",)])
def test_two_servers_in_paired_rounds(more):
    report = result(
        *("--start", start("quick"), start("slow", "0.05"), "--rounds", "2", "--requests", "2"),
        *more,
    )
    turns = [(turn["name"], turn["round"]) for turn in report["turns"]]
    assert turns == [("quick", 0), ("slow", 0), ("slow", 1), ("quick", 1)]
    # Kept servers are started once.
    started = [turn["readiness"] is not None for turn in report["turns"]]
    assert started == ([True, True, False, False] if more else [True] * 4)
    ratios = {ratio["figure"]: ratio["ratio"] for ratio in report["ratios"]}
    assert ratios["output tok/s"]["low"] > 1
    assert ratios["ITL p50 ms"]["high"] < 1
    pids = [use["pid"] for turn in report["turns"] for use in _processes(turn)]
    assert pids
    assert not any(map(pid_alive, pids))


def _processes(turn):
    return turn["levels"][0]["figures"]["processes"]


def test_a_server_that_does_not_start():
    done = bench("--start", start("torn", "broken"))
    assert done.returncode == 1
    assert "torn ended with status 1 before it was ready" in done.stderr
    assert "the model is torn" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_is_none():
    done = bench("--start", "none=/no/such/program {port}")
    assert done.returncode == 1
    assert "cannot start none: /no/such/program: No such file" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_leaves_no_server_behind(tmp_path, number):
    marker = tmp_path / "pid"
    script = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    argv = ("--start", f'stuck={sys.executable} -c "{script}" {{port}}')
    process = subprocess.Popen(
        [sys.executable, "-m", "backplane_launcher", "bench", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(),
    )
    deadline = time.monotonic() + LIMIT_S
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = int(marker.read_text())
    process.send_signal(number)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not pid_alive(pid)


# ── told to end early ────────────────────────────────────────────────────────────────────────


def told_to_end(number, server, num_requests, *argv):
    """Started with these flags, and sent a signal when the server has had so many requests."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "backplane_launcher",
            "bench",
            "--model",
            "m",
            "--warmup",
            "0",
            *argv,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(),
    )
    try:
        deadline = time.monotonic() + LIMIT_S
        while len(server.requests) < num_requests and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        printed, said = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_keeps_the_levels_that_were_whole(tmp_path, number):
    path = tmp_path / "result.json"
    with ScriptedServer(*FACTS, [GOOD], [GOOD], SILENT) as server:
        printed = told_to_end(
            *(number, server, 6, "--url", server.url, "--requests", "1", "--json", str(path)),
            *("--concurrency", "1,2,4,8"),
        )
    assert "told to end early: 2 of 4 levels are whole" in printed
    assert "output tok/s" in printed
    report = json.loads(path.read_text())
    assert report["ended_early"]
    assert [level["figures"]["concurrency"] for level in report["levels"]] == [1, 2]


def test_told_to_end_before_any_level_was_whole_it_has_nothing_to_show():
    with ScriptedServer(*FACTS, SILENT) as server:
        printed = told_to_end(signal.SIGINT, server, 4, "--url", server.url)
    assert printed == ""


def test_a_comparison_told_to_end_compares_what_both_have():
    with (
        ScriptedServer(*FACTS, [GOOD], SILENT) as first,
        ScriptedServer(*FACTS, [GOOD], *FACTS, [GOOD], SILENT) as second,
    ):
        servers = (f"a={first.url}", f"b={second.url}")
        # a, then b, b: they take turns to and fro; then a, which does not answer its version.
        argv = ("--compare", *servers, "--requests", "1", "--json", "-")
        report = json.loads(told_to_end(signal.SIGINT, first, 5, *argv))
    assert report["ended_early"]
    turns = [(turn["name"], turn["round"]) for turn in report["turns"]]
    assert turns == [("a", 0), ("b", 0), ("b", 1)]
    (ratio,) = [ratio for ratio in report["ratios"] if ratio["figure"] == "output tok/s"]
    assert len(ratio["ratio"]["values"]) == 1


def test_a_comparison_told_to_end_in_its_first_round_shows_whom_it_measured():
    with ScriptedServer(*FACTS, [GOOD]) as first, ScriptedServer(*FACTS, SILENT) as second:
        servers = (f"first={first.url}", f"second={second.url}")
        argv = ("--compare", *servers, "--requests", "1", "--rounds", "3")
        printed = told_to_end(signal.SIGINT, second, 4, *argv)
    assert "told to end early: 1 of 6 levels are whole" in printed
    assert "output tok/s" in printed
