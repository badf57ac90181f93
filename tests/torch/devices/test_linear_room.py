"""Second copies of weights: never more than the share that is theirs."""

from backplane_torch.engine.devices.linear_room import second_copies
from hypothesis import given
from hypothesis import strategies as st


def test_all_are_kept_where_there_is_plenty():
    assert second_copies([10, 20, 30], 4 * 60) == [True, True, True]


def test_a_byte_less_and_one_stays_out():
    assert second_copies([10, 20, 30], 4 * 60 - 1) == [True, True, False]


def test_a_smaller_one_may_fit_behind_one_that_does_not():
    assert second_copies([10, 50, 20], 4 * 30) == [True, False, True]


def test_without_memory_there_are_none():
    assert second_copies([1], 0) == [False]


@given(st.lists(st.integers(1, 2**40)), st.integers(0, 2**44))
def test_they_leave_the_cache_three_quarters_and_none_is_left_out_that_fits(sizes, free):
    kept = second_copies(sizes, free)
    taken = 0
    for size, is_kept in zip(sizes, kept, strict=True):
        assert is_kept == (taken + size <= free // 4)
        taken += size * is_kept
