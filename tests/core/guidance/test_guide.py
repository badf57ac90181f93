"""One sequence's guide: masks, ends, budgets, errors."""

import random
import subprocess
import sys
import threading

import pytest
from backplane_core.errors import GenerationError, SetupError, ValidationError
from backplane_core.guidance.engine import GuidanceEngine
from backplane_core.guidance.kinds import supported_kinds
from backplane_core.guidance.limits import GuidanceLimits
from backplane_core.guidance.tokenizing import make_tokenizer
from backplane_core.messages import Grammar
from backplane_core.sampling import StoppingParams
from backplane_core.vocabulary import Vocabulary

from tests.core.guidance.vocabularies import byte_level, ids_of, sentencepiece

VOCABULARY = byte_level()
TOKENS = VOCABULARY.tokens


@pytest.fixture(scope="module")
def engine():
    made = GuidanceEngine(VOCABULARY)
    yield made
    made.close()


def regex(source):
    return Grammar(kind="regex", source=source)


def guide_of(engine, grammar, **stopping):
    """A guide, once it is ready."""
    ready = threading.Event()
    guide = engine.guide(grammar, StoppingParams(max_new_tokens=100, **stopping), ready.set)
    assert ready.wait(30)
    assert guide.ready
    return guide


def texts_of(guide):
    return {TOKENS[token_id] for token_id in ids_of(guide.allowed())}


def test_a_mask_has_a_bit_per_token_in_whole_words(engine):
    mask = guide_of(engine, regex("abc")).allowed()
    assert len(mask) == 4 * -(-len(TOKENS) // 32)
    assert all(token_id < len(TOKENS) for token_id in ids_of(mask))


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (r"\d", set("0123456789")),
        (r"[\d_]", set("0123456789_")),
        (r"\s", set(" \t\n\r\f\v")),
        (r"\\d", {"\\"}),
        (r"[\\d]", {"\\", "d"}),
        (r'a/b"', {"a"}),
        ("[/\n]", {"/", "\n"}),
    ],
)
def test_classes_are_of_ascii_and_slashes_are_plain(engine, source, texts):
    guide = guide_of(engine, regex(source))
    assert {text for text in texts_of(guide) if len(text) == 1} == {one.encode() for one in texts}


def test_every_spelling_of_a_text_is_allowed_and_twins_are_both(engine):
    guide = guide_of(engine, regex("abc!"))
    assert texts_of(guide) == {b"a", b"ab", b"abc"}
    assert sum(TOKENS[token_id] == b"ab" for token_id in ids_of(guide.allowed())) == 2


def test_asking_twice_gives_the_same(engine):
    guide = guide_of(engine, regex("abc"))
    assert bytes(guide.allowed()) == bytes(guide.allowed())


def test_several_tokens_advance_at_once(engine):
    guide = guide_of(engine, regex("abcabc-(x|y)"))
    guide.advance([TOKENS.index(b"abc"), TOKENS.index(b"a"), TOKENS.index(b"bc")])
    assert texts_of(guide) == {b"-"}
    guide.advance([TOKENS.index(b"-")])
    assert texts_of(guide) == {b"x", b"y"}


def test_the_end_is_allowed_where_the_text_is_whole_and_nowhere_else(engine):
    guide = guide_of(engine, regex("ab?"))
    assert 0 not in ids_of(guide.allowed())
    guide.advance([TOKENS.index(b"a")])
    assert texts_of(guide) == {b"b", b"</s>"}
    guide.advance([TOKENS.index(b"b")])
    assert ids_of(guide.allowed()) == [0]


def test_special_tokens_are_never_text(engine):
    guide = guide_of(engine, regex(r"(.|\n)*"))
    allowed = ids_of(guide.allowed())
    assert 1 not in allowed
    assert len(TOKENS) - 1 not in allowed
    assert 0 in allowed  # the end: nothing at all is whole, too


def test_a_grammar_may_name_special_tokens(engine):
    call = len(TOKENS) - 1
    guide = guide_of(engine, Grammar(kind="lark", source=f'start: <[{call}]> "a" <|call|>\n'))
    assert ids_of(guide.allowed()) == [call]
    guide.advance([call, TOKENS.index(b"a")])
    assert ids_of(guide.allowed()) == [call]


@pytest.mark.parametrize(
    ("stopping", "held"),
    [
        ({"ignore_eos": True}, {b"</s>"}),
        ({"min_new_tokens": 2}, {b"</s>"}),
        ({"min_new_tokens": 2, "stop_token_ids": (TOKENS.index(b"b"),)}, {b"</s>", b"b"}),
        ({"stop_token_ids": (TOKENS.index(b"b"),)}, set()),
    ],
)
def test_ends_that_may_not_come_yet_are_left_out(engine, stopping, held):
    guide = guide_of(engine, regex("[ab]*"), **stopping)
    guide.advance([TOKENS.index(b"a")])
    everything = {b"</s>", b"a", b"b", b"ab", b"aa"}
    assert texts_of(guide) == everything - held


def test_min_new_tokens_holds_until_so_many_are_there(engine):
    guide = guide_of(engine, regex("[ab]*"), min_new_tokens=3)
    for _ in range(3):
        assert 0 not in ids_of(guide.allowed())
        guide.advance([TOKENS.index(b"a")])
    assert 0 in ids_of(guide.allowed())


@pytest.mark.parametrize("stopping", [{"ignore_eos": True}, {"min_new_tokens": 50}])
def test_where_only_the_end_may_follow_it_is_allowed(engine, stopping):
    guide = guide_of(engine, regex("a"), **stopping)
    guide.advance([TOKENS.index(b"a")])
    assert ids_of(guide.allowed()) == [0]


def test_a_token_that_is_not_allowed_is_found_out(engine):
    guide = guide_of(engine, regex("abc"))
    guide.advance([TOKENS.index(b"x")])
    with pytest.raises(GenerationError, match="does not allow a token that was sampled"):
        guide.allowed()
    guide.advance([TOKENS.index(b"a")])
    with pytest.raises(GenerationError):  # and stays so
        guide.allowed()


def test_a_token_after_the_last_is_not_allowed_and_nothing_is_compiled_again_for_it():
    engine = GuidanceEngine(VOCABULARY)
    guide = guide_of(engine, regex("a"))
    engine._compile = None
    guide.advance([TOKENS.index(b"a")])
    guide.allowed()
    guide.advance([TOKENS.index(b"b")])
    with pytest.raises(GenerationError, match="does not allow a token that was sampled"):
        guide.allowed()
    engine.close()


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (regex("("), "regular expression cannot be used: unclosed group"),
        (regex("a(?=b)"), "look-around"),
        (Grammar(kind="json_schema", source="[1]"), "is not a JSON object"),
        (Grammar(kind="json_schema", source="{"), "is not a JSON object"),
        (Grammar(kind="json_schema", source='{"type":"strang"}'), "strang"),
        (Grammar(kind="json_schema", source='{"uniqueItems":true}'), "uniqueItems"),
        (Grammar(kind="lark", source="start: foo\n"), 'unknown name: "foo"'),
        (regex("a" * (GuidanceLimits().max_source_bytes + 1)), "at most 131072 are taken"),
    ],
)
def test_what_cannot_be_compiled_says_why(engine, grammar, words):
    guide = guide_of(engine, grammar)
    assert isinstance(guide.error, ValidationError)
    assert words in guide.error.message
    with pytest.raises(ValidationError):
        guide.allowed()


def test_a_grammar_of_no_text_is_an_error_of_its_own(engine):
    guide = guide_of(engine, Grammar(kind="json_schema", source='{"$ref":"#"}'))
    assert "no text matches it" in guide.error.message


def walk(guide, num_tokens, seed):
    """Take allowed tokens at random; how many could be taken."""
    choose = random.Random(seed)  # noqa: S311 -- a walk, no secret
    for number in range(num_tokens):
        try:
            allowed = ids_of(guide.allowed())
        except GenerationError as error:
            return number, error.message
        guide.advance([choose.choice([one for one in allowed if one] or allowed)])
    return num_tokens, None


def test_what_others_found_out_of_a_grammar_does_not_end_a_sequence():
    """Copies share their lexer's states, of which 200 tokens of this use up more than half."""
    engine = GuidanceEngine(VOCABULARY, GuidanceLimits(max_lexer_states=1_000))
    compiled = []
    compiler = engine._compile
    engine._compile = lambda *args: compiled.append(args[0].source) or compiler(*args)
    grammar = regex("(a|b)*a(a|b){60}")
    guides = [guide_of(engine, grammar) for _ in range(4)]
    assert compiled == [grammar.source]
    for seed, guide in enumerate(guides):
        assert walk(guide, 200, seed) == (200, None)
    assert len(compiled) > 1
    later = guide_of(engine, grammar)
    assert walk(later, 200, 9) == (200, None)
    engine.close()


def test_what_a_sequence_uses_up_by_itself_ends_it():
    engine = GuidanceEngine(VOCABULARY, GuidanceLimits(max_lexer_states=1_000))
    num_tokens, message = walk(guide_of(engine, regex("(a|b)*a(a|b){60}")), 2000, 1)
    assert 0 < num_tokens < 2000
    assert "it is too complex" in message
    engine.close()


def test_a_sentencepiece_vocabulary_is_followed_too():
    vocabulary = sentencepiece()
    engine = GuidanceEngine(vocabulary)
    guide = guide_of(engine, regex(' the name(é|"a)'))
    for piece in (" the", " name"):
        token_id = vocabulary.tokens.index(piece.encode())
        assert token_id in ids_of(guide.allowed())
        guide.advance([token_id])
    allowed = {vocabulary.tokens[token_id] for token_id in ids_of(guide.allowed())}
    assert allowed == {"é".encode(), "é".encode()[:1], b'"'}
    engine.close()


def test_texts_are_encoded_by_the_longest_token_that_fits():
    tokenizer = make_tokenizer(VOCABULARY)
    pieces = [TOKENS[token_id] for token_id in tokenizer.tokenize_bytes(b'{"name": "abcab"}')]
    assert b"".join(pieces) == b'{"name": "abcab"}'
    assert {b'{"', b"name", b"abc"} <= set(pieces)


def test_without_an_end_token_there_is_no_guidance():
    vocabulary = Vocabulary(tokens=[b"a"])
    assert supported_kinds(vocabulary) == ()
    with pytest.raises(SetupError, match="no end token"):
        GuidanceEngine(vocabulary)
    assert supported_kinds(VOCABULARY) == ("json_schema", "regex", "lark")


def test_batching_imports_without_llguidance():
    code = (
        "import sys; sys.modules['llguidance'] = None\n"
        "import backplane_core.batching.runner, backplane_core.guidance.engine\n"
        "from backplane_core.guidance.kinds import supported_kinds\n"
        "from backplane_core.vocabulary import Vocabulary\n"
        "del sys.modules['llguidance']\n"
        "assert 'llguidance' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
