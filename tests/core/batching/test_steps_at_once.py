"""Steps in a row: as many as fill the time, where only decodes are to be done and nobody waits."""

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.batching.steps_at_once import StepsAtOnce
from backplane_core.errors import GenerationError

from tests.core.batching.harness import Engine, make_traits

CELLS = MemoryLayout.CELLS


def numbers(engine: Engine) -> list[int]:
    return [batch.num_steps for batch in engine.executor.batches]


def stepped(layout: MemoryLayout, **traits) -> Engine:
    return Engine(make_traits(layout, max_steps=4, **traits))


@pytest.mark.parametrize("layout", MemoryLayout)
def test_decodes_alone_take_several_and_end_exactly(layout):
    engine = stepped(layout)
    engine.submit("a", [1, 2, 3], 12, ignore_eos=True)
    engine.submit("b", [4, 5], 9, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert len(engine.answer("a").token_ids) == 12
    assert len(engine.answer("b").token_ids) == 9
    # The first step tells how long one takes; nobody goes past the end of "b".
    assert numbers(engine) == [1, 1, 4, 3, 3]
    assert engine.stats.num_steps == 12
    assert engine.stats.num_skipped_tokens == 0
    assert engine.stats.batches["decode"] == 11


@pytest.mark.parametrize("layout", MemoryLayout)
def test_an_end_token_ends_the_row(layout):
    engine = stepped(layout)
    for name in "abcdef":
        engine.submit(name, [ord(name)] * 3, 40)
    engine.run()
    engine.check_alone()
    assert max(numbers(engine)) == 4


def test_who_waits_is_not_passed_over():
    engine = stepped(CELLS, max_batch_tokens=4)
    engine.submit("a", [1, 2, 3], 30, ignore_eos=True)
    engine.until(lambda: 4 in numbers(engine))
    engine.submit("b", [9, 8, 7, 6, 5, 4, 3], 3, ignore_eos=True)
    before = len(numbers(engine))
    engine.until(lambda: len(engine.answer("b").token_ids) == 1)
    assert set(numbers(engine)[before:]) == {1}
    engine.run()
    engine.check_alone()


def test_where_memory_is_short_steps_are_taken_one_by_one():
    engine = stepped(CELLS, cache_tokens=24)
    engine.submit("a", [1, 2, 3], 9, ignore_eos=True)
    engine.submit("b", [4, 5, 6], 9, ignore_eos=True)
    engine.run()
    engine.check_alone()
    assert engine.stats.used_tokens == 0


def test_one_that_fails_fails_alone():
    engine = stepped(CELLS)
    for name in "ab":
        engine.submit(name, [ord(name), 2, 3], 20, ignore_eos=True)
    engine.until(lambda: 4 in numbers(engine))
    engine.executor.failing["a"] = GenerationError("its numbers are no numbers")
    engine.run()
    assert engine.errors["a"].message == "its numbers are no numbers"
    assert len(engine.answer("b").token_ids) == 20


def test_as_many_as_fill_the_time():
    class Ends:
        max_tokens, token_ids = 100, range(90)

    steps = StepsAtOnce(8, 0.016)
    assert steps.number([Ends()]) == 1  # nobody knows yet how long one takes
    for step_s, number in (
        (0.0, 8),
        (0.001, 8),
        (0.004, 4),
        (0.0054, 3),
        (0.0075, 2),
        (0.011, 1),
        (0.1, 1),
    ):
        steps.took(step_s)
        assert steps.number([Ends()]) == number
    steps.took(0.001)
    Ends.token_ids = range(98)
    assert steps.number([Ends()]) == 2


def test_no_time_is_one_by_one():
    steps = StepsAtOnce(8, 0.0)
    for step_s in (0.001, 0.0):
        steps.took(step_s)
        assert steps.number([]) == 1
