"""The whole house once: launcher, the real server, llama.cpp and the demo model."""

import os
import signal

import httpx

from .launched import LIMIT_S, Launched

ASK = {"inputs": "What is Backplane?", "parameters": {"max_new_tokens": 6}}


def test_serve_lose_the_worker_and_serve_again(tmp_path):
    environ = {"PYTHONPATH": "", "API_KEY": "secret-of-the-environment"}
    with Launched(tmp_path, "--port", "0", environ=environ) as launched:
        url = launched.wait_for_line(r"Connected: (http://\S+)", 60.0)[1]
        with httpx.Client(
            base_url=url,
            headers={"authorization": "Bearer secret-of-the-environment"},
            timeout=30.0,
        ) as client:
            assert client.post("/generate", json=ASK).status_code == 200
            assert httpx.post(f"{url}/generate", json=ASK).status_code == 401

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
