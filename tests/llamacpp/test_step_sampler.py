"""A step's rows, compiled or by numpy: on two threads the same as on one."""

import logging
import shutil

import msgspec
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


@pytest.fixture(
    params=[
        pytest.param(
            "compiled",
            marks=pytest.mark.skipif(
                rows.load() is None and shutil.which("cc") is None,
                reason="there is no C compiler for sample.c",
            ),
        ),
        "numpy",
    ]
)
def two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StepSampler:
    """With two threads, where it is compiled."""
    if request.param == "numpy":
        monkeypatch.setattr(rows, "load", lambda: None)
    else:
        assert rows.load() is not None
    return StepSampler(VOCABULARY, [], 2)


def test_the_threads_give_what_one_gives_and_leave_the_logits_as_they_were(two) -> None:
    batch = [scheduled(place, PARAMS[place % len(PARAMS)]) for place in range(40)]
    logits = np.random.default_rng(0).normal(0, 3, (len(batch), VOCABULARY)).astype(np.float32)
    before = logits.copy()
    results, _ = two.sample(batch, logits)
    assert np.array_equal(logits, before)
    one = StepSampler(VOCABULARY, [], 1)
    for place, share in enumerate(batch):
        (alone,), _ = one.sample([share], logits[place : place + 1])
        assert results[place] == alone


def test_that_numpy_does_it_is_logged(monkeypatch, caplog) -> None:
    monkeypatch.setattr(rows, "load", lambda: None)
    with caplog.at_level(logging.INFO):
        StepSampler(VOCABULARY, [], 1)
    assert "numpy" in caplog.text


def test_one_that_fails_fails_alone(two) -> None:
    batch = [scheduled(place, PARAMS[1]) for place in range(40)]
    logits = np.zeros((len(batch), VOCABULARY), np.float32)
    logits[3] = np.nan
    results, _ = two.sample(batch, logits)
    assert isinstance(results[3], GenerationError)
    assert all(isinstance(result, SampledTokens) for result in results[:3] + results[4:])


def test_a_grammar_that_fails_fails_its_sequence_alone(two) -> None:
    def fail() -> memoryview:
        raise GenerationError("its mask took too long")

    batch = [scheduled(place, PARAMS[0]) for place in range(4)]
    only = np.packbits(np.arange(VOCABULARY) == 1234, bitorder="little")
    batch[1].sequence.guide = Guide(fail)  # type: ignore[assignment] -- a mask is all that is asked
    batch[2].sequence.guide = Guide(lambda: memoryview(only))  # type: ignore[assignment] -- likewise
    results, _ = two.sample(batch, np.zeros((4, VOCABULARY), np.float32))
    assert isinstance(results[1], GenerationError)
    assert isinstance(results[2], SampledTokens)
    assert results[2].token_ids == [1234]
    assert isinstance(results[0], SampledTokens)
    assert isinstance(results[3], SampledTokens)


def test_a_mask_of_nothing_fails_its_sequence_alone(two) -> None:
    batch = [scheduled(place, PARAMS[0]) for place in range(2)]
    batch[0].sequence.guide = Guide(lambda: memoryview(b""))  # type: ignore[assignment] -- a mask is all that is asked
    results, _ = two.sample(batch, np.zeros((2, VOCABULARY), np.float32))
    assert isinstance(results[0], GenerationError)
    assert isinstance(results[1], SampledTokens)


def test_prompts_are_scored_beside_rows_that_are_sampled(two) -> None:
    share = scheduled(0, SamplingParams(temperature=0.0))
    share.sequence.request = msgspec.structs.replace(share.sequence.request, prompt_logprobs=3)
    share.start, share.token_ids, share.scored_positions = 0, [3, 4, 5], range(2)
    other = scheduled(1, PARAMS[1])
    logits = np.random.default_rng(1).normal(0, 2, (4, VOCABULARY)).astype(np.float32)
    logits[1] = np.nan  # what cannot be told of one token does not hide the others
    results, scores = two.sample([share, other], logits)
    exact = logits.astype(np.float64)
    for place, token_id in ((0, 4), (1, 5)):
        normalizer = np.log(np.exp(exact[place]).sum())
        logprob = scores[0].logprobs[place]
        assert logprob == pytest.approx(exact[place, token_id] - normalizer, abs=1e-5, nan_ok=True)
    assert scores[0].top_logprobs is not None
    best = np.argsort(-logits[0])[:3].tolist()
    assert [token_id for token_id, _ in scores[0].top_logprobs[0]] == best
    assert all(np.isnan(logprob) for _, logprob in scores[0].top_logprobs[1])
    assert results[0] == SampledTokens(
        [int(logits[2].argmax())], *_logprobs(logits[2], int(logits[2].argmax()))
    )
    assert isinstance(results[1], SampledTokens)


def _logprobs(row, token_id):
    """As one alone has them: the step's second row is another's."""
    share = scheduled(0, SamplingParams(temperature=0.0))
    (result,), _ = StepSampler(VOCABULARY, [], 1).sample([share], row[np.newaxis].copy())
    assert result.token_ids == [token_id]
    return result.logprobs, result.top_logprobs
