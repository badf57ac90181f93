"""Traces over one to three groups of blocks, with windows and blocks of any size.

The fake executor sees after every step that what a token may see is there, and nothing longer.
"""

import dataclasses
from collections import Counter

import pytest
from backplane_core.batching.executor import BlockGroup, MemoryLayout
from backplane_core.batching.group_blocks import most_held_blocks
from hypothesis import strategies as st

from tests.core.batching.harness import Engine, make_traits
from tests.core.batching.traces import MAX_TOKENS, check_played, max_steps, over, play, traces

MAX_SEQUENCES = 6


@dataclasses.dataclass(frozen=True)
class Engines:
    """What an engine is made of: groups by window and by how much more they have than they must."""

    groups: list[tuple[int | None, int]]
    block_size: int
    max_batch_tokens: int

    def tight(self, **fields) -> Engine:
        """Groups that hold the longest sequence of a trace, and what they have beyond."""
        return self._make([self._needed(window) + spare for window, spare in self.groups], **fields)

    def roomy(self, **fields) -> Engine:
        """Groups that hold all that so many sequences may hold."""
        return self._make(
            [
                2 * MAX_SEQUENCES * self._needed(None)
                if window is None
                else self._most_held(window, MAX_SEQUENCES)
                for window, _ in self.groups
            ],
            **fields,
        )

    def _needed(self, window: int | None) -> int:
        longest = -(-MAX_TOKENS // self.block_size)
        return longest if window is None else min(longest, self._most_held(window, 1))

    def _most_held(self, window: int, num_sequences: int) -> int:
        return most_held_blocks(window, self.block_size, num_sequences, self.max_batch_tokens)

    def _make(self, sizes: list[int], traits: dict, **tuning) -> Engine:
        groups = tuple(
            BlockGroup(num_blocks=size, window=window)
            for size, (window, _) in zip(sizes, self.groups, strict=True)
        )
        made = make_traits(
            MemoryLayout.PAGED,
            max_sequences=MAX_SEQUENCES,
            block_size=self.block_size,
            cache_tokens=sizes[0] * self.block_size,
            max_batch_tokens=self.max_batch_tokens,
            block_groups=groups,
            **traits,
        )
        return Engine(made, **tuning)


windows = st.one_of(st.none(), st.integers(1, 33))
engines = st.builds(
    Engines,
    groups=st.lists(st.tuples(windows, st.integers(0, 12)), min_size=1, max_size=3),
    block_size=st.integers(1, 5),
    max_batch_tokens=st.integers(MAX_SEQUENCES, 32),
)

# Each is traits, then settings.
FLAVOURS = {
    "plain": ({}, {}),
    "tight, chunked": ({}, {"max_prefill_chunk": 3, "headroom_tokens": 0}),
    "speculating": ({"max_draft_tokens": 3}, {}),
    "steps in a row": ({"max_steps": 6}, {}),
    "phases apart, adapters": ({"mixed_prefill": False, "adapters_per_batch": 2}, {}),
    "little retained": ({}, {"max_retained_tokens": 12}),
    "nothing shared": ({"shareable": False}, {}),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_output_is_the_lone_one(flavour):
    traits, tuning = FLAVOURS[flavour]
    seen = Counter()

    @over(st.tuples(engines, traces), 100)
    def check(trace):
        engine = trace[0].tight(traits=traits, **tuning)
        spoilt = play(engine, trace[1])
        engine.run(max_steps(engine))
        seen.update(check_played(engine, spoilt))

    check()
    assert seen["finished"] > 300
    assert seen["cancelled"] > 50
    assert seen["preempted"] > 20
    assert (seen["cached"] > 300) == traits.get("shareable", True)


def test_nobody_waits_for_a_block_where_groups_hold_what_all_may_hold():
    seen = Counter()

    @over(st.tuples(engines, traces), 100)
    def check(trace):
        engine = trace[0].roomy(traits={}, headroom_tokens=0)
        memory = engine.runner._memory

        def grants(ask):
            def asking(*arguments):
                granted = ask(*arguments)
                assert granted
                return granted

            return asking

        for name in ("admit", "reserve", "reserve_decodes"):
            setattr(memory, name, grants(getattr(memory, name)))
        play(engine, [event for event in trace[1] if not _is_shortage(event)])
        engine.run(max_steps(engine))
        seen.update(finished=engine.stats.num_finished, cached=engine.stats.num_cached_tokens)

    check()
    assert seen["finished"] > 300
    assert seen["cached"] > 300


def _is_shortage(event) -> bool:
    return isinstance(event, tuple) and event[0] == "out of memory"
