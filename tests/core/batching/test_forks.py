"""Several sequences of one prompt: one prefill, then each goes its own way."""

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.errors import GenerationError

from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
PROMPT = list(range(10, 31))


@pytest.mark.parametrize(
    ("layout", "num_prefilled"),
    [(PAGED, 21 + 3), (CELLS, 21 + 3), (SLOTS, 4 * 21)],
)
def test_the_prompt_is_computed_once_where_it_can_be_shared(layout, num_prefilled):
    engine = Engine(make_traits(layout, max_batch_tokens=96))
    engine.submit("r", PROMPT, 8, num_sequences=4, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert engine.stats.num_prefilled_tokens == num_prefilled
    outputs = {tuple(engine.answer("r", index).token_ids) for index in range(4)}
    assert len(outputs) == 4  # each has its own seed
    assert all(len(output) == 8 for output in outputs)


@pytest.mark.parametrize("layout", [PAGED, CELLS])
def test_forks_start_in_the_step_after_the_prefill(layout):
    engine = Engine(make_traits(layout))
    engine.submit("r", PROMPT, 8, num_sequences=4, ignore_eos=True)
    engine.run()
    first = [engine.answer("r", index).steps[0] for index in range(4)]
    assert first == [1, 2, 2, 2]


@pytest.mark.parametrize("layout", MemoryLayout)
def test_more_forks_than_may_run_wait_for_each_other(layout):
    engine = Engine(make_traits(layout), max_running=2)
    engine.submit("r", PROMPT, 5, num_sequences=7, ignore_eos=True)
    engine.submit("other", PROMPT[:5], 3, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert all(len(engine.answer("r", index).token_ids) == 5 for index in range(7))


@pytest.mark.parametrize("layout", MemoryLayout)
def test_when_the_first_is_cancelled_before_the_prompt_is_computed_the_next_takes_over(layout):
    engine = Engine(make_traits(layout, max_batch_tokens=8))
    engine.submit("r", PROMPT, 5, num_sequences=3, ignore_eos=True)
    engine.step()
    engine.cancel("r", 0)
    engine.run()
    engine.check_alone()
    assert engine.answer("r", 0).token_ids == []
    assert [len(engine.answer("r", index).token_ids) for index in (1, 2)] == [5, 5]


def test_parked_forks_can_be_cancelled():
    engine = Engine(make_traits(CELLS, max_batch_tokens=8))
    engine.submit("r", PROMPT, 5, num_sequences=3, ignore_eos=True)
    engine.step()
    engine.cancel("r", 1)
    engine.cancel("r", 0)
    engine.run()
    assert len(engine.answer("r", 2).token_ids) == 5
    engine.submit("s", PROMPT, 5, num_sequences=2)
    engine.cancel("s")
    assert not engine.busy


def test_the_failure_of_one_takes_all_and_is_told_once():
    engine = Engine(make_traits(CELLS))
    engine.submit("r", PROMPT, 5, num_sequences=3, ignore_eos=True)
    engine.executor.failing["r"] = GenerationError("told to fail")
    engine.run()
    assert set(engine.errors) == {"r"}
    assert engine.stats.num_failed == 3
    assert engine.stats.used_tokens == 0


def test_forks_of_a_finished_first_find_its_prompt():
    engine = Engine(make_traits(CELLS))
    engine.submit("r", PROMPT, 1, num_sequences=3, ignore_eos=True)
    engine.run()
    assert engine.stats.num_prefilled_tokens == 21 + 2
    engine.check_alone()
