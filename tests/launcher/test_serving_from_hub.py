"""The launcher as a process: a model on a (local) Hub, downloaded, then loaded by llama.cpp."""

import signal
from importlib.resources import files

import pytest

from .hub_server import HubServer, Repository
from .launched import LIMIT_S, Launched

REPO = "someone/demo"
NAME = "demo-f16.gguf"


@pytest.fixture
def hub():
    (gguf,) = [
        path
        for path in (files("backplane_launcher") / "demo_model").iterdir()
        if path.name.endswith(".gguf")
    ]
    with HubServer() as server:
        server.repositories[REPO] = Repository(
            files={NAME: gguf.read_bytes(), "README.md": b"# demo", "unwanted.bin": b"x" * 100}
        )
        yield server


def launched_from(hub, tmp_path, *argv, environ=None):
    environ = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        **(environ or {}),
    }
    return Launched(tmp_path, "--port", "0", "--model-id", REPO, *argv, environ=environ)


def test_downloaded_then_served_then_served_offline(hub, tmp_path):
    hub.stalled.add(NAME)
    with launched_from(hub, tmp_path) as launched:
        launched.until(
            lambda: [e for e in launched.events() if e.get("stage") == "download"],
            LIMIT_S,
            "progress of the download while the server is up",
        )
        hub.released.set()
        launched.wait_connected()
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
    downloads = [e for e in launched.events() if e.get("stage") == "download"]
    assert downloads[0]["fraction"] == 0.0
    assert downloads[-1]["fraction"] == 1.0
    assert NAME in downloads[0]["detail"]
    assert "download 100%" in launched.output, "not a terminal: lines, no bar"
    assert "\r" not in launched.output
    assert hub.gets("unwanted.bin") == 0
    assert list((tmp_path / "hf" / "hub").glob(f"models--someone--demo/snapshots/*/{NAME}"))

    hub.requests.clear()
    with launched_from(hub, tmp_path, environ={"HF_HUB_OFFLINE": "1"}) as launched:
        launched.wait_connected()
    assert hub.requests == []


def test_a_signal_during_a_download_that_hangs(hub, tmp_path):
    hub.stalled.add(NAME)
    with launched_from(hub, tmp_path) as launched:
        launched.until(
            lambda: [e for e in launched.events() if e.get("stage") == "download"],
            LIMIT_S,
            "download",
        )
        launched.signal(signal.SIGTERM)
        assert launched.wait() == 0
        assert "Traceback" not in launched.output


def test_what_cannot_be_had_is_one_line_and_exit_1(hub, tmp_path):
    hub.repositories[REPO].gated, hub.repositories[REPO].token = True, "hf_other"
    hub.repositories[REPO].files["config.json"] = b"{}"
    with launched_from(hub, tmp_path) as launched:
        assert launched.wait() == 1
    assert launched.lines[-1].startswith("Error: someone/demo is gated and the Hub refused access")
    assert "Traceback" not in launched.output
