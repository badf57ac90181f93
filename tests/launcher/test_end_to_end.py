"""The whole house once: launcher, the real server, llama.cpp and the demo model."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from .launched import LIMIT_S, Launched

ASK = {"inputs": "What is Backplane?", "parameters": {"max_new_tokens": 6}}


def bears_watermark(client: httpx.Client, url: str, folder: Path, *, marked: bool) -> bool:
    """What `backplane detect-watermark` says of a text that this server has just written."""
    parameters = {"max_new_tokens": 60, "do_sample": True, "seed": 1, "watermark": marked}
    body = {"inputs": "Once upon a time", "parameters": parameters}
    text = client.post("/generate", json=body).json()["generated_text"]
    file = folder / "text.txt"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "backplane_launcher", "detect-watermark", str(file), "--url", url],
        env={**os.environ, "API_KEY": "secret-of-the-environment"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.startswith("watermarked: " if done.returncode == 0 else "not watermarked: ")
    return done.returncode == 0


def test_serve_lose_the_worker_and_serve_again(tmp_path):
    environ = {"PYTHONPATH": "", "API_KEY": "secret-of-the-environment"}
    argv = ("--port", "0", "--watermark-delta", "50")
    with Launched(tmp_path, *argv, environ=environ) as launched:
        url = launched.wait_for_line(r"Connected: (http://\S+)", 60.0)[1]
        with httpx.Client(
            base_url=url,
            headers={"authorization": "Bearer secret-of-the-environment"},
            timeout=30.0,
        ) as client:
            assert client.post("/generate", json=ASK).status_code == 200
            assert httpx.post(f"{url}/generate", json=ASK).status_code == 401

            assert bears_watermark(client, url, tmp_path, marked=True)
            assert not bears_watermark(client, url, tmp_path, marked=False)

            os.kill(launched.worker_pid(), signal.SIGKILL)
            launched.wait_for_line("worker-0 was killed by SIGKILL")
            answer = client.get("/health")
            assert answer.status_code == 503
            assert "SIGKILL" in answer.text
            launched.until(
                lambda: client.post("/generate", json=ASK).status_code == 200,
                LIMIT_S,
                "service again",
            )
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
        launched.until(lambda: not launched.pids(), LIMIT_S, "end of all children")
