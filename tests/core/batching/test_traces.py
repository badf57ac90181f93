"""Random arrivals, cancels, forks, preemptions and failures, over every kind of executor.

After each step the books are checked; every output is what its sequence gives when it is alone.
"""

from collections import Counter

import pytest
from backplane_core.batching.executor import MemoryLayout

from tests.core.batching.harness import Engine, make_traits
from tests.core.batching.traces import (
    check_played,
    max_steps,
    over,
    play,
    traces,
    traces_with_bursts,
)

PAGED, CELLS, SLOTS = MemoryLayout

# Small caches, so that memory runs out; each row is traits, then settings.
FLAVOURS = {
    "paged": (PAGED, {"cache_tokens": 80}, {}),
    "paged, tight, chunked": (
        PAGED,
        {"cache_tokens": 72, "max_batch_tokens": 11},
        {"max_prefill_chunk": 3, "headroom_tokens": 0},
    ),
    "paged, speculating": (PAGED, {"cache_tokens": 80, "max_draft_tokens": 3}, {}),
    "paged, steps in a row": (PAGED, {"cache_tokens": 80, "max_steps": 6}, {}),
    "paged, phases apart": (PAGED, {"cache_tokens": 80, "mixed_prefill": False}, {}),
    "paged, adapters": (PAGED, {"cache_tokens": 120, "adapters_per_batch": 2}, {}),
    "paged, little retained": (PAGED, {"cache_tokens": 100}, {"max_retained_tokens": 12}),
    "cells": (CELLS, {"cache_tokens": 80}, {}),
    "cells, tight, chunked": (
        CELLS,
        {"cache_tokens": 72, "max_batch_tokens": 11, "max_sequences": 5},
        {"max_prefill_chunk": 3, "headroom_tokens": 0},
    ),
    "cells, speculating": (CELLS, {"cache_tokens": 80, "max_draft_tokens": 3}, {}),
    "cells, steps in a row": (
        CELLS,
        {"cache_tokens": 90, "max_steps": 4, "adapters_per_batch": 1, "mixed_prefill": False},
        {},
    ),
    "cells, not trimmable": (CELLS, {"cache_tokens": 90, "trimmable": False}, {}),
    "cells, not shareable": (CELLS, {"cache_tokens": 90, "shareable": False}, {}),
    "cells, one adapter a batch": (
        CELLS,
        {"cache_tokens": 120, "adapters_per_batch": 1, "mixed_prefill": False},
        {},
    ),
    "cells, little retained": (
        CELLS,
        {"cache_tokens": 200, "max_sequences": 4},
        {"max_retained_tokens": 30, "max_retained_sequences": 2},
    ),
    "slots": (SLOTS, {"max_sequences": 3, "cache_tokens": 3 * 64}, {}),
    "slots, steps in a row, not trimmable": (
        SLOTS,
        {"max_sequences": 3, "cache_tokens": 3 * 64, "trimmable": False, "max_steps": 3},
        {},
    ),
    "slots, speculating, not trimmable": (
        SLOTS,
        {
            "max_sequences": 3,
            "cache_tokens": 3 * 64,
            "trimmable": False,
            "max_draft_tokens": 2,
            "mixed_prefill": False,
        },
        {},
    ),
}

# Batches with room for several prompts, so that one would compute what another does.
BURST_FLAVOURS = {
    "paged": (PAGED, {"cache_tokens": 128, "max_batch_tokens": 128}, {}),
    "cells": (CELLS, {"cache_tokens": 128, "max_batch_tokens": 128}, {}),
    "paged, phases apart": (
        PAGED,
        {"cache_tokens": 100, "max_batch_tokens": 128, "mixed_prefill": False},
        {"headroom_tokens": 0},
    ),
    "cells, tight, chunked, phases apart": (
        CELLS,
        {"cache_tokens": 80, "max_batch_tokens": 70, "max_sequences": 4, "mixed_prefill": False},
        {"headroom_tokens": 0, "max_prefill_chunk": 50},
    ),
    "cells, adapters": (
        CELLS,
        {"cache_tokens": 160, "max_batch_tokens": 128, "adapters_per_batch": 2},
        {"max_retained_tokens": 30},
    ),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_output_is_the_lone_one(flavour):
    layout, traits, tuning = FLAVOURS[flavour]
    seen = Counter()

    @over(traces, 140)
    def check(trace):
        engine = Engine(make_traits(layout, **traits), **tuning)
        spoilt = play(engine, trace)
        engine.run(max_steps(engine))
        seen.update(check_played(engine, spoilt))

    check()
    # The traces are no use if they do not go everywhere.
    assert seen["finished"] > 500
    assert seen["cancelled"] > 80
    assert seen["cached"] > 500
    assert seen["out of memory"] > 2
    assert seen["preempted"] > 30


@pytest.mark.parametrize("flavour", BURST_FLAVOURS)
def test_who_waits_for_a_prefix_is_answered_too(flavour):
    layout, traits, tuning = BURST_FLAVOURS[flavour]
    seen = Counter()

    @over(traces_with_bursts, 60)
    def check(trace):
        engine = Engine(make_traits(layout, **traits), **tuning)
        scheduler = engine.runner._scheduler
        computes_for = scheduler._computes_for

        def counting(*arguments):
            seen["waits"] += (waits := computes_for(*arguments))
            return waits

        scheduler._computes_for = counting
        spoilt = play(engine, trace)
        engine.run(max_steps(engine))
        seen.update(check_played(engine, spoilt))

    check()
    assert seen["waits"] > 20
    assert seen["finished"] > 500
    assert seen["cancelled"] > 30
    assert seen["preempted"] > 10
