"""Encoding and the vocabulary table: exact bytes, both kinds of vocabulary, from many threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from backplane_core.vocabulary import Vocabulary
from backplane_llamacpp.native.model import NativeModel
from backplane_llamacpp.tokenizer import LlamaCppTokenizer, read_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.llamacpp import tiny_gguf

TEXTS = [
    "Hello world",
    "  leading and   inner  spaces ",
    "tabs\tand\r\nnewlines\n\n\n",
    "naïve café “quotes” … 世界 こんにちは",
    "emoji 🎉👩‍👩‍👧‍👦🏳️‍🌈 and flags 🇩🇪",
    "zero\x00byte and control \x1b[0m",
    "right-to-left עברית العربية",
    "<|user|> is text unless it is parsed",
    "",
]


@pytest.fixture(scope="module")
def bpe(bpe_model: NativeModel) -> tuple[LlamaCppTokenizer, Vocabulary]:
    return LlamaCppTokenizer(bpe_model), read_vocabulary(bpe_model, bpe_model.metadata())


def encode(tokenizer: LlamaCppTokenizer, text: str, **flags: bool) -> list[int]:
    flags = {"add_special": False, "parse_special": False} | flags
    return tokenizer.encode_batch([text], **flags)[0]


def decode(vocabulary: Vocabulary, token_ids: list[int]) -> bytes:
    return b"".join(vocabulary.tokens[token_id] for token_id in token_ids)


@pytest.mark.parametrize("text", TEXTS)
def test_bpe_round_trip_is_exact(bpe: tuple[LlamaCppTokenizer, Vocabulary], text: str) -> None:
    tokenizer, vocabulary = bpe
    assert decode(vocabulary, encode(tokenizer, text)) == text.encode()


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_bpe_round_trip_of_any_text(bpe_model: NativeModel, text: str) -> None:
    token_ids = encode(LlamaCppTokenizer(bpe_model), text)
    assert b"".join(map(bpe_model.piece, token_ids)) == text.encode()


def test_bpe_merges_are_used(bpe: tuple[LlamaCppTokenizer, Vocabulary]) -> None:
    tokenizer, vocabulary = bpe
    token_ids = encode(tokenizer, "Hello world the end")
    assert [vocabulary.tokens[token_id] for token_id in token_ids[:3]] == [
        b"Hello",
        b" world",
        b" the",
    ]


def test_special_tokens(bpe: tuple[LlamaCppTokenizer, Vocabulary]) -> None:
    tokenizer, vocabulary = bpe
    tokens, _, _ = tiny_gguf.bpe_vocabulary()
    begin, end, user, stop = map(tokens.index, ("<|begin|>", "<|end|>", "<|user|>", "<|stop|>"))
    assert encode(tokenizer, "<|user|>", parse_special=True) == [user]
    assert user not in encode(tokenizer, "<|user|>")
    assert encode(tokenizer, "a", add_special=True)[0] == begin
    assert vocabulary.bos_token_id == begin
    assert vocabulary.add_bos
    assert vocabulary.eos_token_ids == (end, stop)
    assert vocabulary.tokens[user] == b"<|user|>"
    specials = {tokens[token_id] for token_id in vocabulary.special_token_ids}
    assert specials == {"<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|stop|>"}
    assert len(vocabulary.tokens) == len(tokens)


def test_sentence_piece(spm_model: NativeModel) -> None:
    tokenizer = LlamaCppTokenizer(spm_model)
    vocabulary = read_vocabulary(spm_model, spm_model.metadata())
    for text in TEXTS[:1] + TEXTS[3:5]:
        token_ids = encode(tokenizer, text)
        # SentencePiece puts a space in front; the server takes it off the first piece.
        assert decode(vocabulary, token_ids) == b" " + text.encode()
    assert vocabulary.strip_leading_space
    assert vocabulary.tokens[3 + 0xE4] == b"\xe4"  # a byte token
    assert vocabulary.eos_token_ids == (2,)
    assert encode(tokenizer, "Hello", add_special=True)[0] == vocabulary.bos_token_id == 1
    assert vocabulary.special_token_ids == (0, 1, 2)


def test_a_batch_equals_its_texts_one_by_one(
    bpe: tuple[LlamaCppTokenizer, Vocabulary],
) -> None:
    tokenizer, _ = bpe
    batch = tokenizer.encode_batch(TEXTS, add_special=True, parse_special=False)
    assert batch == [encode(tokenizer, text, add_special=True) for text in TEXTS]


def test_many_threads_encode_alike(bpe: tuple[LlamaCppTokenizer, Vocabulary]) -> None:
    tokenizer, _ = bpe
    texts = [f"{text} {number}" * 20 for number, text in enumerate(TEXTS * 5)]
    expected = [encode(tokenizer, text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: encode(tokenizer, text), texts)) == expected
