"""Adapters that a worker loads before it is ready, and the list that servers are told."""

import contextlib

import pytest
from backplane_core.backend import AdapterSource, EngineSettings, ModelSource, RunnerSpec
from backplane_core.capabilities import Capabilities
from backplane_core.client import WorkerConnection
from backplane_core.errors import AdapterError, BackendError
from backplane_core.messages import ModelInfo
from backplane_core.testing.worker_process import WorkerProcess, WorkerStartError
from backplane_core.worker.adapters import load_adapters

from tests.core.worker_process import START_TIMEOUT_S


@contextlib.contextmanager
def worker_with(folder, **texts):
    """A worker on the echo backend whose adapters are files with these texts."""
    adapters = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text)
        adapters.append(AdapterSource(name=name, path=str(path)))
    spec = RunnerSpec(
        model=ModelSource(model_id="echo:test"), engine=EngineSettings(adapters=tuple(adapters))
    )
    with contextlib.closing(WorkerProcess("echo", spec, timeout_s=START_TIMEOUT_S)) as worker:
        yield worker


async def adapters_told(worker, server_id):
    connection = await WorkerConnection.connect(worker.socket_path, server_id)
    told = connection.adapters
    await connection.close()
    return told


async def test_they_are_loaded_before_the_worker_is_ready_and_their_names_are_told(tmp_path):
    with worker_with(tmp_path, one="1", two="2") as worker:
        assert await adapters_told(worker, "s0") == {"one", "two"}
        assert any(progress.stage == "adapters" for progress in worker.progress)


async def test_what_is_loaded_and_unloaded_later_changes_the_list(tmp_path):
    with worker_with(tmp_path, one="1", two="2") as worker:
        connection = await WorkerConnection.connect(worker.socket_path, "s0")
        await connection.load_adapter("three", str(tmp_path / "one"))
        await connection.unload_adapter("one")
        with pytest.raises(AdapterError):
            await connection.load_adapter("four", str(tmp_path / "missing"))
        with pytest.raises(AdapterError):
            await connection.unload_adapter("five")
        assert await adapters_told(worker, "s1") == {"two", "three"}
        await connection.close()


async def test_an_order_of_a_server_that_has_left_still_counts(tmp_path):
    with worker_with(tmp_path, one="1") as worker:
        leaver = await WorkerConnection.connect(worker.socket_path, "s0")
        await leaver.load_adapter("two", str(tmp_path / "one"))
        await leaver.close()
        assert await adapters_told(worker, "s1") == {"one", "two"}


def test_one_that_cannot_be_loaded_ends_the_start_with_a_sentence(tmp_path):
    with (
        pytest.raises(WorkerStartError) as caught,
        worker_with(tmp_path, good="1", broken="not a number"),
    ):
        pass
    assert caught.value.status == 3
    assert caught.value.down.final
    assert caught.value.down.reason.startswith("adapter broken cannot be loaded: ")


class Runner:
    """As much of a runner as is asked."""

    class info:  # noqa: N801 -- stands for an attribute
        capabilities = Capabilities()
        model = ModelInfo(model_id="m", backend="plain", backend_version="1", device="none")


def test_a_runner_without_adapters_ends_the_start_with_a_sentence():
    adapters = [AdapterSource(name="one", path="/p"), AdapterSource(name="two", path="/q")]
    with pytest.raises(BackendError, match="plain serves no adapters with m: one, two") as caught:
        load_adapters(Runner(), adapters, lambda *_: None)
    assert "--lora-adapters" in caught.value.remedy


def test_a_runner_without_adapters_starts_where_none_are_asked_for():
    load_adapters(Runner(), [], lambda *_: None)
