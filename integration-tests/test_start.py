"""From the command line to the first answer, and every way not to get there."""

import subprocess

import httpx
from deployment import BACKPLANE, deployed, wait_until


def test_without_arguments_the_demo_model_is_served_and_says_so(demo):
    assert "demo model" in demo.output
    assert "--model-id" in demo.output
    assert "Connected" in demo.output
    assert "llamacpp" in demo.output


def test_the_server_answers_503_with_progress_before_the_worker_is_up():
    arguments = ("--model-id", "echo:slow", "--backend", "echo", "--echo.load-seconds", "3")
    with deployed(*arguments, wait=False) as deployment:
        wait_until(lambda: deployment.status() == 503, 20, "503 while loading")
        loading = httpx.get(f"{deployment.url}/health").json()
        refused = httpx.post(f"{deployment.url}/generate", json={"inputs": "x"})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert deployment.status("/health/live") == 200
        assert deployment.status("/health/ready") == 503
        assert "unhealthy" in loading["error"]
        assert loading["progress"]["stage"]
        deployment.wait_ready()
        assert deployment.status("/health/ready") == 200


def refused(*arguments: str, status: int) -> str:
    done = subprocess.run(
        [str(BACKPLANE), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_missing_model_is_one_sentence_and_status_1(tmp_path):
    assert "no-such.gguf" in refused("--model-id", str(tmp_path / "no-such.gguf"), status=1)


def test_a_broken_model_is_one_sentence_and_status_1(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    assert "broken.gguf" in refused("--model-id", str(broken), status=1)


def test_an_unknown_backend_names_the_installed():
    assert "llamacpp" in refused("--backend", "abacus", status=1)


def test_a_wrong_flag_is_status_2():
    assert "--modle-id" in refused("--modle-id", "x", status=2)


def test_a_taken_port_is_one_sentence(demo):
    port = demo.url.rpartition(":")[2]
    assert port in refused("--hostname", "127.0.0.1", "--port", port, status=1)


def test_backends_lists_what_is_installed():
    listing = refused("backends", status=0)
    assert "llamacpp" in listing
    assert "echo" in listing
