"""The kit's client tells what went wrong, not only that time ran out."""

import time

import pytest
from backplane_core.backend import ModelSource, RunnerSpec
from backplane_core.errors import ValidationError
from backplane_core.sampling import StoppingParams
from backplane_core.testing.worker_process import WorkerProcess

TIMEOUT_S = 60.0


@pytest.fixture
def client():
    worker = WorkerProcess(
        "echo", RunnerSpec(model=ModelSource(model_id="echo:client")), timeout_s=TIMEOUT_S
    )
    yield worker.connect()
    worker.close()


def test_a_refusal_ends_a_wait_for_stats_at_once(client):
    started = time.monotonic()
    client.submit([10_000], stopping=StoppingParams(max_new_tokens=4))
    with pytest.raises(ValidationError, match="outside the vocabulary"):
        client.wait_for_stats(lambda now: now.used_tokens > 0, "the request to run")
    assert time.monotonic() - started < TIMEOUT_S / 2


def test_an_earlier_refusal_does_not_end_a_later_wait(client):
    refused = client.submit([10_000], stopping=StoppingParams(max_new_tokens=4))
    client.finish([refused])
    stopping = StoppingParams(max_new_tokens=400, ignore_eos=True)
    client.submit([65], stopping=stopping)
    stats = client.wait_for_stats(lambda now: now.num_generated_tokens > 0, "a token")
    assert stats.num_generated_tokens
