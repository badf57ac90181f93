"""Cutting UTF-8 into tokens anywhere changes nothing of the text."""

import itertools

from backplane_core.vocabulary import Vocabulary
from backplane_server.text.detokenizer import IncrementalDetokenizer, TokenTable
from hypothesis import given
from hypothesis import strategies as st

BYTES_TABLE = TokenTable(
    Vocabulary(
        tokens=[bytes([value]) for value in range(256)] + [b"<eos>"], special_token_ids=(256,)
    )
)


def decode(pieces: list[bytes], specials_between: bool = False) -> list[str]:
    table = TokenTable(Vocabulary(tokens=[*pieces, b"<eos>"], special_token_ids=(len(pieces),)))
    decoder = IncrementalDetokenizer(table)
    out = []
    for token_id in range(len(pieces)):
        out.append(decoder.push(token_id))
        if specials_between:
            assert decoder.push(len(pieces)) == ""
    return [*out, decoder.finish()]


@given(text=st.text(max_size=20), places=st.lists(st.integers(0, 80)), specials=st.booleans())
def test_every_cut_of_valid_text_gives_the_text(text, places, specials):
    data = text.encode()
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert "".join(decode(pieces, specials)) == text


@given(data=st.binary(max_size=24), places=st.lists(st.integers(0, 24)))
def test_every_cut_of_any_bytes_gives_the_whole_decoding(data, places):
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    assert "".join(decode(pieces)) == data.decode("utf-8", "replace")


def test_a_character_comes_with_the_token_that_ends_it():
    assert decode([b"a\xf0\x9f", b"\x98", b"\x80b"]) == ["a", "", "😀b", ""]


def test_an_unfinished_character_shows_only_at_the_end():
    assert decode([b"a", b"\xe2\x82"]) == ["a", "", "�"]


def test_literals_and_ids_outside_the_table():
    assert BYTES_TABLE.literal(256) == "<eos>"
    assert BYTES_TABLE.literal(0xFF) == "�"
    assert BYTES_TABLE.literal(10_000) == ""
    assert BYTES_TABLE.text_of(None) == ""
    assert IncrementalDetokenizer(BYTES_TABLE).push(10_000) == ""
