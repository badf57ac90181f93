"""The checker: verdicts in good time, whatever a client sends, and whoever leaves."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from backplane_core.errors import (
    BackplaneError,
    OverloadedError,
    UnavailableError,
    ValidationError,
)
from backplane_core.messages import Grammar
from backplane_core.vocabulary import Vocabulary
from backplane_server.grammars import sources
from backplane_server.grammars.checker import GrammarChecker
from hypothesis import given, settings
from hypothesis import strategies as st

NAME = "grammar.value"
CALL = 31_999
VOCABULARY = Vocabulary(
    tokens=[b"</s>", b"<s>", *([b"word"] * 31_997), b"<call>"],
    special_token_ids=(0, 1, CALL),
    eos_token_ids=(0,),
)
RESIDENT_LIMIT_BYTES = 1 << 30


@pytest.fixture
async def checker():
    made = GrammarChecker()
    yield made
    await made.close()


def regex(source):
    return Grammar(kind="regex", source=source)


def lark(source):
    return Grammar(kind="lark", source=source)


def properties(number):
    return {"properties": {f"p{index}": {"type": "string"} for index in range(number)}}


def references(number):
    """A chain of references, each to the next."""
    definitions = {f"d{index}": {"$ref": f"#/$defs/d{index + 1}"} for index in range(number)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{number}": {"type": "null"}}}


def doubled(number, keyword):
    """Of each level two of the next: a power of two when it is written out."""
    definitions = {
        f"d{index}": {keyword: [{"$ref": f"#/$defs/d{index + 1}"}] * 2} for index in range(number)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{number}": {"type": "null"}}}


@pytest.mark.parametrize(
    "make",
    [
        lambda: sources.json_schema({"properties": {"a": {"type": "integer"}}}, NAME),
        lambda: sources.json_schema(True, NAME),
        sources.json_object,
        lambda: sources.regex(r"\p{Han}+|[[:alpha:]]{2,3}|\d", NAME),
        lambda: sources.regex("^yes$|^no$", NAME),
        lambda: sources.choice(['a "b"', "c/d", "e\nf", "日本", "a.b"], NAME),
        lambda: sources.grammar('start: "a" b\nb: /[0-9]+/\n', NAME),
        lambda: sources.grammar(f'start: <[{CALL}]> "a" <call>\n', NAME),
        lambda: sources.json_schema(
            {"type": "object", "properties": {"next": {"$ref": "#"}}}, NAME
        ),
        lambda: sources.json_schema(references(500), NAME),
    ],
)
async def test_what_can_be_followed_is_sent_as_it_is(checker, make):
    grammar = make()
    assert await checker.check(grammar, NAME, VOCABULARY) is grammar


async def test_gbnf_becomes_lark(checker):
    source = 'root ::= greeting " " name\ngreeting ::= "hi" | "ho"\nname ::= [a-z]+\n'
    grammar = await checker.check(lark(source), NAME, VOCABULARY)
    assert grammar.kind == "lark"
    assert grammar.source.count("start:") == 1
    assert await checker.check(grammar, NAME, VOCABULARY) is grammar


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (regex("("), "unclosed group"),
        (regex("a(?=b)"), "look-around"),
        (regex(r"(a)\1"), "backreferences"),
        (regex("[z-a]"), "invalid character class range"),
        (Grammar(kind="json_schema", source='{"uniqueItems":true}'), '["uniqueItems"]'),
        (Grammar(kind="json_schema", source='{"not":{}}'), '["not"]'),
        (Grammar(kind="json_schema", source='{"format":"no","type":"string"}'), "Unknown format"),
        (Grammar(kind="json_schema", source='{"$ref":"#/$defs/a"}'), "does not exist"),
        (Grammar(kind="json_schema", source='{"$ref":"#"}'), "no text matches it"),
        (Grammar(kind="json_schema", source='{"enum":[]}'), "Unsatisfiable"),
        (
            Grammar(kind="json_schema", source='{"minimum":3,"maximum":1,"type":"integer"}'),
            "minimum (3) is greater than maximum (1)",
        ),
        (lark("start: foo\n"), 'unknown name: "foo"'),
        (lark("start: <[40000]>\n"), "40000"),
        (lark("start: <nothing>\n"), "special token"),
        (lark("root ::= foo\n"), "'foo' not found"),
        (lark("anything at all"), "neither Lark"),
        (lark("root ::= " + "(" * 20_000), "neither Lark"),
    ],
)
async def test_what_is_wrong_is_told_with_the_parameters_name(checker, grammar, words):
    with pytest.raises(ValidationError) as caught:
        await checker.check(grammar, "the.name", VOCABULARY)
    assert caught.value.parameter == "the.name"
    assert caught.value.message.startswith("`the.name`: the ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "/site-packages" not in caught.value.message
    assert "Traceback" not in caught.value.message


PATHOLOGICAL = {
    "(a+)+b": lambda: sources.regex("(a+)+b", NAME),
    "nested repetition": lambda: sources.regex("((a{1,1000}){1,1000})", NAME),
    "deeper repetition": lambda: sources.regex("((((x{1,99}){1,99}){1,99}){1,99}){1,99}", NAME),
    "a million characters": lambda: sources.regex("a" * 10**6, NAME),
    "as long as may be": lambda: sources.regex("ab" * 65_000, NAME),
    "as many classes as may be": lambda: sources.regex(r"\p{L}" * 26_000, NAME),
    "unicode classes, repeated": lambda: sources.regex(r"(\p{L}{1,300}\p{Han}*){1,300}", NAME),
    "an exponential automaton": lambda: sources.regex("(a|b)*a(a|b){60}", NAME),
    "many alternatives": lambda: sources.choice([f"{one:06d}" for one in range(16_000)], NAME),
    "10 000 optional properties": lambda: sources.json_schema(properties(10_000), NAME),
    "as many properties as may be": lambda: sources.json_schema(properties(4_000), NAME),
    "references in a circle": lambda: sources.json_schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        NAME,
    ),
    "a long chain of references": lambda: sources.json_schema(references(3_000), NAME),
    "a bomb of anyOf": lambda: sources.json_schema(doubled(40, "anyOf"), NAME),
    "a bomb of allOf": lambda: sources.json_schema(doubled(40, "allOf"), NAME),
    "a bomb of oneOf": lambda: sources.json_schema(doubled(40, "oneOf"), NAME),
    "a huge string": lambda: sources.json_schema(
        {"type": "string", "minLength": 10**9, "maxLength": 10**12}, NAME
    ),
    "a huge array": lambda: sources.json_schema(
        {"type": "array", "minItems": 10**9, "items": {"type": "integer"}}, NAME
    ),
    "a huge number": lambda: sources.json_schema(
        {"type": "integer", "minimum": -(10**300), "maximum": 10**300}, NAME
    ),
    "a multiple of nothing sensible": lambda: sources.json_schema(
        {"type": "integer", "multipleOf": 999_983}, NAME
    ),
    "a pattern of no end": lambda: sources.json_schema(
        {"type": "string", "pattern": "^(([a-z]{1,500}){1,500}){1,500}$"}, NAME
    ),
    "an ambiguous grammar": lambda: lark('start: x*\nx: "a" | "a" "a" | x x | y\ny: x | x x x\n'),
    "a grammar of itself": lambda: lark("start: start\n"),
    "a terminal of itself": lambda: lark("start: A\nA: A A\n"),
    "deep brackets": lambda: lark("start: " + "(" * 20_000 + '"a"' + ")" * 20_000 + "\n"),
    "many rules": lambda: lark("".join(f'r{n}: "a" | r{n + 1}\n' for n in range(6_000))),
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
async def test_pathological_grammars_get_a_verdict_in_good_time(checker, name):
    await checker.start()
    begun = time.monotonic()
    refusal = None
    try:
        await checker.check(PATHOLOGICAL[name](), NAME, VOCABULARY)
    except ValidationError as error:
        refusal = error
    assert refusal is None or (refusal.parameter == NAME and len(refusal.message) < 500)
    # The time limit, twice where a process dies of it, and a machine that does other things.
    assert time.monotonic() - begun < 30
    good = regex("[a-z]{1,8}")
    assert await checker.check(good, NAME, VOCABULARY) is good


def resident_bytes(pid):
    num_pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(num_pages) * os.sysconf("SC_PAGE_SIZE")


async def test_many_distinct_schemas_stay_within_bounds(checker):
    pids = set()
    for number in range(1000):
        schema = {"type": "object", "properties": {f"field_{number}": {"type": "integer"}}}
        await checker.check(sources.json_schema(schema, NAME), NAME, VOCABULARY)
        pids |= {one._process.pid for one in checker._processes if one._process is not None}
    assert len(checker._verdicts) <= 256
    for pid in pids:  # none died over them
        assert resident_bytes(pid) < RESIDENT_LIMIT_BYTES


async def test_a_verdict_is_remembered(checker):
    grammar = sources.json_schema(properties(5), NAME)
    await checker.check(grammar, NAME, VOCABULARY)
    with pytest.raises(ValidationError):
        await checker.check(regex("("), NAME, VOCABULARY)
    for process in checker._processes:
        await process.close()
    assert await checker.check(grammar, NAME, VOCABULARY) is grammar
    with pytest.raises(ValidationError) as caught:
        await checker.check(regex("("), "another.name", VOCABULARY)
    assert caught.value.parameter == "another.name"


async def test_another_vocabulary_is_another_question(checker):
    grammar = lark("start: <call>\n")
    await checker.check(grammar, NAME, VOCABULARY)
    without = Vocabulary(tokens=[b"</s>"], eos_token_ids=(0,), special_token_ids=(0,))
    with pytest.raises(ValidationError, match="special token"):
        await checker.check(grammar, NAME, without)


async def test_one_question_for_all_who_ask_it_at_once(checker):
    grammar = regex("[a-c]+")
    asked = []
    ask_in_turn = checker._processes[0]._ask_in_turn

    async def counted(question):
        asked.append(question.grammar)
        return await ask_in_turn(question)

    for one in checker._processes:
        one._ask_in_turn = counted
    await asyncio.gather(*(checker.check(grammar, NAME, VOCABULARY) for _ in range(30)))
    assert asked == [grammar]


async def test_who_leaves_costs_nobody_an_answer(checker):
    grammar = sources.json_schema(properties(400), NAME)
    first = asyncio.create_task(checker.check(grammar, NAME, VOCABULARY))
    second = asyncio.create_task(checker.check(grammar, NAME, VOCABULARY))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is grammar


@pytest.fixture
async def impatient():
    """Two processes, started, and little patience."""
    made = GrammarChecker(num_processes=2, time_limit_s=1.0, wait_limit_s=0.3)
    for process in made._processes:
        await process.start()
    yield made
    await made.close()


SLOW = [
    Grammar(kind="json_schema", source=json.dumps({**properties(3_800), "title": str(number)}))
    for number in range(3)
]


async def stop(checker):
    """Make its processes answer nothing more."""
    for process in checker._processes:
        os.kill(process._process.pid, signal.SIGSTOP)


async def test_what_takes_too_long_is_refused_and_the_next_is_answered(impatient):
    await stop(impatient)
    with pytest.raises(ValidationError, match="takes longer than 1 s to compile") as caught:
        await impatient.check(regex("[a-c]"), NAME, VOCABULARY)
    assert caught.value.remedy
    impatient._processes[1]._process.send_signal(signal.SIGCONT)
    assert await impatient.check(regex("[a-d]"), NAME, VOCABULARY) == regex("[a-d]")


async def test_nobody_waits_for_long_behind_what_takes_too_long(impatient):
    await stop(impatient)
    begun = time.monotonic()
    checks = [impatient.check(regex(f"a{{{n}}}"), NAME, VOCABULARY) for n in range(1, 9)]
    results = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(result) for result in results[:2]] == [ValidationError] * 2
    assert [type(result) for result in results[2:]] == [OverloadedError] * 6
    assert results[2].retry_after_s
    assert time.monotonic() - begun < 10


async def test_a_process_that_is_killed_is_replaced(checker):
    await checker.start()
    task = asyncio.create_task(checker.check(SLOW[0], NAME, VOCABULARY))
    await asyncio.sleep(0.05)
    os.kill(checker._processes[0]._process.pid, signal.SIGKILL)
    # It is asked again; whether it is then in time is the machine's affair.
    [result] = await asyncio.gather(task, return_exceptions=True)
    assert result is SLOW[0] or "longer than" in result.message


async def test_a_grammar_under_which_processes_die_is_refused(checker):
    async def ask_and_kill(process, question):
        if question.grammar.source == "[a-z]":
            process.kill()
            await process.wait()
        return await type(checker._processes[0])._ask(checker._processes[0], process, question)

    checker._processes[0]._ask = ask_and_kill
    with pytest.raises(ValidationError, match="more memory to compile than it may"):
        await checker.check(regex("[a-z]"), NAME, VOCABULARY)
    assert await checker.check(regex("[a-y]"), NAME, VOCABULARY)


async def test_a_process_that_cannot_start_is_no_fault_of_the_grammar(checker, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(UnavailableError, match="grammar checker does not start"):
            await checker.check(regex("[a-z]"), NAME, VOCABULARY)
    assert await checker.check(regex("[a-z]"), NAME, VOCABULARY)


async def test_closing_ends_what_is_under_way():
    checker = GrammarChecker()
    await checker.start()
    task = asyncio.create_task(checker.check(SLOW[1], NAME, VOCABULARY))
    await asyncio.sleep(0.02)
    begun = time.monotonic()
    await checker.close()
    assert time.monotonic() - begun < 5
    [result] = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError | UnavailableError)
    with pytest.raises(UnavailableError, match="shutting down"):
        await checker.check(regex("[a-z]"), NAME, VOCABULARY)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["json_schema", "regex", "lark"]),
    source=st.one_of(
        st.text(max_size=30),
        st.text(alphabet='{}[]()*+?|\\"abc01^$.,:/-\n &start<>%', max_size=60),
    ),
)
def test_any_text_gets_a_verdict(kind, source, loop_and_checker):
    loop, checker = loop_and_checker

    async def ask():
        try:
            await checker.check(Grammar(kind=kind, source=source), NAME, VOCABULARY)
        except BackplaneError as error:
            return error
        return None

    error = loop.run_until_complete(ask())
    assert error is None or isinstance(error, ValidationError), error
    assert checker._processes[0]._process.returncode is None


@pytest.fixture(scope="module")
def loop_and_checker():
    """One checker for many examples, on a loop of its own."""
    loop = asyncio.new_event_loop()
    checker = GrammarChecker(num_processes=1)
    yield loop, checker
    loop.run_until_complete(checker.close())
    loop.close()
