"""Prompt logprobs: every token's once, in order, before the first of the output."""

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.errors import GenerationError, UnsupportedError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.batching.fake_executor import lone_scores
from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
PROMPT = list(range(10, 41))


def report_of(engine, request_id):
    """The whole report: token ids and logprobs, checked to be without gap or repetition."""
    token_ids, logprobs = [], []
    for report in engine.reports[request_id]:
        assert report.start == len(token_ids)
        assert len(report.token_ids) == len(report.logprobs)
        token_ids += report.token_ids
        logprobs += report.logprobs
    return token_ids, logprobs


def check_report(engine, request_id, prompt):
    adapter = engine.requests[request_id].adapter
    assert report_of(engine, request_id) == (prompt, lone_scores(prompt, adapter))


@pytest.fixture(params=MemoryLayout)
def layout(request):
    return request.param


@pytest.mark.parametrize("max_scored_tokens", [1, 5, 64])
def test_every_token_is_scored_once_whatever_the_chunks(layout, max_scored_tokens):
    engine = Engine(
        make_traits(layout, max_batch_tokens=8, max_scored_tokens=max_scored_tokens),
        max_prefill_chunk=7,
    )
    engine.submit("r", PROMPT, 4, prompt_logprobs=0, ignore_eos=True)
    engine.run()
    engine.check_alone()
    check_report(engine, "r", PROMPT)
    assert all(report.top_logprobs == [] for report in engine.reports["r"])


def test_alternatives_come_with_each_token_but_the_first(layout):
    engine = Engine(make_traits(layout, max_batch_tokens=8, max_scored_tokens=8))
    engine.submit("r", PROMPT, 4, prompt_logprobs=1, ignore_eos=True)
    engine.run()
    tops = [top for report in engine.reports["r"] for top in report.top_logprobs]
    # The fake executor's alternative is the position whose logits it comes from.
    assert tops == [[], *([(position, -0.5)] for position in range(len(PROMPT) - 1))]


def test_a_prompt_of_one_token_has_none_to_score(layout):
    engine = Engine(make_traits(layout, max_scored_tokens=8))
    engine.submit("r", [5], 4, prompt_logprobs=2, ignore_eos=True)
    engine.run()
    assert report_of(engine, "r") == ([5], [None])


def test_a_cached_prefix_is_computed_again_and_does_not_mix(layout):
    engine = Engine(make_traits(layout, max_scored_tokens=64))
    for request_id, wanted in (("first", None), ("second", 0), ("third", 0), ("last", None)):
        engine.submit(request_id, PROMPT, 4, prompt_logprobs=wanted, ignore_eos=True)
        engine.run()
    engine.check_alone()
    check_report(engine, "second", PROMPT)
    check_report(engine, "third", PROMPT)
    cached = {name: engine.answer(name).timing.num_cached_tokens for name in engine.requests}
    assert cached["second"] == cached["third"] == 0
    if layout is not SLOTS:  # where a scored request takes the slot, the next finds it changed
        assert cached["last"] > 0


def test_forks_share_one_report(layout):
    engine = Engine(make_traits(layout, max_scored_tokens=6))
    engine.submit("r", PROMPT, 4, prompt_logprobs=0, num_sequences=3, ignore_eos=True)
    engine.run()
    engine.check_alone()
    check_report(engine, "r", PROMPT)


@pytest.mark.parametrize("layout", [PAGED, CELLS])
@pytest.mark.parametrize("max_running", [1, 8])
def test_forks_of_one_token_find_the_prompt_that_the_first_computed(layout, max_running):
    engine = Engine(make_traits(layout, max_scored_tokens=64), max_running=max_running)
    engine.submit("r", PROMPT, 1, prompt_logprobs=0, num_sequences=4, ignore_eos=True)
    engine.run()
    engine.check_alone()
    check_report(engine, "r", PROMPT)
    per_fork = len(PROMPT) % 4 if layout is PAGED else 1
    assert engine.stats.num_prefilled_tokens == len(PROMPT) + 3 * per_fork


def test_when_the_first_fork_is_cancelled_the_next_goes_on_with_the_report(layout):
    engine = Engine(make_traits(layout, max_batch_tokens=8, max_scored_tokens=6))
    engine.submit("r", PROMPT, 4, prompt_logprobs=0, num_sequences=3, ignore_eos=True)
    engine.step()
    engine.step()
    engine.cancel("r", 0)
    engine.run()
    engine.check_alone()
    check_report(engine, "r", PROMPT)


@pytest.mark.parametrize("tight", [PAGED, CELLS])
def test_preemption_neither_repeats_nor_loses_any(tight):
    engine = Engine(
        make_traits(tight, cache_tokens=64, max_batch_tokens=8, max_scored_tokens=8),
        headroom_tokens=0,
    )
    for number in range(3):
        engine.submit(f"r{number}", PROMPT[number:], 24, prompt_logprobs=0, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert engine.stats.num_preemptions > 0
    for number in range(3):
        check_report(engine, f"r{number}", PROMPT[number:])


def test_a_step_without_memory_neither_repeats_nor_loses_any(layout):
    engine = Engine(make_traits(layout, max_batch_tokens=16, max_scored_tokens=16))
    engine.submit("r", PROMPT, 4, prompt_logprobs=0, ignore_eos=True)
    engine.step()
    engine.executor.out_of_memory = 2
    engine.run()
    check_report(engine, "r", PROMPT)


def test_others_go_on_while_a_prompt_is_scored_bit_by_bit(layout):
    engine = Engine(make_traits(layout, max_scored_tokens=1))
    engine.submit("scored", PROMPT, 2, prompt_logprobs=0, ignore_eos=True)
    engine.submit("also", PROMPT[3:], 2, prompt_logprobs=0, ignore_eos=True)
    engine.submit("plain", PROMPT, 2, ignore_eos=True)
    engine.until(lambda: engine.answer("plain").finish_reason)
    assert not engine.answer("scored").token_ids
    engine.run()
    check_report(engine, "scored", PROMPT)
    check_report(engine, "also", PROMPT[3:])


def test_an_executor_that_scores_other_tokens_is_found_out(monkeypatch):
    engine = Engine(make_traits(CELLS, max_scored_tokens=64))
    execute = engine.executor.execute

    def forgetful(batch):
        result = execute(batch)
        for scores in result.prompt_scores.values():
            scores.logprobs.pop()
        return result

    monkeypatch.setattr(engine.executor, "execute", forgetful)
    engine.submit("r", PROMPT, 2, prompt_logprobs=0)
    with pytest.raises(GenerationError, match=r"scored 29 prompt tokens where 30"):
        engine.step()


def test_without_the_trait_prompt_logprobs_are_refused(layout):
    engine = Engine(make_traits(layout))
    with pytest.raises(UnsupportedError) as caught:
        engine.submit("r", PROMPT, 2, prompt_logprobs=0)
    assert caught.value.parameter == "prompt_logprobs"


TRAITS = st.sampled_from(
    [
        (PAGED, {"cache_tokens": 80}),
        (PAGED, {"cache_tokens": 80, "mixed_prefill": False, "max_draft_tokens": 2}),
        (CELLS, {"cache_tokens": 80}),
        (CELLS, {"cache_tokens": 90, "trimmable": False}),
        (CELLS, {"cache_tokens": 90, "shareable": False}),
        (SLOTS, {}),
        (SLOTS, {"trimmable": False, "mixed_prefill": False}),
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    traits=TRAITS,
    requests=st.lists(
        st.tuples(
            st.integers(1, 40), st.integers(1, 8), st.sampled_from([None, 0, 2]), st.integers(1, 3)
        ),
        min_size=1,
        max_size=5,
    ),
    max_scored_tokens=st.integers(1, 12),
    chunk=st.integers(1, 12),
)
def test_reports_are_whole_beside_anything_else(traits, requests, max_scored_tokens, chunk):
    layout, changes = traits
    engine = Engine(
        make_traits(layout, max_batch_tokens=16, max_scored_tokens=max_scored_tokens, **changes),
        max_prefill_chunk=chunk,
        headroom_tokens=0,
    )
    for number, (length, max_new_tokens, wanted, num_sequences) in enumerate(requests):
        prompt = [(7 * position) % 90 + 1 for position in range(length)]
        engine.submit(
            f"r{number}",
            prompt,
            max_new_tokens,
            prompt_logprobs=wanted,
            num_sequences=num_sequences,
            ignore_eos=True,
        )
    engine.run(max_steps=5000)
    engine.check_alone()
    for number, (length, _, wanted, _) in enumerate(requests):
        if wanted is None:
            assert f"r{number}" not in engine.reports
        else:
            check_report(
                engine, f"r{number}", [(7 * position) % 90 + 1 for position in range(length)]
            )
