"""A step's rows shared out among threads: the same tokens as from one, and nobody left behind."""

import logging
import threading
import time
from collections.abc import Generator

import numpy as np
import pytest
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_llamacpp.native import rows
from backplane_llamacpp.step_sampler import StepSampler

VOCABULARY = 5_000
PARAMS = (
    SamplingParams(seed=1),
    SamplingParams(seed=2, temperature=0.7, top_p=0.9, repetition_penalty=1.3),
    SamplingParams(seed=3, top_k=20, logit_bias={7: 30.0}),
    SamplingParams(seed=4, typical_p=0.5, frequency_penalty=0.5),
    SamplingParams(temperature=0.0, presence_penalty=1.0),
)


class Guide:
    """In a guide's place: what `allowed` does is the test's."""

    def __init__(self, allowed) -> None:
        self.allowed = allowed


def scheduled(seq_id: int, params: SamplingParams) -> ScheduledSequence:
    request = Submit(
        request_id=str(seq_id),
        prompt=[TokenSegment(token_ids=[3, 4])],
        sampling=params,
        stopping=StoppingParams(max_new_tokens=100),
        top_logprobs=2,
    )
    sequence = Sequence(
        request=request,
        index=0,
        token_ids=[3, 4, 5 + seq_id],
        num_prompt_tokens=2,
        eos_token_ids=frozenset(),
    )
    return ScheduledSequence(
        seq_id=seq_id, sequence=sequence, start=2, token_ids=[5 + seq_id], sample=True
    )


@pytest.fixture
def two() -> Generator[StepSampler]:
    sampler = StepSampler(VOCABULARY, [], num_threads=2)
    yield sampler
    sampler.close()


def test_the_threads_give_what_one_gives_and_leave_the_logits_as_they_were(two) -> None:
    batch = [scheduled(place, PARAMS[place % len(PARAMS)]) for place in range(40)]
    logits = np.random.default_rng(0).normal(0, 3, (len(batch), VOCABULARY)).astype(np.float32)
    before = logits.copy()
    results, _ = two.sample(batch, logits)
    assert np.array_equal(logits, before)
    one = StepSampler(VOCABULARY, [], num_threads=1)
    for place, share in enumerate(batch):
        (alone,), _ = one.sample([share], logits[place : place + 1])
        assert results[place] == alone


def test_that_numpy_does_it_is_logged(monkeypatch, caplog) -> None:
    monkeypatch.setattr(rows, "load", lambda: None)
    with caplog.at_level(logging.INFO):
        StepSampler(VOCABULARY, [], num_threads=1)
    assert "numpy" in caplog.text


def test_one_that_fails_fails_alone(two) -> None:
    batch = [scheduled(place, PARAMS[1]) for place in range(8)]
    logits = np.zeros((len(batch), VOCABULARY), np.float32)
    logits[3] = np.nan
    results, _ = two.sample(batch, logits)
    assert isinstance(results[3], GenerationError)
    assert all(isinstance(result, SampledTokens) for result in results[:3] + results[4:])


def test_no_thread_reads_logits_on_after_a_fault(two) -> None:
    begun, over = threading.Event(), threading.Event()

    def allowed() -> memoryview:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(10)
            raise RuntimeError("a fault")
        begun.set()
        time.sleep(0.1)
        over.set()
        return memoryview(b"\xff" * (VOCABULARY // 8))

    batch = [scheduled(place, PARAMS[0]) for place in range(2)]
    for share in batch:
        share.sequence.guide = Guide(allowed)  # type: ignore[assignment] -- a mask is all that is asked
    with pytest.raises(RuntimeError, match="a fault"):
        two.sample(batch, np.zeros((2, VOCABULARY), np.float32))
    assert over.is_set()
