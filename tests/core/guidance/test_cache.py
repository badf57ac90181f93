"""Compiled grammars: one compilation for many requests, and a bound on all of them."""

import threading

import pytest
from backplane_core.guidance.compiled_grammars import CompiledGrammars
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar
from backplane_core.sampling import StoppingParams
from hypothesis import given
from hypothesis import strategies as st

from tests.core.guidance.vocabularies import byte_level, ids_of

STOPPING = StoppingParams(max_new_tokens=9)


def wait_for_all(engine, grammars):
    """Their guides, once all are ready."""
    left = threading.Semaphore(0)
    guides = [engine.guide(grammar, STOPPING, left.release) for grammar in grammars]
    for _ in guides:
        assert left.acquire(timeout=60)
    return guides


@pytest.fixture
def counted(monkeypatch):
    """An engine, and the grammars it has compiled."""
    engine = GuidanceEngine(byte_level(), GuidanceLimits(max_cached_grammars=3))
    compiled = []
    compiler = engine._compile

    def compile_and_note(grammar, *args):
        compiled.append(grammar.source)
        return compiler(grammar, *args)

    monkeypatch.setattr(engine, "_compile", compile_and_note)
    yield engine, compiled
    engine.close()


def regex(source):
    return Grammar(kind="regex", source=source)


def test_many_requests_of_one_grammar_compile_it_once(counted):
    engine, compiled = counted
    guides = wait_for_all(engine, [regex("[a-c]+")] * 20)
    assert compiled == ["[a-c]+"]
    token_id = byte_level().tokens.index(b"a")
    guides[0].advance([token_id])
    assert 0 in ids_of(guides[0].allowed())
    assert 0 not in ids_of(guides[1].allowed())  # its own place


def test_where_a_thread_may_not_lower_its_priority_it_compiles_as_it_is(monkeypatch):
    def refuse(*_):
        raise PermissionError("the kernel says no")

    monkeypatch.setattr("os.setpriority", refuse)
    engine = GuidanceEngine(byte_level())
    for guide in wait_for_all(engine, [regex("a"), regex("b")]):
        assert guide.error is None
    engine.close()


def test_the_least_recently_used_goes(counted):
    engine, compiled = counted
    for source in ("a", "b", "c", "a", "d", "a", "b"):
        wait_for_all(engine, [regex(source)])
    assert compiled == ["a", "b", "c", "d", "b"]
    assert engine.num_cached_grammars == 3


def test_one_kind_is_not_taken_for_another(counted):
    engine, compiled = counted
    wait_for_all(engine, [regex("a"), Grammar(kind="lark", source="a")])
    assert sorted(compiled) == ["a", "a"]


def test_what_cannot_be_compiled_is_not_kept(counted):
    engine, compiled = counted
    for _ in range(2):
        [guide] = wait_for_all(engine, [regex("(")])
        assert guide.error is not None
    assert compiled == ["(", "("]
    assert engine.num_cached_grammars == 0


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 40_000), st.booleans()), max_size=60))
def test_books_are_right_and_bounds_hold(uses):
    limits = GuidanceLimits(max_cached_bytes=16 * 1024 * 1024, max_cached_grammars=5)
    kept = CompiledGrammars(limits)
    for number, size, forgotten in uses:
        grammar = regex(f"{number}" + "x" * size)
        future, to_make = kept.get_or_reserve(grammar)
        assert kept.get_or_reserve(grammar) == (future, False)
        if to_make and forgotten:
            kept.forget(grammar)
        assert len(kept) <= limits.max_cached_grammars
        # The newest is kept, however large: whoever asked for it is about to use it.
        assert kept.num_bytes <= limits.max_cached_bytes or len(kept) == 1
        if not len(kept):
            assert kept.num_bytes == 0
