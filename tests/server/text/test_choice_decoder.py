"""What a dialect is told of one sequence: visible text per token, count, and why it ended."""

import pytest
from backplane_core.messages import SequenceDelta
from backplane_core.vocabulary import Vocabulary
from backplane_server.text.choice_decoder import ChoiceDecoder, Finish
from backplane_server.text.detokenizer import TokenTable
from hypothesis import given
from hypothesis import strategies as st

EOS, MARK = 256, 257
TABLE = TokenTable(
    Vocabulary(
        tokens=[bytes([value]) for value in range(256)] + [b"</s>", b"<tool>"],
        special_token_ids=(EOS, MARK),
        eos_token_ids=(EOS,),
    )
)


def deltas(
    data: bytes, sizes: list[int], reason: str | None, end: list[int]
) -> list[SequenceDelta]:
    ids = [*data, *end]
    return cut(ids, sizes, reason)


def cut(ids: list[int], sizes: list[int], reason: str | None) -> list[SequenceDelta]:
    out = []
    while ids:
        size = sizes.pop() if sizes else len(ids)
        out.append((ids[:size], None))
        ids = ids[size:]
    if out:
        out[-1] = (out[-1][0], reason)
    return [
        SequenceDelta("r", 0, token_ids, logprobs=[-1.0] * len(token_ids), finish_reason=why)
        for token_ids, why in out
    ]


def run(parts: list[SequenceDelta], stops=(), **options):
    decoder = ChoiceDecoder(TABLE, 0, tuple(stops), **{"keep_stop": False, **options})
    events = [decoder.push(part) for part in parts]
    tokens = [token for event in events for token in event.tokens]
    tail = "".join(event.tail for event in events)
    assert "".join(token.text for token in tokens) + tail == decoder.text
    return decoder, tokens


@given(
    text=st.text(alphabet="abé😀", min_size=1, max_size=10),
    sizes=st.lists(st.integers(1, 4)),
    stop=st.sampled_from(["ab", "é", "b😀", "zz"]),
    keep=st.booleans(),
)
def test_step_sizes_change_nothing(text, sizes, stop, keep):
    decoder, tokens = run(deltas(text.encode(), sizes, "eos", [EOS]), [stop], keep_stop=keep)
    head, found, _ = text.partition(stop)
    assert decoder.text == head + (stop if keep and found else "")
    counted = len((head + stop).encode()) if found else len(text.encode()) + 1
    assert decoder.num_tokens == counted
    assert decoder.finish is (Finish.STOP_STRING if found else Finish.EOS)
    if not found:
        assert tokens[-1].silent


@given(
    ids=st.lists(st.sampled_from([*b"a<t", MARK, *"é".encode()]), min_size=1, max_size=12),
    sizes=st.lists(st.integers(1, 4)),
    stop=st.sampled_from(["a<tool>", "l>a", "<tool><tool>", "<t", "é<", "zz"]),
    keep=st.booleans(),
    shown=st.booleans(),
)
def test_shown_specials_are_text_to_stop_strings_and_hidden_ones_are_nothing(
    ids, sizes, stop, keep, shown
):
    text = b"".join(
        TABLE.token_bytes(token_id) for token_id in ids if shown or token_id != MARK
    ).decode("utf-8", "replace")
    shown_ids = frozenset({MARK}) if shown else frozenset()
    decoder, tokens = run(
        cut(ids, sizes, "length"), [stop], keep_stop=keep, shown_special_ids=shown_ids
    )
    head, found, _ = text.partition(stop)
    assert decoder.text == head + (stop if keep and found else "")
    assert decoder.finish is (Finish.STOP_STRING if found else Finish.LENGTH)
    assert all(token.silent is not shown for token in tokens if token.token_id == MARK)
    if not found:
        assert decoder.num_tokens == len(ids)


@pytest.mark.parametrize("shown", [True, False])
def test_a_special_token_that_ends_the_text_is_never_shown(shown):
    shown_ids = frozenset({EOS, MARK}) if shown else frozenset()
    decoder, tokens = run(deltas(b"hi", [], "eos", [EOS]), shown_special_ids=shown_ids)
    assert decoder.text == "hi"
    assert tokens[-1].silent


def test_the_token_that_ends_a_sequence_is_listed_and_silent():
    decoder, tokens = run(deltas(b"hi", [], "eos", [EOS]))
    assert [(token.token_id, token.text, token.silent) for token in tokens] == [
        (104, "h", False),
        (105, "i", False),
        (EOS, "", True),
    ]
    assert decoder.num_tokens == 3


@pytest.mark.parametrize(("keep", "text"), [(True, "hi!"), (False, "hi")])
def test_a_stop_token_shows_its_text_only_where_stops_are_kept(keep, text):
    decoder, _ = run(deltas(b"hi", [], "stop_token", [ord("!")]), keep_stop=keep)
    assert decoder.text == text
    assert decoder.finish is Finish.STOP_TOKEN


def test_tokens_wholly_inside_a_stop_string_are_counted_but_not_listed():
    decoder, tokens = run(deltas(b"ok<|x|>junk", [1, 1, 1, 1, 1, 1, 1, 1], None, []), ["<|x|>"])
    assert [token.text for token in tokens] == ["o", "k"]
    assert decoder.num_tokens == 7


def test_a_token_cut_by_a_stop_string_keeps_its_part_before():
    table = TokenTable(Vocabulary(tokens=[b"one", b" two", b" three"]))
    decoder = ChoiceDecoder(table, 0, ("o t",), keep_stop=False)
    events = [decoder.push(SequenceDelta("r", 0, [token_id])) for token_id in (0, 1, 2)]
    assert [[token.text for token in event.tokens] for event in events] == [["one"], [], [" tw"]]
    assert decoder.num_tokens == 3
    assert events[-1].finish is Finish.STOP_STRING


def test_a_sequence_that_ends_inside_a_character_says_so():
    decoder, tokens = run(deltas(b"a\xe2\x82", [], "length", []))
    assert decoder.text == "a�"
    assert [token.text for token in tokens] == ["a", "", ""]


def test_what_follows_the_end_is_ignored():
    decoder = ChoiceDecoder(TABLE, 0, ("b",), keep_stop=False)
    decoder.push(SequenceDelta("r", 0, list(b"ab")))
    late = decoder.push(SequenceDelta("r", 0, list(b"cd"), finish_reason="length"))
    assert (late.tokens, late.finish, decoder.num_tokens) == ([], None, 2)
