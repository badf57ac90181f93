"""When masks come late: who waits for them, how long, and who takes turns without them."""

import threading
import time

import pytest
from backplane_core.errors import GenerationError
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.guidance.guide import SequenceGuide
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar
from backplane_core.sampling import StoppingParams

from tests.core.guidance.vocabularies import byte_level

VOCABULARY = byte_level()
TOKENS = VOCABULARY.tokens
ABC = Grammar(kind="regex", source="abc")


@pytest.fixture(scope="module")
def engine():
    made = GuidanceEngine(VOCABULARY)
    yield made
    made.close()


class SlowPool:
    """An executor whose tasks begin when they are told to."""

    def __init__(self):
        self.tasks = []

    def submit(self, task):
        self.tasks.append(task)

    def run(self):
        while self.tasks:
            self.tasks.pop(0)()


def slow_guide(engine, **limits):
    pool = SlowPool()
    guide = SequenceGuide(pool, GuidanceLimits(**limits))
    compiled, made = engine._compiled.get_or_reserve(ABC)
    if made:
        engine._fill(ABC, compiled)
    compiled.result(30)
    follower = engine._followers(ABC, StoppingParams(max_new_tokens=9), compiled)
    guide.begin(follower, lambda: None)
    return guide, pool, follower.result()


def test_whoever_asks_waits_for_a_free_thread_no_longer_than_may_be(engine):
    guide, pool, _ = slow_guide(engine, mask_s=0.01, queue_s=0.05)
    begun = time.monotonic()
    with pytest.raises(GenerationError, match="no thread was free"):
        guide.allowed()
    assert time.monotonic() - begun >= 0.05
    pool.run()
    assert guide.allowed()


def test_a_mask_that_takes_too_long_fails_who_asks(engine):
    guide, pool, follower = slow_guide(engine, mask_s=0.05, queue_s=30.0)
    let_go = threading.Event()
    follow = follower.follow

    def slowly(token_ids):
        assert let_go.wait(30)
        return follow(token_ids)

    follower.follow = slowly
    thread = threading.Thread(target=pool.run)
    thread.start()
    with pytest.raises(GenerationError, match="took too long"):
        guide.allowed()
    let_go.set()
    thread.join()


def test_a_mask_that_was_begun_long_ago_is_waited_for_while_patience_lasts(engine):
    """Its thread may have stood still: it goes on once the model no longer computes."""
    guide, pool, follower = slow_guide(engine, mask_s=0.01, patience_s=30.0)
    pool.run()
    begun, goes_on = threading.Event(), threading.Event()
    follow = follower.follow

    def stands_still(token_ids):
        begun.set()
        assert goes_on.wait(30)
        return follow(token_ids)

    follower.follow = stands_still
    guide.advance([TOKENS.index(b"a")])
    thread = threading.Thread(target=pool.run)
    thread.start()
    assert begun.wait(30)
    time.sleep(0.02)  # longer than a mask may take
    threading.Timer(0.05, goes_on.set).start()
    assert guide.allowed()
    thread.join()


def test_after_a_slow_mask_turns_wait_for_the_mask_and_wake_who_gives_them(engine):
    guide, pool, _ = slow_guide(engine, patience_s=-1.0, mask_s=0.2)
    woken = []
    pool.run()
    guide._wake = lambda: woken.append(True)
    assert guide.may_take_turn
    guide.allowed()
    guide.advance([TOKENS.index(b"a")])
    assert not guide.may_take_turn
    pool.run()
    assert guide.may_take_turn
    assert woken == [True]
    guide.advance([TOKENS.index(b"b")])
    guide._started_s = time.monotonic() - 1
    assert guide.may_take_turn  # to be told that it took too long
    with pytest.raises(GenerationError, match="took too long"):
        guide.allowed()


def test_who_finds_out_while_the_mask_is_made_that_it_is_late_is_woken(engine):
    guide, pool, _ = slow_guide(engine, patience_s=0.0)
    pool.run()
    guide._num_wary = 0
    woken = []
    guide._wake = lambda: woken.append(guide.ready)
    guide.advance([TOKENS.index(b"a")])
    assert guide.may_take_turn
    pool.run()
    assert woken == [True]


class Clocks:
    """In the place of `time`, as a guide sees it: the wall's, and its own thread's."""

    def __init__(self):
        self.now_s = 100.0
        self.worked_s = 0.0

    def monotonic(self):
        return self.now_s

    def thread_time(self):
        return self.worked_s


@pytest.fixture
def clocks(monkeypatch):
    made = Clocks()
    monkeypatch.setattr("backplane_core.guidance.guide.time", made)
    return made


def passing(follow, clocks, *, now_s, worked_s):
    """Masks that take so long."""

    def followed(token_ids):
        clocks.now_s += now_s
        clocks.worked_s += worked_s
        return follow(token_ids)

    return followed


@pytest.mark.parametrize(("worked_s", "takes_turn"), [(0.005, True), (0.5, False)])
def test_of_a_mask_that_nobody_waited_for_its_own_work_counts_alone(
    engine, clocks, worked_s, takes_turn
):
    """All cores compute the model: it is begun late, and its thread stands still for long."""
    guide, pool, follower = slow_guide(engine, patience_s=0.01)
    pool.run()
    guide._num_wary = 0
    follower.follow = passing(follower.follow, clocks, now_s=0.5, worked_s=worked_s)
    guide.advance([TOKENS.index(b"a")])
    clocks.now_s += 1.0
    pool.run()
    guide.allowed()
    guide.advance([TOKENS.index(b"b")])
    assert guide.may_take_turn is takes_turn


def test_a_mask_that_was_waited_for_is_late_however_quick_it_was(engine):
    guide, pool, _ = slow_guide(engine, patience_s=0.05)
    pool.run()
    guide._num_wary = 0
    guide.advance([TOKENS.index(b"a")])
    asking = threading.Thread(target=guide.allowed)
    asking.start()
    time.sleep(0.2)  # no thread is free
    pool.run()
    asking.join(10)
    guide.advance([TOKENS.index(b"b")])
    assert not guide.may_take_turn


def test_each_further_time_it_is_not_waited_for_twice_as_long(engine, clocks):
    guide, pool, follower = slow_guide(engine, patience_s=0.01)
    pool.run()
    mask = bytes(guide.allowed())
    follower.follow = lambda _: mask
    guide._num_wary, guide._wary_for = 0, 16
    stretches = []
    guide.advance([0])
    for _ in range(3):
        assert guide.may_take_turn
        guide._awaited_s = clocks.now_s
        clocks.now_s += 1.0
        pool.run()
        stretches.append(0)
        guide.advance([0])
        while not guide.may_take_turn:
            stretches[-1] += 1
            pool.run()
            guide.advance([0])
    assert stretches == [16, 32, 64]


def test_after_enough_quick_masks_a_sequence_is_waited_for_again():
    engine = GuidanceEngine(VOCABULARY)
    guide, pool, _ = slow_guide(engine, patience_s=30.0)
    guide._num_wary = 3
    pool.run()
    taken = []
    for text in (b"a", b"b", b"c"):
        guide.advance([TOKENS.index(text)])
        taken.append(guide.may_take_turn)
        pool.run()
    assert taken == [False, False, True]
    engine.close()


def test_a_closed_guide_makes_no_more_masks(engine):
    guide, pool, _ = slow_guide(engine)
    guide.close()
    pool.run()
    assert guide.ready
    assert guide._follower is None


def test_other_errors_of_native_code_are_told_without_their_text(engine, caplog):
    guide, pool, follower = slow_guide(engine)

    def panic(*_):
        raise BaseException("a secret of the engine")  # noqa: TRY002 -- as native panics are

    follower.follow = panic
    pool.run()
    with pytest.raises(GenerationError) as caught:
        guide.allowed()
    assert "secret" not in caught.value.message
    assert "secret" in caplog.text
