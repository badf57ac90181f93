"""What the plans of all engines have in common, by numbers."""

import pytest
from backplane_core.backend import EngineSettings
from backplane_core.capabilities import Limits
from backplane_core.engine_plan import (
    EnginePlan,
    counted,
    max_waiting_requests,
    scored_tokens,
)


def test_servers_are_told_the_limits() -> None:
    plan = EnginePlan(
        cache_tokens=6,
        max_total_tokens=5,
        max_input_tokens=4,
        batch_tokens=3,
        scored_tokens=7,
        running_sequences=2,
        max_waiting_requests=1,
        why="because",
    )
    assert plan.limits == Limits(
        max_total_tokens=5,
        max_input_tokens=4,
        max_batch_tokens=3,
        max_sequences=2,
        max_waiting_requests=1,
        cache_tokens=6,
    )


def test_one_is_counted_as_one() -> None:
    assert [counted(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]


@pytest.mark.parametrize(
    ("num_vocabulary", "batch", "expected"),
    [(32_000, 512, 512), (32_000, 4096, 524), (2**40, 512, 1)],
)
def test_scored_rows_stay_within_64_mib(num_vocabulary: int, batch: int, expected: int) -> None:
    assert scored_tokens(num_vocabulary, batch) == expected


@pytest.mark.parametrize(("running", "expected"), [(28, 100), (128, 0), (200, 0)])
def test_who_does_not_run_waits(running: int, expected: int) -> None:
    engine = EngineSettings(max_concurrent_requests=128)
    assert max_waiting_requests(running, engine) == expected
