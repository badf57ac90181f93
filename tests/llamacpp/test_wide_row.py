"""Cuts of whole rows, found by sampling, against the same found by sorting everything."""

import ctypes
import math
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from backplane_llamacpp.native import rows as native_rows
from backplane_llamacpp.wide_row import WideRow
from hypothesis import given, settings
from hypothesis import strategies as st

LIBRARY = native_rows.load()
_LANES = 64
_POINTER, _INT, _FLOAT, _DOUBLE = (
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_float,
    ctypes.c_double,
)
_CANDIDATE = np.dtype([("value", np.float32), ("id", np.int32)])


class CompiledRow:
    """`WideRow` by the functions of `rows.c`."""

    def __init__(self, n_vocab: int) -> None:
        assert LIBRARY is not None
        self._n_vocab = n_vocab
        self.weights = np.full(-(-n_vocab // _LANES) * _LANES, 7.0, np.float32)

    def _call(self, name: str, result: Any, *arguments: tuple[Any, Any]) -> Any:
        function = getattr(LIBRARY, name)
        function.restype, function.argtypes = result, [_INT, *(kind for kind, _ in arguments)]
        return function(self._n_vocab, *(value for _, value in arguments))

    def highest(self, logits: npt.NDArray[np.float32]) -> float:
        place = self._call("bp_argmax", _INT, (_POINTER, logits.ctypes.data))
        return math.nan if place < 0 else float(logits[place])

    def weigh(self, logits: npt.NDArray[np.float32], highest: float, temperature: float) -> float:
        return self._call(
            "bp_weigh",
            _DOUBLE,
            (_POINTER, logits.ctypes.data),
            (_FLOAT, highest),
            (_FLOAT, 1 / temperature),
            (_POINTER, self.weights.ctypes.data),
        )

    def log_sum(self, logits: npt.NDArray[np.float32]) -> float:
        return self._call("bp_log_sum", _DOUBLE, (_POINTER, logits.ctypes.data))

    def top(self, logits: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int32]:
        best = np.zeros(k, _CANDIDATE)
        self._call(
            "bp_top",
            None,
            (_POINTER, logits.ctypes.data),
            (_INT, k),
            (_POINTER, best.ctypes.data),
        )
        assert np.array_equal(best["value"], logits[best["id"]], equal_nan=True)
        return best["id"]

    def heaviest(self, *_: object) -> list[int]:
        return []

    def _keep_best(self, keys: npt.NDArray[np.float32], mass: float, total: float) -> None:
        status = self._call(
            "bp_keep_best",
            ctypes.c_int,
            (_POINTER, keys.ctypes.data),
            (_POINTER, self.weights.ctypes.data),
            (_DOUBLE, mass),
            (_DOUBLE, total),
        )
        assert status == 0

    def keep_highest(self, mass: float, total: float, *_: object) -> None:
        self._keep_best(self.weights, mass, total)

    def keep_from(self, least: float) -> float:
        return self._call(
            "bp_keep_from", _DOUBLE, (_POINTER, self.weights.ctypes.data), (_FLOAT, least)
        )

    def keep_typical(self, share: float) -> None:
        keys = np.empty_like(self.weights)
        total = self.keep_from(0.0)
        self._call(
            "bp_typicality",
            None,
            (_POINTER, self.weights.ctypes.data),
            (_DOUBLE, total),
            (_POINTER, keys.ctypes.data),
        )
        self._keep_best(keys, share * total, total)

    def index_at(self, number: float) -> int:
        sums = np.empty(len(self.weights))
        return self._call(
            "bp_index_at",
            _INT,
            (_POINTER, self.weights.ctypes.data),
            (_DOUBLE, number),
            (_POINTER, sums.ctypes.data),
        )


Row = WideRow | CompiledRow
# Where there is a compiler there must be a library: what fails to compile is no reason to skip.
compiled = pytest.mark.skipif(
    LIBRARY is None and shutil.which("cc") is None, reason="there is no C compiler for rows.c"
)
both = pytest.mark.parametrize(
    "row_of", [WideRow, pytest.param(CompiledRow, marks=compiled)], ids=["numpy", "compiled"]
)


def test_there_are_compiled_rows_where_there_is_a_compiler() -> None:
    assert LIBRARY is not None or shutil.which("cc") is None


SIZES = (1, 7, 511, 512, 1024, 1500, 5000, 20_011)


def flat(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    return random.normal(0, 1, size)


def steps(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Hardly any two differ: every cut falls among equals."""
    return random.integers(0, 4, size).astype(float)


def equal(_: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    return np.zeros(size)


def peaked(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    return 8 * random.standard_exponential(size)


def lone(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """One that has a third of all, before a flat rest that a sample sees nothing but."""
    made = random.normal(0, 0.1, size)
    made[random.integers(size)] = math.log(size / 2)
    return made


def sorted_ids(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """As a vocabulary by frequency: what is likely lies together."""
    return np.sort(random.normal(0, 3, size))[::-1]


def masked(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    made = random.normal(0, 2, size)
    made[random.random(size) < 0.7] = -np.inf
    made[random.integers(size)] = 0.0
    return made


def far(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Most weigh nothing, even in float64."""
    return random.normal(-5000, 1000, size)


rows = st.tuples(
    st.sampled_from([flat, steps, equal, peaked, lone, sorted_ids, masked, far]),
    st.sampled_from(SIZES),
    st.integers(0, 2**32 - 1),
).map(lambda made: made[0](np.random.default_rng(made[2]), made[1]).astype(np.float32))


def reached(
    scores: npt.NDArray[np.floating], weights: npt.NDArray[np.floating], mass: float
) -> tuple[set[int], float]:
    """The shortest beginning that reaches a mass; how near to the mass one more or less comes."""
    order = np.argsort(-scores, kind="stable")
    sums = np.cumsum(weights[order].astype(np.float64))
    kept = order[: int(np.searchsorted(sums, mass)) + 1]
    return set(kept[weights[kept] > 0].tolist()), float(np.abs(sums - mass).min() / sums[-1])


def kept_ids(row: Row) -> set[int]:
    return set(np.flatnonzero(row.weights).tolist())


@both
@settings(max_examples=300, deadline=None)
@given(
    logits=rows,
    top_p=st.sampled_from([1e-9, 0.01, 0.1, 0.5, 0.9, 0.95, 0.999, 1 - 1e-9]) | st.floats(0.0, 1.0),
    temperature=st.sampled_from([0.05, 0.8, 1.0, 5.0]),
    know_heaviest=st.booleans(),
)
def test_the_highest_that_reach_a_mass(
    *,
    row_of: type[Row],
    logits: npt.NDArray[np.float32],
    top_p: float,
    temperature: float,
    know_heaviest: bool,
) -> None:
    row = row_of(len(logits))
    total = row.weigh(logits, float(logits.max()), temperature)
    weights = row.weights.copy()
    expected, nearness = reached(weights, weights, top_p * total)
    row.keep_highest(
        top_p * total, total, *([row.heaviest(logits, total)] if know_heaviest else [])
    )
    assert all(row.weights[token_id] == weights[token_id] for token_id in kept_ids(row))
    # Sums are float32's: where a mass is met to the last digit one more or less is as right.
    if nearness > 1e-6:
        assert kept_ids(row) == expected
    else:
        few = min(weights[sorted(expected ^ kept_ids(row))], default=0.0)
        assert len(expected ^ kept_ids(row)) * few <= 1e-5 * total


@both
@settings(max_examples=200, deadline=None)
@given(logits=rows, typical_p=st.sampled_from([0.01, 0.3, 0.7, 0.95]))
def test_the_typical(
    *, row_of: type[Row], logits: npt.NDArray[np.float32], typical_p: float
) -> None:
    row = row_of(len(logits))
    total = row.weigh(logits, float(logits.max()), 1.0)
    weights = row.weights.astype(np.float64)
    row.keep_typical(typical_p)
    kept = sorted(kept_ids(row))
    assert kept
    possible = weights > 0
    surprise = -np.log(weights[possible] / weights.sum())
    mean = (weights[possible] / weights.sum() * surprise).sum()
    distances = np.full(len(weights), np.inf)
    distances[possible] = np.abs(surprise - mean)
    # A hair's breadth apart in distance they may change places: float32 decides.
    edge = distances[kept].max()
    inside = weights[distances < edge - 1e-3].sum()
    assert inside <= typical_p * total * (1 + 1e-5)
    assert weights[distances <= edge + 1e-3].sum() >= typical_p * total * (1 - 1e-5)
    assert set(np.flatnonzero(distances < edge - 1e-3)) <= set(kept)


@both
@settings(max_examples=300, deadline=None)
@given(logits=rows, k=st.integers(1, 3000))
def test_the_k_highest_best_first(
    *, row_of: type[Row], logits: npt.NDArray[np.float32], k: int
) -> None:
    k = min(k, len(logits))
    expected = np.argsort(-logits, kind="stable")[:k]
    assert row_of(len(logits)).top(logits, k).tolist() == expected.tolist()


@both
@settings(max_examples=200, deadline=None)
@given(logits=rows, number=st.floats(0.0, 1.0, exclude_max=True))
def test_a_draw_falls_where_the_cumulative_share_says(
    *, row_of: type[Row], logits: npt.NDArray[np.float32], number: float
) -> None:
    row = row_of(len(logits))
    row.weigh(logits, float(logits.max()), 1.0)
    drawn = row.index_at(number)
    weights = row.weights.astype(np.float64)
    assert weights[drawn] > 0
    below, upto = weights[:drawn].sum() / weights.sum(), weights[: drawn + 1].sum() / weights.sum()
    assert below - 1e-5 <= number <= upto + 1e-5


@both
def test_a_row_leaves_nothing_to_the_next(row_of: type[Row]) -> None:
    random = np.random.default_rng(3)
    first, second = (flat(random, 3000).astype(np.float32) for _ in range(2))
    used, fresh = row_of(3000), row_of(3000)
    total = used.weigh(first, float(first.max()), 0.8)
    used.keep_highest(0.5 * total, total)
    used.keep_typical(0.9)
    for row in (used, fresh):
        total = row.weigh(second, float(second.max()), 0.8)
        row.keep_highest(0.9 * total, total)
    assert np.array_equal(used.weights, fresh.weights)


@both
@settings(max_examples=200, deadline=None)
@given(logits=rows, temperature=st.sampled_from([1e-5, 0.05, 1.0, 5.0, 1e30]))
def test_weights_are_exponentials(
    *, row_of: type[Row], logits: npt.NDArray[np.float32], temperature: float
) -> None:
    row = row_of(len(logits))
    highest = row.highest(logits)
    assert highest == logits.max()
    with np.errstate(over="ignore"):
        total = row.weigh(logits, highest, temperature)
        weights = row.weights[: len(logits)].copy()
        expected = np.exp((logits.astype(np.float64) - highest) / temperature)
    # What is so small as to round its exponent weighs nothing beside the highest, which is 1.
    assert np.allclose(weights, expected, rtol=1e-5, atol=1e-12)
    assert total == pytest.approx(expected.sum(), rel=1e-5)
    exact = highest + math.log(np.exp(logits.astype(np.float64) - highest).sum())
    assert row.log_sum(logits) == pytest.approx(exact, abs=2e-6 * max(1.0, abs(exact)))


@both
@pytest.mark.parametrize("place", [0, 63, 64, 999])
def test_one_that_is_no_number_is_found(row_of: type[Row], place: int) -> None:
    logits = np.zeros(1000, np.float32)
    logits[place] = np.nan
    assert math.isnan(row_of(1000).highest(logits))


@both
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_row_has_no_sum_and_breaks_nothing(row_of: type[Row], broken: float) -> None:
    logits = np.zeros(1000, np.float32)
    logits[5] = broken
    assert math.isnan(row_of(1000).log_sum(logits))


def test_the_highest_of_a_vocabulary_are_at_most_all() -> None:
    assert WideRow(10).top(np.zeros(10, np.float32), 20).tolist() == list(range(10))


def test_without_the_library_numpy_does_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(native_rows, "_LIBRARY", tmp_path / "librows.so")
    assert native_rows.load() is None
    (tmp_path / "librows.so").write_bytes(b"no library")
    assert native_rows.load() is None


@compiled
def test_a_library_of_another_source_is_not_taken(monkeypatch) -> None:
    class Longer(ctypes.Structure):
        _fields_ = (("task", native_rows.RowTask), ("more", ctypes.c_int64))

    assert native_rows.load() is not None
    monkeypatch.setattr(native_rows, "RowTask", Longer)
    assert native_rows.load() is None
