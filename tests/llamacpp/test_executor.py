"""The executor by itself: hand-made batches against the real llama.cpp."""

import msgspec
import numpy as np
import pytest
from backplane_core.batching.executor import ScheduledBatch, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import (
    BackplaneError,
    GenerationError,
    OutOfMemoryError,
    ValidationError,
)
from backplane_core.messages import Grammar, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_llamacpp.executor import LlamaCppExecutor
from backplane_llamacpp.native.model import NativeModel

from tests.llamacpp.conftest import MakeExecutor
from tests.llamacpp.reference_llama import ReferenceLlama

GREEDY = SamplingParams(temperature=0.0)
# Batch shape changes rounding; the tiny model is float32 with a float16 cache.
LOGITS_TOLERANCE = 0.02
PROMPT = [284, 72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 10, 77, 66, 99, 120, 5, 6, 7]


def sequence(
    token_ids: list[int],
    *,
    sampling: SamplingParams = GREEDY,
    top_logprobs: int | None = None,
) -> Sequence:
    request = Submit(
        request_id="s-0",
        prompt=[TokenSegment(token_ids=token_ids)],
        sampling=sampling,
        stopping=StoppingParams(max_new_tokens=50),
        top_logprobs=top_logprobs,
    )
    return Sequence(
        request=request,
        index=0,
        token_ids=list(token_ids),
        num_prompt_tokens=len(token_ids),
        eos_token_ids=frozenset({285, 288}),
    )


def share(
    seq_id: int, of: Sequence, start: int = 0, end: int | None = None, *, sample: bool = True
) -> ScheduledSequence:
    tokens = of.token_ids[start:end]
    return ScheduledSequence(
        seq_id=seq_id, sequence=of, start=start, token_ids=tokens, sample=sample
    )


def step(executor: LlamaCppExecutor, *shares: ScheduledSequence) -> list[int | None]:
    """Run a batch; the tokens sampled are appended to their sequences."""
    sampled: list[int | None] = []
    results = executor.execute(ScheduledBatch(sequences=list(shares))).results
    for scheduled, result in zip(shares, results, strict=True):
        if result is None:
            sampled.append(None)
        else:
            assert not isinstance(result, BaseException), result
            scheduled.sequence.token_ids.extend(result.token_ids)
            sampled.extend(result.token_ids)
    return sampled


def logits_of(executor: LlamaCppExecutor, num_rows: int = 1) -> np.ndarray:
    return executor._context.logits(num_rows).copy()


def generate(executor: LlamaCppExecutor, seq_id: int, prompt: list[int], count: int) -> list[int]:
    one = sequence(prompt)
    step(executor, share(seq_id, one))
    while len(one.token_ids) < len(prompt) + count:
        step(executor, share(seq_id, one, len(one.token_ids) - 1))
    return one.token_ids[len(prompt) :]


def assert_same_or_near_tie(executor: LlamaCppExecutor, first: list[int], other: list[int]) -> None:
    """Equal, or the first difference is between two logits that rounding may swap."""
    for index, (left, right) in enumerate(zip(first, other, strict=True)):
        if left != right:
            fresh = sequence(PROMPT + first[:index])
            step(executor, share(7, fresh))
            row = logits_of(executor)[0]
            executor.release(7)
            assert abs(row[left] - row[right]) < LOGITS_TOLERANCE
            return


def test_chunks_give_the_logits_of_the_whole_prompt(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    step(executor, share(0, sequence(PROMPT)))
    whole = logits_of(executor)
    chunked = sequence(PROMPT)
    assert step(executor, share(1, chunked, 0, 7, sample=False)) == [None]
    assert step(executor, share(1, chunked, 7, 8, sample=False)) == [None]
    step(executor, share(1, chunked, 8))
    assert np.allclose(logits_of(executor), whole, atol=LOGITS_TOLERANCE)
    assert np.abs(whole).max() > 50 * LOGITS_TOLERANCE


def test_a_chunk_that_samples_nothing_is_waited_for(
    make_executor: MakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = make_executor()
    waits: list[int] = []
    monkeypatch.setattr(executor._context, "synchronize", lambda: waits.append(1))
    one = sequence(PROMPT)
    assert step(executor, share(0, one, 0, 7, sample=False)) == [None]
    assert waits == [1]
    step(executor, share(0, one, 7))  # asking for its logits waits
    assert waits == [1]


def test_logits_are_those_of_the_architecture(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    step(executor, share(0, sequence(PROMPT)))
    expected = ReferenceLlama().logits(PROMPT)[-1]
    assert np.allclose(logits_of(executor)[0], expected, atol=LOGITS_TOLERANCE)


def test_a_batch_larger_than_a_ubatch_keeps_rows_in_order(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    prompts = [PROMPT, PROMPT[3:], PROMPT[5:]]  # 52 tokens in ubatches of 32
    shares = [share(seq_id, sequence(prompt)) for seq_id, prompt in enumerate(prompts)]
    together = step(executor, *shares)
    for seq_id, prompt in enumerate(prompts):
        assert step(executor, share(4 + seq_id, sequence(prompt))) == [together[seq_id]]


def test_decodes_and_prefills_mix_and_equal_the_lone_run(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    prompts = {0: PROMPT, 1: PROMPT[2:], 2: PROMPT[4:]}
    alone = {}
    for seq_id, prompt in prompts.items():
        alone[seq_id] = generate(executor, seq_id, prompt, 12)
        executor.release(seq_id)

    running = {seq_id: sequence(prompt) for seq_id, prompt in prompts.items()}
    step(executor, share(0, running[0]))
    # 0 decodes while 1 and 2 are prefilled, 2 in two chunks.
    step(
        executor,
        share(0, running[0], len(running[0].token_ids) - 1),
        share(1, running[1]),
        share(2, running[2], 0, 5, sample=False),
    )
    step(
        executor,
        share(0, running[0], len(running[0].token_ids) - 1),
        share(1, running[1], len(running[1].token_ids) - 1),
        share(2, running[2], 5),
    )
    while min(len(one.token_ids) - one.num_prompt_tokens for one in running.values()) < 12:
        shares = [
            share(seq_id, one, len(one.token_ids) - 1)
            for seq_id, one in running.items()
            if len(one.token_ids) - one.num_prompt_tokens < 12
        ]
        step(executor, *shares)
    for seq_id, one in running.items():
        output = one.token_ids[one.num_prompt_tokens :]
        if seq_id == 0:
            assert_same_or_near_tie(executor, alone[0], output)
        else:
            assert output == alone[seq_id]


def test_a_shared_prefix_equals_recomputing_it(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    source = sequence(PROMPT)
    step(executor, share(0, source))
    step(executor, share(0, source, len(PROMPT)))  # the source runs on

    branch = [*PROMPT[:12], 65, 66, 67]
    executor.share_prefix(0, 1, 12)
    shared = sequence(branch)
    step(executor, share(1, shared, 12))
    from_shared = logits_of(executor)

    step(executor, share(2, sequence(branch)))
    assert np.allclose(from_shared, logits_of(executor), atol=LOGITS_TOLERANCE)
    step(executor, share(3, sequence([*PROMPT[:11], 9, 65, 66, 67])))
    assert not np.allclose(from_shared, logits_of(executor), atol=LOGITS_TOLERANCE)


def test_releasing_the_source_leaves_the_share(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    source = sequence(PROMPT)
    step(executor, share(0, source))
    executor.share_prefix(0, 1, len(PROMPT) - 1)
    executor.release(0)
    heir = sequence(PROMPT)
    step(executor, share(1, heir, len(PROMPT) - 1))
    from_share = logits_of(executor)
    step(executor, share(2, sequence(PROMPT)))
    assert np.allclose(from_share, logits_of(executor), atol=LOGITS_TOLERANCE)
    assert executor._context.last_position(0) == -1


def test_trim_drops_the_tail(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    step(executor, share(0, sequence(PROMPT)))
    executor.trim(0, 5)
    assert executor._context.last_position(0) == 4
    other = [*PROMPT[:5], 70, 71, 72]
    step(executor, share(0, sequence(other), 5))
    trimmed = logits_of(executor)
    step(executor, share(1, sequence(other)))
    assert np.allclose(trimmed, logits_of(executor), atol=LOGITS_TOLERANCE)


def test_no_room_is_an_error_that_changes_nothing_and_release_makes_room(
    make_executor: MakeExecutor,
) -> None:
    executor = make_executor(cache_tokens=256, batch=64)
    long = (PROMPT * 4)[:60]
    for seq_id in range(4):
        step(executor, share(seq_id, sequence(long)))  # 240 of 256 cells
    with pytest.raises(
        OutOfMemoryError, match=r"no 60 free cells of 256.*--max-batch-total-tokens"
    ):
        step(executor, share(4, sequence(long)))
    assert executor._context.last_position(4) == -1
    executor.release(2)
    after_release = step(executor, share(4, sequence(long)))
    executor.release(4)
    assert step(executor, share(5, sequence(long))) == after_release


def test_a_batch_llama_cpp_refuses_breaks_the_engine(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    step(executor, share(0, sequence(PROMPT)))
    with pytest.raises(GenerationError, match="llama_decode failed with code -1"):
        step(executor, share(0, sequence(PROMPT), 5, 6))  # a position it already holds


def test_one_sequence_without_a_possible_token_fails_alone(
    make_executor: MakeExecutor, bpe_model: NativeModel
) -> None:
    executor = make_executor()
    nothing = SamplingParams(
        temperature=0.0, logit_bias=dict.fromkeys(range(bpe_model.n_vocab), -np.inf)
    )
    good, bad = sequence(PROMPT), sequence(PROMPT, sampling=nothing)
    batch = ScheduledBatch(sequences=[share(0, bad), share(1, good)])
    failed, sampled = executor.execute(batch).results
    assert isinstance(failed, GenerationError)
    assert sampled is not None
    assert not isinstance(sampled, BaseException)


class FixedGuide:
    """A guide that allows these ids, or fails."""

    def __init__(self, *allowed: int, error: BackplaneError | None = None) -> None:
        self._allowed = allowed
        self._error = error

    def allowed(self) -> memoryview:
        if self._error is not None:
            raise self._error
        words = np.zeros(-(-290 // 32), "<u4")
        for token_id in self._allowed:
            words[token_id // 32] |= np.uint32(1 << token_id % 32)
        return memoryview(words.tobytes())


@pytest.mark.parametrize("error", [GenerationError("too late"), ValidationError("no grammar")])
def test_guided_sequences_get_what_is_allowed_and_a_refused_mask_fails_alone(
    make_executor: MakeExecutor, error: BackplaneError
) -> None:
    executor = make_executor(batch=128)
    plain, greedy, refused = (sequence(PROMPT) for _ in range(3))
    drawn = sequence(PROMPT, sampling=SamplingParams(temperature=5.0, seed=3), top_logprobs=1)
    greedy.guide, drawn.guide = FixedGuide(7, 289), FixedGuide(64, 65)
    refused.guide = FixedGuide(error=error)
    for one in (greedy, drawn, refused):
        one.request = msgspec.structs.replace(one.request, grammar=Grammar(kind="regex", source=""))
    shares = [share(place, one) for place, one in enumerate((greedy, refused, plain, drawn))]
    results = executor.execute(ScheduledBatch(sequences=shares)).results
    rows = logits_of(executor, 4)
    assert results[0].token_ids == [max((7, 289), key=lambda one: rows[0][one])]
    assert results[1] is error
    assert results[2].token_ids == [int(rows[2].argmax())]
    assert results[3].token_ids[0] in {64, 65}
    # Logprobs are the model's own: the likeliest token is none that was allowed.
    assert results[3].top_logprobs[0][0][0] == int(rows[3].argmax())
    assert results[3].logprobs[0] < results[3].top_logprobs[0][0][1]


def test_logprobs_are_the_models_own(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    biased = SamplingParams(temperature=0.0, logit_bias={65: 1000.0})
    one = sequence(PROMPT, sampling=biased, top_logprobs=5)
    batch = ScheduledBatch(sequences=[share(0, one)])
    (result,) = executor.execute(batch).results
    row = logits_of(executor)[0].astype(np.float64)
    expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
    assert result.token_ids == [65]
    assert result.logprobs == pytest.approx([expected[65]], abs=1e-5)
    best = np.argsort(-expected, kind="stable")[:5]
    assert [token_id for token_id, _ in result.top_logprobs[0]] == best.tolist()
    assert [logprob for _, logprob in result.top_logprobs[0]] == pytest.approx(
        expected[best].tolist(), abs=1e-5
    )


def test_suppressed_tokens_never_come(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    first = step(executor, share(0, sequence(PROMPT)))
    executor = make_executor(suppressed=[first[0]])
    assert step(executor, share(1, sequence(PROMPT))) != first


def test_an_empty_batch_is_nothing(make_executor: MakeExecutor) -> None:
    assert make_executor().execute(ScheduledBatch(sequences=[])).results == []
