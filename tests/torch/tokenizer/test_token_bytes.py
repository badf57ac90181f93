"""The table of bytes: what is encoded decodes to itself, whatever the tokenizer's kind."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from backplane_core.errors import ModelError
from backplane_core.vocabulary import Vocabulary
from backplane_llamacpp.loading import load_model
from backplane_llamacpp.settings import LlamaCppSettings
from backplane_llamacpp.tokenizer import read_vocabulary
from backplane_server.text.detokenizer import IncrementalDetokenizer, TokenTable
from backplane_torch.engine.tokenizer.loading import ModelTokenizer, load_tokenizer
from backplane_torch.engine.tokenizer.token_bytes import Step, read_decoding
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoConfig

from tests.torch.tokenizer.built_tokenizers import (
    KINDS,
    TEXTS,
    byte_level_bpe,
    config_of,
    fallback_bpe,
    unigram,
    unspaced_bpe,
    with_a_space,
    write_folder,
)

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "launcher" / "src" / "backplane_launcher" / "demo_model"
# "▁" is a space in SentencePiece's files, so it is the one character that is not kept.
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="▁<"), max_size=60)


@dataclass(frozen=True)
class Built:
    """A tokenizer, what was read of it, and what its tokens spell for a text."""

    tokenizer: Tokenizer
    model: ModelTokenizer
    spelled: Callable[[str], str]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def check(self, text: str) -> None:
        """The bytes are those of the text, and the whole is what the library decodes."""
        token_ids = self.ids(text)
        tokens = self.model.vocabulary.tokens
        assert b"".join(tokens[token_id] for token_id in token_ids) == self.spelled(text).encode()
        table = TokenTable(self.model.vocabulary)
        whole = table.text_of_all(token_ids, skip_special=True)
        assert whole == self.tokenizer.decode(token_ids, skip_special_tokens=False)


def load(folder: Path, tokenizer: Tokenizer, *, more: int = 0) -> ModelTokenizer:
    write_folder(folder, tokenizer, tokenizer_config={"eos_token": "</s>"})
    return load_tokenizer(folder, config_of(tokenizer.get_vocab_size() + more))


@pytest.fixture(scope="module", params=KINDS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    make, spelled = KINDS[request.param]
    tokenizer = make()
    return Built(tokenizer, load(tmp_path_factory.mktemp("model"), tokenizer), spelled)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back(built: Built, text: str) -> None:
    built.check(text)


@settings(max_examples=200, deadline=None)
@given(text=ANY_TEXT)
def test_any_text_comes_back(built: Built, text: str) -> None:
    built.check(text)


@settings(max_examples=100, deadline=None)
@given(text=ANY_TEXT)
def test_a_continuation_comes_back_token_by_token(built: Built, text: str) -> None:
    """What the server streams, where characters are cut anywhere."""
    detokenizer = IncrementalDetokenizer(TokenTable(built.model.vocabulary))
    pieces = [detokenizer.push(token_id) for token_id in built.ids(text)]
    assert "".join(pieces) + detokenizer.finish() == built.spelled(text)


@pytest.fixture(scope="module")
def unigram_model(tmp_path_factory: pytest.TempPathFactory) -> Built:
    tokenizer = unigram()
    return Built(tokenizer, load(tmp_path_factory.mktemp("unigram"), tokenizer), with_a_space)


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.sampled_from(sorted({w for t in TEXTS for w in t.split()})), max_size=9))
def test_a_unigram_without_bytes_says_what_it_knows(unigram_model: Built, words: list[str]) -> None:
    unigram_model.check(" ".join(words))


def test_every_byte_has_a_token(tmp_path: Path) -> None:
    """Both ways to reach any byte: GPT-2's alphabet and SentencePiece's byte tokens."""
    for number, make in enumerate((byte_level_bpe, fallback_bpe)):
        tokens = load(tmp_path / str(number), make()).vocabulary.tokens
        assert {bytes([byte]) for byte in range(256)} <= set(tokens)


def test_the_demo_model_is_as_llama_cpp_reads_it() -> None:
    """Safetensors and GGUF of one model: one vocabulary, byte for byte."""
    path = DEMO / "backplane-demo-f16.gguf"
    native = load_model(path, LlamaCppSettings(), lambda *_, **__: None)
    try:
        expected = read_vocabulary(native, native.metadata())
    finally:
        native.close()
    found = load_tokenizer(DEMO, AutoConfig.from_pretrained(DEMO)).vocabulary
    assert found.tokens == expected.tokens
    assert found.special_token_ids == expected.special_token_ids
    assert sorted(found.eos_token_ids) == sorted(expected.eos_token_ids)
    assert found.bos_token_id == expected.bos_token_id
    assert found.add_bos == expected.add_bos
    assert found.strip_leading_space == expected.strip_leading_space


# ── tokens that the algorithm did not make ───────────────────────────────────────────────


def table_of(model: ModelTokenizer, tokenizer: Tokenizer) -> dict[str, bytes]:
    vocabulary: Vocabulary = model.vocabulary
    ids = tokenizer.get_vocab(with_added_tokens=True)
    return {token: vocabulary.tokens[token_id] for token, token_id in ids.items()}


def test_added_tokens_are_their_text(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    # "é" is also the alphabet's letter for a byte, "Ġ" the one for a space.
    added = ["<tool_call>", "    ", "é!", "Ġhe", "世"]
    tokenizer.add_tokens(added)
    model = load(tmp_path, tokenizer)
    table = table_of(model, tokenizer)
    assert [table[token] for token in added] == [token.encode() for token in added]
    special = {model.vocabulary.tokens[token_id] for token_id in model.vocabulary.special_token_ids}
    assert special == {b"</s>", b"<|turn|>"}
    for token in added:
        [token_id] = tokenizer.encode(token).ids
        assert model.vocabulary.tokens[token_id] == token.encode()


def test_added_runs_of_spaces_are_spaces(tmp_path: Path) -> None:
    tokenizer = unspaced_bpe()
    model = load(tmp_path, tokenizer)
    table = table_of(model, tokenizer)
    assert table["▁▁▁"] == b"   "
    assert table["\n\n"] == b"\n\n"
    assert not model.vocabulary.strip_leading_space


def test_rows_without_a_token_are_empty_and_silent(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    size = tokenizer.get_vocab_size()
    vocabulary = load(tmp_path, tokenizer, more=7).vocabulary
    assert len(vocabulary.tokens) == size + 7
    assert vocabulary.tokens[size:] == [b""] * 7
    assert set(range(size, size + 7)) <= set(vocabulary.special_token_ids)


def test_tokens_without_a_row_are_left_out(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["<image>"])
    folder = write_folder(tmp_path, tokenizer, tokenizer_config={"eos_token": "</s>"})
    vocabulary = load_tokenizer(folder, config_of(size)).vocabulary
    assert len(vocabulary.tokens) == size
    assert max(vocabulary.special_token_ids) < size


# ── decoders ─────────────────────────────────────────────────────────────────────────────


def test_a_file_without_a_decoder_is_read_by_its_pre_tokenizer(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    folder = write_folder(tmp_path, tokenizer, tokenizer_config={"eos_token": "</s>"})
    document = json.loads((folder / "tokenizer.json").read_text())
    document["decoder"] = None
    (folder / "tokenizer.json").write_text(json.dumps(document))
    tokens = load_tokenizer(folder, config_of(tokenizer.get_vocab_size())).vocabulary.tokens
    assert b" the" in tokens


@pytest.mark.parametrize(
    ("step", "strips"),
    [
        (Step(type="Metaspace", replacement="▁", prepend_scheme="always"), True),
        (Step(type="Metaspace", replacement="▁", prepend_scheme="first"), True),
        (Step(type="Metaspace", replacement="▁", prepend_scheme="never"), False),
        (Step(type="Metaspace", replacement="▁", add_prefix_space=True), True),
        (Step(type="Metaspace", replacement="▁", add_prefix_space=False), False),
        (Step(type="Strip", content=" ", start=1), True),
        (Step(type="Strip", content=" ", start=0), False),
        (Step(type="ByteLevel"), False),
    ],
)
def test_who_strips_the_leading_space(step: Step, strips: bool) -> None:
    assert read_decoding(step, None).strip_leading_space is strips


def test_words_that_end_by_a_suffix() -> None:
    decoding = read_decoding(Step(type="BPEDecoder", suffix="</w>"), None)
    assert decoding.token_bytes("word</w>") == b"word "
    assert decoding.token_bytes("wor") == b"wor"


def test_a_byte_token_is_a_byte_only_where_the_decoder_says_so() -> None:
    fallback = read_decoding(Step(type="ByteFallback"), None)
    assert fallback.token_bytes("<0x0A>") == b"\n"
    assert fallback.token_bytes("<0xff>") == b"\xff"
    assert fallback.token_bytes("<0x0>") == b"<0x0>"
    assert read_decoding(Step(type="Fuse"), None).token_bytes("<0x0A>") == b"<0x0A>"


@pytest.mark.parametrize(
    "step",
    [
        Step(type="CTC"),
        Step(type="WordPiece"),
        Step(type="Replace", pattern={"Regex": "a+"}, content="b"),
        Step(type="Strip", content="x", start=1),
    ],
)
def test_a_decoder_nobody_knows_is_named(step: Step) -> None:
    whole = Step(type="Sequence", decoders=(Step(type="Fuse"), step))
    with pytest.raises(ModelError, match=step.type) as caught:
        read_decoding(whole, None)
    assert caught.value.remedy


def test_the_alphabet_is_the_librarys() -> None:
    """Every letter of GPT-2's alphabet stands for another byte."""
    decoding = read_decoding(Step(type="ByteLevel"), None)
    from tokenizers.pre_tokenizers import ByteLevel  # noqa: PLC0415 -- for this oracle alone

    letters = ByteLevel.alphabet()
    assert {decoding.token_bytes(letter) for letter in letters} == {
        bytes([byte]) for byte in range(256)
    }
    pair = "".join(itertools.islice(sorted(letters), 2))
    assert len(decoding.token_bytes(pair)) == len(pair)
