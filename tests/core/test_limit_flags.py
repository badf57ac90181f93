"""Flags that set limits: what contradicts the model, the cache or one another is told by name."""

import pytest
from backplane_core.backend import EngineSettings
from backplane_core.errors import BackendError
from backplane_core.limit_flags import check_cache_holds, max_total_tokens, model_sees


def test_the_longest_sequence_is_as_asked() -> None:
    assert max_total_tokens(EngineSettings(max_total_tokens=64), 64) == 64
    assert max_total_tokens(EngineSettings(max_total_tokens=10**9), None) == 10**9
    assert max_total_tokens(EngineSettings(), 64) is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [(0, "--max-total-tokens is 0"), (65, "is 65, but the model sees 64 tokens")],
)
def test_a_sequence_that_no_model_sees(asked: int, told: str) -> None:
    with pytest.raises(BackendError, match=told):
        max_total_tokens(EngineSettings(max_total_tokens=asked), 64)


def test_a_cache_holds_the_longest_sequence() -> None:
    check_cache_holds(64, 64)
    check_cache_holds(None, 1)
    with pytest.raises(BackendError, match="is 65, but the cache holds 64 tokens") as raised:
        check_cache_holds(65, 64)
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (None, "the model sees 64 tokens"),
        (1.0, "the model sees 64 tokens"),
        (2.0, "the model sees 64 tokens, stretched by 2"),
    ],
)
def test_stretched_positions_are_told(factor: float | None, told: str) -> None:
    assert model_sees(64, EngineSettings(rope_factor=factor)) == told
