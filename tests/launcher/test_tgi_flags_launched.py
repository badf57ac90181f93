"""TGI's flags all at once, in real launches: by the command line, then by the environment."""

import json
import re
import signal
import socket
import urllib.request

import pytest

from .hub_server import HubServer, Repository
from .launched import HERE, Launched
from .tgi_flags import TABLE, Row

MODEL, ADAPTER = "someone/demo", "someone/lora"
ROWS = {row.flag: row for row in TABLE}


@pytest.fixture
def hub():
    with HubServer() as server:
        server.repositories[MODEL] = Repository(files={"demo.weights": b"abc", "README.md": b"#"})
        server.repositories[ADAPTER] = Repository(
            files={
                "adapter_config.json": b"{}",
                "adapter_model.safetensors": b"abc",
                "adapter_model.bin": b"never loaded",
                "training/state.json": b"{}",
            }
        )
        yield server


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class House:
    """A machine with a Hub, a local model and adapter, and the backend that writes down."""

    def __init__(self, folder, hub, port):
        self.folder, self.hub, self.port = folder, hub, port
        self.local = folder / "local"
        self.local.mkdir()
        (self.local / "local.weights").write_text("abc")
        self.adapter = folder / "adapter"
        self.adapter.mkdir()
        (self.adapter / "adapter_model.safetensors").write_text("abc")
        self.tokenizer_config = folder / "tokenizer_config.json"
        self.tokenizer_config.write_text("{}")
        self.record = folder / "record.jsonl"

    def environ(self, **more):
        return {
            "PYTHONPATH": f"{HERE / 'fake_server'}:{HERE / 'recording_backend'}",
            "BACKPLANE_EXTRA_PLUGINS": "backplane_recording",
            "RECORDING_FILE": str(self.record),
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(self.folder / "hf"),
            **more,
        }

    def rows(self, *left_out: str) -> list[Row]:
        """The table's, with values that mean something on this machine; refused ones left out."""
        values = {
            "--model-id": MODEL,
            "--huggingface-hub-cache": str(self.folder / "hub"),
            "--weights-cache-override": str(self.local),
            "--tokenizer-config-path": str(self.tokenizer_config),
            "--lora-adapters": f"{ADAPTER}@v1,mine={self.adapter}",
            "--port": str(self.port),
        }
        taken = [row for row in TABLE if not row.refusal and row.flag not in left_out]
        return [Row(**{**vars(row), "text": values.get(row.flag, row.text)}) for row in taken]

    def told(self, rows) -> tuple[dict, dict]:
        """What the worker's engine and the server must have been told."""
        engine, server = {}, {}
        for row in rows:
            engine |= row.engine
            server |= row.server
        server["tokenizer_config_path"] = str(self.tokenizer_config)
        return engine, server

    def recorded(self, event):
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


def listed(documents):
    """As JSON has them."""
    return json.loads(json.dumps(documents))


def check(house, launched, rows) -> None:
    engine, server = house.told(rows)
    (spec,) = [line["spec"] for line in house.recorded("spec")]
    adapters = spec["engine"].pop("adapters")
    assert spec["engine"] == listed(engine)
    assert [adapter["name"] for adapter in adapters] == [ADAPTER, "mine"]
    document = launched.wait_for_event("launch")["document"]
    assert {name: document[name] for name in server} == listed(server)
    assert document["port"] == house.port
    for row in rows:
        told = re.compile(rf"[ \"]({row.flag}|{row.variable}) has no effect: ")
        lines = [line for line in launched.lines if told.search(line)]
        assert [row.notice in line for line in lines] == ([True] if row.notice else [])
    assert "sizes: max_input_tokens 70, max_total_tokens 90, " in launched.output
    assert "Runtime environment:" in launched.output
    assert launched.output.count("recording (for tests): available, engine 1") == 1
    (first, second) = house.recorded("adapter")
    assert (first["name"], second["name"]) == (ADAPTER, "mine")
    assert first["files"] == ["adapter_config.json", "adapter_model.safetensors"]
    assert second["path"] == str(house.adapter)
    assert house.hub.gets("adapter_model.bin") == 0
    assert f"GET /api/models/{ADAPTER}/revision/v1" in house.hub.requests
    launched.signal(signal.SIGTERM)
    assert launched.wait() == 0
    assert launched.wait_for_event("Shutdown")["grace_s"] == 7.0


def test_all_by_the_command_line(tmp_path, hub, port):
    house = House(tmp_path, hub, port)
    # Of two that say the same the environment's turn takes the other.
    rows = house.rows(
        "--weights-cache-override",
        "--max-input-length",
        "--num-shard",
        "--rope-factor",
        "--json-output",
        "--model-id",
    )
    argv = ["--model-id", MODEL, *(word for row in rows for word in row.argv)]
    with Launched(
        tmp_path, *argv, "--backend", "recording", environ=house.environ(), hostname=None
    ) as launched:
        url = launched.wait_connected()
        assert url == f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{url}/health/ready") as answer:  # noqa: S310 - our own server
            assert answer.status == 200
        (spec,) = [line["spec"] for line in house.recorded("spec")]
        assert spec["model"]["model_id"] == MODEL
        assert f"GET /api/models/{MODEL}/revision/v1" in hub.requests
        assert spec["model"]["path"].startswith(str(tmp_path / "hub")), "--huggingface-hub-cache"
        assert hub.gets("demo.weights") == 1
        check(house, launched, rows)


def test_all_by_the_environment(tmp_path, hub, port):
    house = House(tmp_path, hub, port)
    rows = house.rows("--max-input-tokens", "--sharded", "--rope-scaling")
    environ = {name: value for row in rows for name, value in row.variables.items()}
    assert len(environ) == len(rows)
    with Launched(
        tmp_path,
        "--backend",
        "recording",
        environ=house.environ(**environ),
        hostname=None,
    ) as launched:
        assert launched.wait_connected() == f"http://127.0.0.1:{port}"
        (spec,) = [line["spec"] for line in house.recorded("spec")]
        assert spec["model"]["model_id"] == MODEL
        assert spec["model"]["path"] == str(house.local), "--weights-cache-override"
        assert hub.gets("demo.weights") == 0
        said = [json.loads(line) for line in launched.lines]
        assert all({"timestamp", "level", "message"} <= set(line) for line in said)
        check(house, launched, rows)


def test_a_backend_without_adapters_says_so_once(tmp_path, hub, port):
    house = House(tmp_path, hub, port)
    argv = ("--model-id", str(house.local), "--backend", "recording", "--port", "0")
    environ = house.environ(RECORDING_NO_ADAPTERS="1")
    with Launched(
        tmp_path, *argv, "--lora-adapters", f"mine={house.adapter}", environ=environ
    ) as launched:
        assert launched.wait() == 1
    assert launched.lines[-1].startswith("Error: backend recording serves no adapters with ")
    assert launched.lines[-1].endswith(
        ": mine (start without --lora-adapters, or choose another --backend)"
    )
    assert len(house.recorded("spec")) == 1, "it is not started again"


def test_an_adapter_of_pickled_weights_is_refused(tmp_path, hub, port):
    house = House(tmp_path, hub, port)
    (house.adapter / "adapter_model.safetensors").unlink()
    (house.adapter / "adapter_model.bin").write_text("pickled")
    argv = ["--model-id", "echo:x", "--backend", "echo", "--port", "0"]
    with Launched(
        tmp_path, *argv, "--lora-adapters", f"mine={house.adapter}", environ=house.environ()
    ) as launched:
        assert launched.wait() == 1
        assert launched.lines[-1].startswith(
            f"Error: adapter {house.adapter} holds no safetensors and no GGUF file, only pickled"
        )
