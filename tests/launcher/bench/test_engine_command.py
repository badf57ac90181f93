"""`backplane bench engine` as a process, with the echo backend."""

import json
import os
import subprocess
import sys

import pytest

ECHO = ("--backend", "echo", "--model-id", "echo:")


def engine(*argv):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("BACKPLANE_")}
    return subprocess.run(
        [sys.executable, "-m", "backplane_launcher", "bench", "engine", *ECHO, *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )


def test_figures_by_batch_size():
    argv = ("-b", "1,2", "-s", "6", "-d", "5", "-r", "3", "--echo.step-seconds", "0.005")
    done = engine(*argv, "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["backend"], report["settings"]["decode_length"]) == ("echo", 5)
    assert [batch["batch_size"] for batch in report["batches"]] == [1, 2]
    for batch in report["batches"]:
        assert batch["prefill_ms"]["num"] == 3
        assert batch["decode_step_ms"]["num"] == 3 * 4
        # No step is shorter than the echo's own pace allows, on the whole.
        assert batch["decode_ms"]["mean"] >= 0.5 * 4 * 5
        assert batch["decode_tokens_per_s"]["max"] <= 2 * batch["batch_size"] / 0.005


def test_tables():
    done = engine("-b", "1", "-r", "1")
    assert done.returncode == 0, done.stderr
    for word in ("latency, ms", "prefill", "decode, a step", "tok/s"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (("-b", "0"), 2, "--batch-size 0 is no batch"),
        (("-b", "4", "--echo.max-sequences", "2"), 1, "more than the 2 sequences"),
        (("--json", "/no/such/folder/x"), 1, "cannot write /no/such/folder/x"),
    ],
)
def test_what_cannot_be(argv, status, told):
    done = engine("-r", "1", *argv)
    assert done.returncode == status
    assert told in done.stderr
    assert "Traceback" not in done.stderr
