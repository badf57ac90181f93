"""Several steps by one `execute` give what as many calls give, whatever the requests ask."""

import pytest
from backplane_core.batching.executor import SampledTokens, ScheduledBatch, StepResult
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_llamacpp.executor import LlamaCppExecutor

from tests.llamacpp.conftest import MakeExecutor
from tests.llamacpp.test_executor import PROMPT, share

# Peaked, so that how a batch rounds decides nothing.
PARAMS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.0, repetition_penalty=1.7, frequency_penalty=0.5),
    SamplingParams(seed=5, temperature=0.7, top_p=0.9, presence_penalty=1.0),
    SamplingParams(seed=6, top_k=30, watermark=Watermark(delta=8.0)),
)
STEPS = 7


def sequences(min_new_tokens: int = 0, stop: tuple[int, ...] = ()) -> list[Sequence]:
    made: list[Sequence] = []
    for number, params in enumerate(PARAMS):
        request = Submit(
            request_id=str(number),
            prompt=[TokenSegment(token_ids=[*PROMPT, 10 + number])],
            sampling=params,
            stopping=StoppingParams(
                max_new_tokens=50, min_new_tokens=min_new_tokens, stop_token_ids=stop
            ),
            top_logprobs=number % 3 or None,
        )
        made.append(
            Sequence(
                request=request,
                index=0,
                token_ids=list(request.prompt_token_ids),
                num_prompt_tokens=len(PROMPT) + 1,
                eos_token_ids=frozenset(),
            )
        )
    return made


def prefill(executor: LlamaCppExecutor, several: list[Sequence]) -> None:
    for seq_id, one in enumerate(several):
        take(
            several[seq_id : seq_id + 1],
            executor.execute(ScheduledBatch(sequences=[share(seq_id, one)])),
        )


def take(several: list[Sequence], result: StepResult) -> list[SampledTokens]:
    for one, gained in zip(several, result.results, strict=True):
        assert isinstance(gained, SampledTokens), gained
        one.token_ids.extend(gained.token_ids)
    return [gained for gained in result.results if isinstance(gained, SampledTokens)]


def decode(executor: LlamaCppExecutor, several: list[Sequence], num_steps: int) -> StepResult:
    shares = [share(seq_id, one, len(one.token_ids) - 1) for seq_id, one in enumerate(several)]
    return executor.execute(
        ScheduledBatch(sequences=shares, num_decodes=len(shares), num_steps=num_steps)
    )


def test_steps_in_a_row_are_steps(make_executor: MakeExecutor) -> None:
    alone, at_once = sequences(), sequences()
    executor = make_executor()
    prefill(executor, alone)
    one_by_one = [take(alone, decode(executor, alone, 1)) for _ in range(STEPS)]
    for seq_id in range(len(alone)):
        executor.release(seq_id)
    prefill(executor, at_once)
    result = decode(executor, at_once, STEPS)
    assert result.num_steps == STEPS
    for place, gained in enumerate(take(at_once, result)):
        expected = [step[place] for step in one_by_one]
        assert gained.token_ids == [token for step in expected for token in step.token_ids]
        logprobs = [logprob for step in expected for logprob in step.logprobs or []]
        assert (gained.logprobs or []) == pytest.approx(logprobs, abs=1e-3)
        tops = [top for step in expected for top in step.top_logprobs or []]
        assert [[key for key, _ in top] for top in gained.top_logprobs or []] == [
            [key for key, _ in top] for top in tops
        ]
    # And they go on from the same cache: a step by one or by the other is the same step.
    further = take(at_once, decode(executor, at_once, 2))
    for place, gained in enumerate(further):
        assert len(gained.token_ids) == 2
        fresh = sequences()[place]
        assert replayed(executor, fresh, at_once[place].token_ids) == gained.token_ids


def replayed(executor: LlamaCppExecutor, fresh: Sequence, token_ids: list[int]) -> list[int]:
    """The last two of these tokens, sampled again with all before them computed at once."""
    drawn: list[int] = []
    for end in (len(token_ids) - 2, len(token_ids) - 1):
        executor.release(7)
        fresh.token_ids[:] = token_ids[:end]
        (gained,) = executor.execute(ScheduledBatch(sequences=[share(7, fresh)])).results
        assert isinstance(gained, SampledTokens)
        drawn += gained.token_ids
    return drawn


def test_an_end_token_ends_the_row_for_all(make_executor: MakeExecutor) -> None:
    executor, several = make_executor(), sequences()
    prefill(executor, several)
    free = take(several, decode(executor, several, STEPS))
    ending = free[0].token_ids[2]
    first = next(
        number
        for number, tokens in enumerate(zip(*[one.token_ids for one in free], strict=True))
        if ending in tokens
    )
    for seq_id in range(len(several)):
        executor.release(seq_id)
    several = sequences(stop=(ending,))
    prefill(executor, several)
    result = decode(executor, several, STEPS)
    assert result.num_steps == 1 + first
    assert {len(gained.token_ids) for gained in take(several, result)} == {1 + first}


def test_ends_wait_for_the_least_number_of_tokens(make_executor: MakeExecutor) -> None:
    executor, several = make_executor(), sequences()
    prefill(executor, several)
    free = take(several, decode(executor, several, STEPS))
    for seq_id in range(len(several)):
        executor.release(seq_id)
    unwanted = free[0].token_ids[1]
    several = sequences(min_new_tokens=1 + STEPS, stop=(unwanted,))
    prefill(executor, several)
    for gained in take(several, decode(executor, several, STEPS)):
        assert unwanted not in gained.token_ids


def test_one_that_fails_ends_the_row_and_fails_alone(
    make_executor: MakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, several = make_executor(), sequences()
    prefill(executor, several)
    go_on = executor._sampler.go_on
    calls: list[int] = []

    def failing(*arguments):
        results = go_on(*arguments)
        calls.append(1)
        return [GenerationError("no number"), *results[1:]] if len(calls) == 2 else results

    monkeypatch.setattr(executor._sampler, "go_on", failing)
    result = decode(executor, several, STEPS)
    assert result.num_steps == 3
    assert isinstance(result.results[0], GenerationError)
    for gained in result.results[1:]:
        assert isinstance(gained, SampledTokens)
        assert len(gained.token_ids) == 3


def test_without_room_what_there_is_goes_out(make_executor: MakeExecutor) -> None:
    executor = make_executor(cache_tokens=256, batch=256)
    one = sequences()[0]
    one.token_ids[:] = (one.token_ids * 20)[:250]
    executor.execute(ScheduledBatch(sequences=[share(0, one)]))
    one.token_ids.append(7)
    shares = [share(0, one, 250)]
    result = executor.execute(ScheduledBatch(sequences=shares, num_decodes=1, num_steps=STEPS + 3))
    assert result.num_steps == 6
    (gained,) = result.results
    assert isinstance(gained, SampledTokens)
    assert len(gained.token_ids) == 6
