"""Logprobs of prompts: the reference's, whatever the chunks, and beside sequences that sample."""

import msgspec
import numpy as np
import pytest
from backplane_core import engine_plan
from backplane_core.batching.executor import PromptScores, ScheduledBatch, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_llamacpp.executor import LlamaCppExecutor

from tests.llamacpp.conftest import MakeExecutor, MakeRunner
from tests.llamacpp.reference_llama import ReferenceLlama
from tests.llamacpp.test_executor import PROMPT, sequence, step
from tests.llamacpp.test_runner import lone, submit

TOLERANCE = 0.02  # a float16 cache
LAST = len(PROMPT) - 1


def asking(num_top: int, prompt: list[int] = PROMPT) -> Sequence:
    one = sequence(prompt)
    one.request = msgspec.structs.replace(one.request, prompt_logprobs=num_top)
    return one


def reference_logprobs(prompt: list[int] = PROMPT) -> np.ndarray:
    """(tokens, vocabulary): row p is of the token that follows position p."""
    logits = ReferenceLlama().logits(prompt)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def chunk(seq_id: int, one: Sequence, start: int, end: int, scored: range) -> ScheduledSequence:
    return ScheduledSequence(
        seq_id=seq_id,
        sequence=one,
        start=start,
        token_ids=one.token_ids[start:end],
        sample=end == one.num_prompt_tokens,
        scored_positions=scored,
    )


def scores(executor: LlamaCppExecutor, *chunks: ScheduledSequence) -> dict[int, PromptScores]:
    return executor.execute(ScheduledBatch(sequences=list(chunks))).prompt_scores


def test_each_prompt_token_has_the_references_logprob(make_executor: MakeExecutor) -> None:
    executor = make_executor()
    one = asking(0)
    scored = scores(executor, chunk(0, one, 0, LAST + 1, range(LAST)))[0]
    expected = reference_logprobs()[range(LAST), PROMPT[1:]]
    assert scored.logprobs == pytest.approx(expected.tolist(), abs=TOLERANCE)
    assert scored.top_logprobs is None


@pytest.mark.parametrize("size", [1, 3, 7])
def test_chunks_join_to_the_same(make_executor: MakeExecutor, size: int) -> None:
    executor = make_executor()
    one = asking(2)
    logprobs: list[float] = []
    tops: list[list[tuple[int, float]]] = []
    for start in range(0, LAST + 1, size):
        end = min(start + size, LAST + 1)
        wanted = range(start, min(end, LAST))
        got = scores(executor, chunk(0, one, start, end, wanted))
        if wanted:
            logprobs += got[0].logprobs
            tops += got[0].top_logprobs or []
        else:
            assert not got
    table = reference_logprobs()
    expected = table[range(LAST), PROMPT[1:]]
    assert logprobs == pytest.approx(expected.tolist(), abs=TOLERANCE)
    assert sum(logprobs) == pytest.approx(expected.sum(), abs=TOLERANCE * 3)
    for row, top in zip(table, tops, strict=False):
        assert [value for _, value in top] == pytest.approx(np.sort(row)[:-3:-1], abs=TOLERANCE)
        assert all(row[token_id] == pytest.approx(value, abs=TOLERANCE) for token_id, value in top)


def test_only_what_is_asked_is_scored_and_neighbours_sample_as_alone(
    make_executor: MakeExecutor,
) -> None:
    executor = make_executor()
    others = [sequence(PROMPT[3:]), sequence(PROMPT[5:])]
    alone = [
        step(executor, chunk(5 + place, one, 0, len(one.token_ids), range(0)))
        for place, one in enumerate(others)
    ]
    before, after = (sequence(one.request.prompt_token_ids) for one in others)
    one, later = asking(1), asking(0)
    batch = ScheduledBatch(
        sequences=[
            chunk(0, before, 0, len(before.token_ids), range(0)),
            chunk(1, one, 0, LAST + 1, range(4, 9)),
            chunk(2, later, 0, 6, range(1, 6)),
            chunk(3, after, 0, len(after.token_ids), range(0)),
        ]
    )
    result = executor.execute(batch)
    table = reference_logprobs()
    assert set(result.prompt_scores) == {1, 2}
    for seq_id, positions in ((1, range(4, 9)), (2, range(1, 6))):
        expected = [table[place, PROMPT[place + 1]] for place in positions]
        assert result.prompt_scores[seq_id].logprobs == pytest.approx(expected, abs=TOLERANCE)
    best = [pairs[0][0] for pairs in result.prompt_scores[1].top_logprobs or []]
    assert best == table[4:9].argmax(axis=1).tolist()
    assert result.results[0].token_ids == alone[0]
    assert result.results[2] is None
    assert result.results[3].token_ids == alone[1]
    assert result.results[1].token_ids == [int(table[LAST].argmax())]
    assert result.sampling_s > 0.0


def test_a_suppressed_token_in_a_prompt_has_its_logprob(make_executor: MakeExecutor) -> None:
    executor = make_executor(suppressed=[PROMPT[4]])
    scored = scores(executor, chunk(0, asking(0), 0, LAST + 1, range(LAST)))[0]
    assert scored.logprobs[3] == pytest.approx(reference_logprobs()[3, PROMPT[4]], abs=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_prompt_of_more_tokens_than_a_step_scores_is_reported_whole(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(engine_plan, "_SCORED_BYTES", rows * 4 * 290)
    runner = make_runner()
    lone(runner, PROMPT)  # a cached prefix must not cut the report short
    for number in range(2):
        submit(runner, PROMPT, prompt_logprobs=number, max_new_tokens=3)
    reported: dict[str, list[float | None]] = {}
    steps = []
    while runner.stats().running or runner.stats().waiting:
        for chunk in runner.poll(0.0).prompt_logprobs:
            so_far = reported.setdefault(chunk.request_id, [])
            assert chunk.start == len(so_far)
            assert chunk.token_ids == PROMPT[chunk.start : chunk.start + len(chunk.logprobs)]
            so_far += chunk.logprobs
            steps.append(len(chunk.logprobs))
        runner.check_integrity()
    assert max(steps) <= rows + 1  # the first token's None needs no row
    expected = [None, *reference_logprobs()[range(LAST), PROMPT[1:]]]
    for logprobs in reported.values():
        assert logprobs[0] is None
        assert logprobs[1:] == pytest.approx(expected[1:], abs=TOLERANCE)
    assert len(reported) == 2
