"""Which ids mean something, and what servers encode with, from the files of a model's folder."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from backplane_core.errors import ModelError
from backplane_core.guidance.tokenizing import make_tokenizer
from backplane_core.testing.conformance.lifecycle import _check_vocabulary
from backplane_core.vocabulary import TokenizerFile
from backplane_server.tokenization.file_tokenizer import FileTokenizer
from backplane_torch.engine.tokenizer.loading import ModelTokenizer, load_tokenizer
from tokenizers import Tokenizer
from transformers import PretrainedConfig, T5Config

from tests.torch.tokenizer.built_tokenizers import (
    KINDS,
    byte_level_bpe,
    config_of,
    fallback_bpe,
    put_around,
    split_byte_level_bpe,
    unigram,
    write_folder,
)


def load(
    folder: Path, tokenizer: Tokenizer, config: PretrainedConfig | None = None, **files: Any
) -> ModelTokenizer:
    write_folder(folder, tokenizer, **files)
    return load_tokenizer(folder, config or config_of(tokenizer.get_vocab_size()))


def id_of(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


@pytest.mark.parametrize("kind", KINDS)
def test_every_vocabulary_is_one_that_workers_and_grammars_take(tmp_path: Path, kind: str) -> None:
    tokenizer = KINDS[kind][0]()
    config = config_of(tokenizer.get_vocab_size() + 64)  # rows that the tokenizer does not use
    model = load(tmp_path, tokenizer, config, tokenizer_config={"eos_token": "</s>"})
    _check_vocabulary(model.vocabulary)
    assert make_tokenizer(model.vocabulary).vocab_size == len(model.vocabulary.tokens)


def test_ids_beyond_the_models_rows_are_told(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    size = tokenizer.get_vocab_size()
    files = {"tokenizer_config": {"eos_token": "</s>"}}
    assert load(tmp_path, tokenizer, config_of(size), **files).warnings == ()
    tokenizer.add_tokens(["<|late|>"])
    model = load(tmp_path, tokenizer, config_of(size), **files)
    [warning] = model.warnings
    assert warning.startswith(f"the tokenizer has {size + 1} ids and the model {size}: ")
    assert "such as '<|late|>', is refused" in warning
    assert len(model.vocabulary.tokens) == size


# ── end tokens ───────────────────────────────────────────────────────────────────────────


def test_end_tokens_of_all_files_count_and_the_tokenizers_comes_first(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    size = tokenizer.get_vocab_size()
    end, turn = id_of(tokenizer, "</s>"), id_of(tokenizer, "<|turn|>")
    model = load(
        tmp_path,
        tokenizer,
        config_of(size, eos_token_id=[end, 7]),
        tokenizer_config={"eos_token": {"content": "<|turn|>", "__type": "AddedToken"}},
        generation_config={"eos_token_id": [9, end], "temperature": 0.5},
    )
    assert model.vocabulary.eos_token_ids == (turn, 9, end, 7)
    assert set(model.vocabulary.eos_token_ids) <= set(model.vocabulary.special_token_ids)


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({"eos_token_id": 5}, {}),
        ({}, {"generation_config": {"eos_token_id": 5}}),
        ({}, {"generation_config": {"eos_token_id": [5]}}),
        ({"eos_token_id": 5}, {"generation_config": {"eos_token_id": None}}),
        ({"eos_token_id": 5}, {"tokenizer_config": {"eos_token": "nowhere"}}),
        ({"eos_token_id": 5}, {"generation_config": {"eos_token_id": [5, 100_000, -1]}}),
    ],
)
def test_any_file_may_name_the_end(
    tmp_path: Path, changes: dict[str, Any], files: dict[str, Any]
) -> None:
    tokenizer = byte_level_bpe()
    config = config_of(tokenizer.get_vocab_size(), **changes)
    assert load(tmp_path, tokenizer, config, **files).vocabulary.eos_token_ids == (5,)


def test_an_older_file_of_special_tokens_is_read_where_the_newer_says_nothing(
    tmp_path: Path,
) -> None:
    tokenizer = split_byte_level_bpe()
    model = load(
        tmp_path,
        tokenizer,
        tokenizer_config={"model_max_length": 2048},
        special_tokens_map={"eos_token": {"content": "</s>"}, "bos_token": "<s>"},
    )
    assert model.vocabulary.eos_token_ids == (id_of(tokenizer, "</s>"),)


def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no end token") as caught:
        load(tmp_path, byte_level_bpe())
    assert "generation_config.json" in (caught.value.remedy or "")


# ── the token in front ───────────────────────────────────────────────────────────────────


def test_what_the_post_processor_puts_in_front_is_the_first_token(tmp_path: Path) -> None:
    tokenizer = split_byte_level_bpe()
    model = load(tmp_path, tokenizer, tokenizer_config={"eos_token": "</s>"})
    assert model.vocabulary.bos_token_id == id_of(tokenizer, "<s>")
    assert model.vocabulary.add_bos


def test_a_first_token_that_is_only_named_is_not_added(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    model = load(
        tmp_path,
        tokenizer,
        # transformers heeds this only where it makes the tokenizer itself.
        tokenizer_config={"bos_token": "<|turn|>", "eos_token": "</s>", "add_bos_token": True},
    )
    assert model.vocabulary.bos_token_id == id_of(tokenizer, "<|turn|>")
    assert not model.vocabulary.add_bos
    assert id_of(tokenizer, "<|turn|>") not in tokenizer.encode("a").ids


def test_a_token_behind_is_not_the_first(tmp_path: Path) -> None:
    model = load(tmp_path, unigram(), tokenizer_config={"eos_token": "</s>"})
    assert model.vocabulary.bos_token_id is None
    assert not model.vocabulary.add_bos


def test_a_token_behind_a_text_of_nothing_is_not_the_first(tmp_path: Path) -> None:
    """A vocabulary that drops the letter asked for leaves only what is put around."""
    tokenizer = byte_level_bpe()
    put_around(tokenizer, after="</s>")
    document = json.loads(tokenizer.to_str())
    document["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": ""}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    model = load(tmp_path, tokenizer, tokenizer_config={"eos_token": "</s>"})
    assert not model.vocabulary.add_bos


def test_control_tokens_are_their_text_and_special(tmp_path: Path) -> None:
    tokenizer = fallback_bpe()
    vocabulary = load(tmp_path, tokenizer, tokenizer_config={"eos_token": "</s>"}).vocabulary
    special = {vocabulary.tokens[token_id] for token_id in vocabulary.special_token_ids}
    assert special == {b"<unk>", b"<s>", b"</s>"}


def test_the_unknown_token_is_special_though_no_list_names_it(tmp_path: Path) -> None:
    model = load(tmp_path, unigram(), tokenizer_config={"eos_token": "</s>"})
    assert model.vocabulary.tokens[2] == b"<unk>"
    assert 2 in model.vocabulary.special_token_ids


# ── what must not be generated ───────────────────────────────────────────────────────────


def test_suppressed_tokens(tmp_path: Path) -> None:
    tokenizer = byte_level_bpe()
    model = load(
        tmp_path,
        tokenizer,
        tokenizer_config={"eos_token": "</s>"},
        generation_config={"suppress_tokens": [4, 9, 100_000], "bad_words_ids": [[6], [7, 8]]},
    )
    assert model.suppressed_token_ids == (4, 9, 6)


# ── the file ─────────────────────────────────────────────────────────────────────────────


def test_the_models_own_file_is_used_and_stays(tmp_path: Path) -> None:
    model = load(tmp_path, byte_level_bpe(), tokenizer_config={"eos_token": "</s>"})
    assert model.spec == TokenizerFile(path=str(tmp_path / "tokenizer.json"))
    model.close()
    assert (tmp_path / "tokenizer.json").is_file()


def test_a_server_puts_around_a_text_what_the_model_wants(tmp_path: Path) -> None:
    """T5 reads an end token behind each prompt; a rendered chat template has all it needs."""
    tokenizer = unigram()
    config = T5Config(vocab_size=tokenizer.get_vocab_size() + 28, eos_token_id=1)
    model = load(tmp_path, tokenizer, config)

    async def encode() -> tuple[list[int], list[int]]:
        server = FileTokenizer(model.spec.path, num_threads=1)
        try:
            wrapped = await server.encode("once upon", add_special=True)
            return wrapped, await server.encode("once upon", add_special=False)
        finally:
            server.close()

    wrapped, plain = asyncio.run(encode())
    assert wrapped == [*plain, 1]
    assert model.vocabulary.eos_token_ids == (1,)
    assert 1 not in plain


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_config", "generation_config"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, byte_level_bpe(), tokenizer_config={"eos_token": "</s>"})
    (tmp_path / f"{name}.json").write_text('{"model": ')
    with pytest.raises(ModelError, match=rf"^{name}\.json cannot be read") as caught:
        load_tokenizer(tmp_path, config_of(400))
    assert str(tmp_path) not in caught.value.message
