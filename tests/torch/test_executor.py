"""A step that finds no memory to be sampled in ends its requests, and not the engine."""

from pathlib import Path

import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import OutOfMemoryError
from backplane_core.messages import StepOutput, Submit, TokenSegment
from backplane_core.runner import ModelRunner
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_torch.backend import TorchBackend
from backplane_torch.engine.sampling.batch_sampler import BatchSampler

from tests.torch.models.tiny_checkpoint import VOCABULARY, Case, make_model, write_checkpoint

TINY = Case(
    model_type="llama",
    config={
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    },
)


@pytest.fixture
def runner(tmp_path: Path) -> ModelRunner:
    write_checkpoint(make_model(TINY), tmp_path)
    files = tuple(path.name for path in tmp_path.iterdir())
    spec = RunnerSpec(
        model=ModelSource(model_id="tiny", path=str(tmp_path), files=files),
        engine=EngineSettings(max_batch_total_tokens=256, max_batch_size=2),
        settings={"threads": 1},
    )
    return TorchBackend().create_runner(spec, lambda *_: None)


def request(name: str) -> Submit:
    return Submit(
        request_id=name,
        prompt=[TokenSegment(token_ids=[9, 8, 7])],
        sampling=SamplingParams(temperature=0.0),
        stopping=StoppingParams(max_new_tokens=3, ignore_eos=True),
    )


def outputs(runner: ModelRunner) -> list[StepOutput]:
    return [runner.poll(0.0) for _ in range(6)]


def test_no_memory_to_sample(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    free = runner.stats().free_tokens

    def starved(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    with monkeypatch.context() as planted:
        planted.setattr(BatchSampler, "sample", starved)
        runner.submit(request("s-1"))
        failures = [failure for output in outputs(runner) for failure in output.failures]
    assert [failure.request_id for failure in failures] == ["s-1"]
    assert isinstance(failures[0].error.restore(), OutOfMemoryError)
    assert runner.stats().free_tokens == free

    runner.submit(request("s-2"))
    deltas = [delta for output in outputs(runner) for delta in output.deltas]
    assert sum(len(delta.token_ids) for delta in deltas) == 3
    runner.close()
