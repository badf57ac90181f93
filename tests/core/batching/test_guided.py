"""Sequences under a grammar: they obey it, end with it, and keep nobody waiting."""

import re
import threading
import time
from collections import deque
from types import SimpleNamespace

import pytest
from backplane_core.batching.executor import MemoryLayout
from backplane_core.errors import UnsupportedError
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.messages import Grammar
from backplane_core.vocabulary import Vocabulary

from tests.core.batching.fake_executor import EOS_TOKEN_ID, TOKENS
from tests.core.batching.harness import Engine, make_traits

PAGED, CELLS, SLOTS = MemoryLayout
PROMPT = list(range(10, 31))
VOCABULARY = Vocabulary(
    tokens=TOKENS, eos_token_ids=(EOS_TOKEN_ID,), special_token_ids=(EOS_TOKEN_ID,)
)
WORDS = Grammar(kind="regex", source="([a-z]{3,5} ){2}end")


@pytest.fixture(scope="module")
def guidance():
    engine = GuidanceEngine(VOCABULARY)
    yield engine
    engine.close()


@pytest.fixture(params=MemoryLayout)
def engine(request, guidance):
    return Engine(make_traits(request.param), guidance=guidance)


def regex(source):
    return Grammar(kind="regex", source=source)


def finish(engine, patience_s=30.0):
    """Step until nothing is left to do, grammars that are being compiled included."""
    deadline = time.monotonic() + patience_s
    while engine.busy:
        assert time.monotonic() < deadline, engine.stats
        engine.step()
        if not engine.stats.running:
            time.sleep(0.001)


def text_of(answer):
    return b"".join(TOKENS[token_id] for token_id in answer.token_ids).decode()


def test_a_sequence_obeys_its_grammar_and_ends_with_it(engine):
    engine.submit("r", PROMPT, 40, grammar=WORDS)
    finish(engine)
    answer = engine.answer("r")
    assert re.fullmatch(r"([a-z]{3,5} ){2}end<end>", text_of(answer))
    assert answer.finish_reason == "eos"


def test_guided_and_free_sequences_run_side_by_side(engine):
    for number in range(3):
        engine.submit(f"free-{number}", PROMPT[number:], 12, ignore_eos=True)
        engine.submit(f"guided-{number}", PROMPT[number:], 40, grammar=regex(f"x{{{number + 2}}}"))
    finish(engine)
    for number in range(3):
        assert text_of(engine.answer(f"guided-{number}")) == "x" * (number + 2) + "<end>"
        answer = engine.answer(f"free-{number}").token_ids
        assert answer == engine.expected(f"free-{number}", 0, 12)


def test_each_fork_follows_the_grammar_by_itself(engine):
    engine.submit("r", PROMPT, 40, grammar=WORDS, num_sequences=4)
    finish(engine)
    texts = {text_of(engine.answer("r", index)) for index in range(4)}
    assert len(texts) == 4
    assert all(re.fullmatch(r"([a-z]{3,5} ){2}end<end>", text) for text in texts)


@pytest.mark.parametrize("layout", MemoryLayout)
def test_a_grammar_cut_short_by_its_room_is_of_reason_length(layout, guidance):
    engine = Engine(make_traits(layout), guidance=guidance)
    engine.submit("r", PROMPT, 7, grammar=WORDS)
    finish(engine)
    assert engine.answer("r").finish_reason == "length"
    assert len(engine.answer("r").token_ids) == 7


@pytest.mark.parametrize("layout", MemoryLayout)
@pytest.mark.parametrize("fields", [{"ignore_eos": True}, {"min_new_tokens": 30}])
def test_where_only_the_end_may_follow_it_comes_whatever_forbids_it(layout, fields, guidance):
    engine = Engine(make_traits(layout), guidance=guidance)
    engine.submit("r", PROMPT, 35, grammar=regex("yes|no"), **fields)
    finish(engine)
    assert text_of(engine.answer("r")) in {"yes<end>", "no<end>"}
    assert engine.answer("r").finish_reason == "eos"


@pytest.mark.parametrize(
    ("fields", "num_tokens"), [({"ignore_eos": True}, 30), ({"min_new_tokens": 30}, 30)]
)
def test_where_more_may_follow_an_end_that_is_forbidden_does_not_come(fields, num_tokens, guidance):
    engine = Engine(make_traits(CELLS), guidance=guidance)
    engine.submit("r", PROMPT, 30, grammar=regex("[a-z]*"), **fields)
    finish(engine)
    assert len(engine.answer("r").token_ids) == num_tokens
    assert engine.answer("r").finish_reason == "length"
    assert text_of(engine.answer("r")).isalpha()


def test_stop_tokens_are_left_out_until_min_new_tokens(guidance):
    engine = Engine(make_traits(CELLS), guidance=guidance)
    a = TOKENS.index(b"a")
    engine.submit("r", PROMPT, 60, grammar=regex("[ab]*"), min_new_tokens=20, stop_token_ids=(a,))
    finish(engine)
    token_ids = engine.answer("r").token_ids
    assert a not in token_ids[:20]
    assert engine.answer("r").finish_reason in {"stop_token", "eos"}


@pytest.mark.parametrize("layout", MemoryLayout)
def test_preemption_keeps_the_place_in_the_grammar(layout, guidance):
    roomy = Engine(make_traits(layout), guidance=guidance)
    small = {"cache_tokens": 48} if layout is not SLOTS else {"cache_tokens": 64, "slot_tokens": 64}
    tight = Engine(
        make_traits(layout, **small, max_sequences=1 if layout is SLOTS else 8),
        guidance=guidance,
        headroom_tokens=0,
    )
    for engine in (roomy, tight):
        for number in range(3):
            engine.submit(f"r{number}", PROMPT[: 10 + number], 30, grammar=WORDS)
        finish(engine)
    if layout is not SLOTS:
        assert tight.stats.num_preemptions > 0
    for number in range(3):
        assert tight.answer(f"r{number}").token_ids == roomy.answer(f"r{number}").token_ids


class Gate:
    """A stand-in for the compiler that waits until it may go on."""

    def __init__(self, compiler):
        self.open = threading.Event()
        self._compiler = compiler

    def __call__(self, *args):
        assert self.open.wait(30)
        return self._compiler(*args)


@pytest.fixture
def gated():
    """Guidance whose compiler waits to be let go on."""
    guidance = GuidanceEngine(VOCABULARY, GuidanceLimits(compile_s=5.0))
    gate = guidance._compile = Gate(guidance._compile)
    yield guidance, gate
    gate.open.set()
    guidance.close()


@pytest.mark.parametrize("layout", MemoryLayout)
def test_a_grammar_that_is_not_ready_holds_up_nobody_and_keeps_its_place(layout, gated):
    guidance, gate = gated
    engine = Engine(make_traits(layout), guidance=guidance, max_running=1)
    engine.submit("held", PROMPT, 40, grammar=WORDS, num_sequences=2)
    engine.submit("free", PROMPT, 10, ignore_eos=True)
    engine.submit("later", PROMPT, 10, ignore_eos=True)
    engine.until(lambda: engine.answer("free").finish_reason)
    assert engine.stats.waiting == 2
    assert not engine.answer("held").token_ids
    gate.open.set()
    held = engine.runner._held
    deadline = time.monotonic() + 30
    while not all(seq.guide.ready for seq in engine.runner._groups["held"].sequences):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    finish(engine)
    assert engine.answer("held").finish_reason == "eos"
    assert not held._entries


@pytest.mark.parametrize("layout", MemoryLayout)
def test_a_held_request_can_be_cancelled_in_part_and_whole(layout, gated):
    guidance, gate = gated
    engine = Engine(make_traits(layout), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=WORDS, num_sequences=3)
    engine.submit("s", PROMPT, 40, grammar=WORDS)
    engine.step()
    engine.cancel("r", 0)
    engine.cancel("s")
    assert engine.stats.waiting == 1
    gate.open.set()
    finish(engine)
    assert engine.answer("r", 0).token_ids == []
    assert {engine.answer("r", index).finish_reason for index in (1, 2)} == {"eos"}
    assert not engine.runner._groups


def test_a_held_request_has_its_deadline(gated):
    guidance, _ = gated
    engine = Engine(make_traits(CELLS), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=WORDS, deadline=engine.clock() + 1)
    engine.step()
    assert engine.busy
    engine.clock.now_s += 2
    engine.step()
    assert engine.errors["r"].code == "deadline_exceeded"
    assert not engine.busy


def test_a_grammar_that_compiles_too_long_fails_its_request_alone(gated):
    guidance, _ = gated
    engine = Engine(make_traits(CELLS), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=WORDS)
    engine.submit("free", PROMPT, 10, ignore_eos=True)
    engine.step()
    engine.clock.now_s += 6
    engine.run()
    assert "too long to compile" in engine.errors["r"].message
    assert len(engine.answer("free").token_ids) == 10


def test_the_engine_is_woken_when_a_grammar_is_ready(gated):
    guidance, gate = gated
    engine = Engine(make_traits(CELLS), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=WORDS)
    engine.runner.poll(0.0)
    threading.Timer(0.1, gate.open.set).start()
    begun = time.monotonic()
    engine.runner.poll(30.0)
    assert time.monotonic() - begun < 20


def test_a_grammar_that_cannot_be_compiled_fails_its_request_alone(guidance):
    engine = Engine(make_traits(CELLS), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=regex("("))
    engine.submit("free", PROMPT, 10, ignore_eos=True)
    finish(engine)
    assert engine.errors["r"].code == "validation"
    assert "unclosed group" in engine.errors["r"].message
    assert len(engine.answer("free").token_ids) == 10


@pytest.mark.parametrize("layout", MemoryLayout)
def test_a_grammar_that_becomes_too_complex_fails_its_request_alone(layout):
    limits = GuidanceLimits(max_lexer_states=4)
    guidance = GuidanceEngine(VOCABULARY, limits)
    engine = Engine(make_traits(layout), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=regex("(abcdefgh|[a-z]{9}0){3}"))
    engine.submit("free", PROMPT, 10, ignore_eos=True)
    finish(engine)
    assert "complex" in engine.errors["r"].message
    assert len(engine.answer("free").token_ids) == 10
    guidance.close()


@pytest.mark.parametrize("layout", MemoryLayout)
def test_no_step_waits_for_a_slow_sequence(layout):
    """With no patience every sequence is slow, and a step waits for none of their masks."""
    guidance = GuidanceEngine(VOCABULARY, GuidanceLimits(patience_s=-1.0))
    engine = Engine(make_traits(layout), guidance=guidance)
    waits = []
    for number in range(3):
        engine.submit(f"r{number}", PROMPT[number:], 40, grammar=WORDS)
    engine.submit("free", PROMPT, 20, ignore_eos=True)
    execute = engine.executor.execute

    def note(batch):
        guides = [one.sequence.guide for one in batch.sequences if one.sequence.guide]
        waits.extend(guide for guide in guides if not guide.ready)
        return execute(batch)

    engine.executor.execute = note
    finish(engine)
    assert not waits
    assert len(engine.answer("free").token_ids) == 20
    for number in range(3):
        assert re.fullmatch(r"([a-z]{3,5} ){2}end<end>", text_of(engine.answer(f"r{number}")))
    guidance.close()


class OneThread:
    """A pool of one thread, which works when it is told to."""

    def __init__(self):
        self.tasks = deque()

    def submit(self, task):
        self.tasks.append(task)

    def work(self):
        if self.tasks:
            self.tasks.popleft()()

    def shutdown(self, **_):
        self.tasks.clear()


@pytest.mark.parametrize("layout", MemoryLayout)
def test_a_quick_sequence_behind_slow_ones_is_waited_for_ever_more_rarely(layout, monkeypatch):
    """Its masks take no time, but the thread that makes them is busy with those of the others."""
    guidance = GuidanceEngine(VOCABULARY)
    guidance._maskers = pool = OneThread()
    engine = Engine(make_traits(layout), guidance=guidance)
    for name in ("slow-0", "slow-1", "slow-2", "quick"):
        engine.submit(name, PROMPT, 30, grammar=regex("[a-z]*"), ignore_eos=True)
    engine.submit("free", PROMPT, 30, ignore_eos=True)
    guides = {name: group.sequences[0].guide for name, group in engine.runner._groups.items()}
    quick = guides["quick"]
    del guides["free"]
    deadline = time.monotonic() + 30
    while not all(guide.ready for guide in guides.values()):
        assert time.monotonic() < deadline
        pool.work()
        time.sleep(0.001)
    clocks = SimpleNamespace(monotonic=engine.clock, thread_time=engine.clock)
    monkeypatch.setattr("backplane_core.guidance.guide.time", clocks)
    for name, guide in guides.items():
        guide._num_wary = 0
        if name != "quick":
            guide._follower.follow = slowly(guide._follower.follow, engine.clock)
    waits = []
    execute = engine.executor.execute

    def note(batch):
        for one in batch.sequences:
            guide = one.sequence.guide
            if guide is not None and not guide.ready:
                waits.append(guide)
                guide._awaited_s = engine.clock()  # as `allowed` notes it, which blocks
                while not guide.ready:
                    pool.work()
        return execute(batch)

    engine.executor.execute = note
    while engine.busy:
        engine.step()
        pool.work()
    # Of thirty masks: behind slow ones that the step waits for itself, alone, and again after 16.
    assert waits.count(quick) in {2, 3}
    assert max(waits.count(guide) for name, guide in guides.items() if name != "quick") == 1
    assert {len(answer.token_ids) for answer in engine.answers.values()} == {30}
    guidance.close()


def slowly(follow, clock):
    """Masks that take 30 ms."""

    def followed(token_ids):
        clock.now_s += 0.03
        return follow(token_ids)

    return followed


def test_an_engine_whose_sequences_all_wait_for_masks_is_woken():
    guidance = GuidanceEngine(VOCABULARY, GuidanceLimits(patience_s=-1.0))
    engine = Engine(make_traits(CELLS), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=WORDS)
    begun = time.monotonic()
    while engine.busy:
        for delta in engine.runner.poll(5.0).deltas:
            engine._collect(delta)
    assert engine.answer("r").finish_reason == "eos"
    assert time.monotonic() - begun < 5.0  # one wait that nobody ends would take as long
    guidance.close()


def test_no_drafts_are_asked_for_under_a_grammar(guidance):
    """The fake executor refuses a batch that does."""
    engine = Engine(make_traits(CELLS, max_draft_tokens=3), guidance=guidance)
    engine.submit("r", PROMPT, 40, grammar=WORDS)
    engine.submit("free", PROMPT, 20, ignore_eos=True)
    finish(engine)
    assert engine.answer("r").finish_reason == "eos"
    assert engine.stats.num_skipped_tokens > 0


def test_without_guidance_a_grammar_is_refused():
    engine = Engine(make_traits(CELLS))
    with pytest.raises(UnsupportedError) as caught:
        engine.submit("r", PROMPT, 8, grammar=WORDS)
    assert caught.value.parameter == "grammar"
