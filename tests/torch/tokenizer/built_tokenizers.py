"""Tokenizers of each kind, trained on the spot, and model folders around them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, PretrainedConfig

TEXTS = (
    "The quick brown fox jumps over the lazy dog, 12 times; the dog sleeps.",
    "def f(x):\n    return x ** 2  # squared\n\treturn",
    "naïve café “quotes” … 世界 こんにちは 🎉 עברית",
    "once upon a time there was a tokenizer that told stories to another tokenizer",
)
BEGIN, END, UNKNOWN, TURN = "<s>", "</s>", "<unk>", "<|turn|>"
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level_bpe() -> Tokenizer:
    """As GPT-2's: no unknown token, nothing put around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def split_byte_level_bpe() -> Tokenizer:
    """As Llama 3's: a pattern splits, then bytes; begin token by the post-processor."""
    tokenizer = byte_level_bpe()
    tokenizer.add_special_tokens([AddedToken(BEGIN, special=True, normalized=False)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    put_around(tokenizer, before=BEGIN)
    return tokenizer


def fallback_bpe(*, legacy: bool = False) -> Tokenizer:
    """As Llama 2's: pieces with "▁", and byte tokens for what they cannot say.

    Args:
        legacy: the space in front comes from a normalizer, as in older files.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[UNKNOWN, BEGIN, END, *BYTE_TOKENS],
        limit_alphabet=60,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # The trainer knows of byte tokens only as special ones; in a model's file they are ordinary.
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [
        token for token in document["added_tokens"] if token["content"] not in BYTE_TOKENS
    ]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    if legacy:
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    put_around(tokenizer, before=BEGIN)
    return tokenizer


def unspaced_bpe() -> Tokenizer:
    """As Gemma's: spaces are "▁", nothing is put in front, runs of spaces are added tokens."""
    document = json.loads(fallback_bpe().to_str())
    document["pre_tokenizer"] = None
    document["normalizer"] = json.loads(normalizers.Replace(" ", "▁").__getstate__())
    document["decoder"]["decoders"].pop()
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens([AddedToken("▁▁▁", normalized=True), AddedToken("\n\n", normalized=False)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5's: an end token behind each text, none in front."""
    pieces = sorted({character for text in TEXTS for character in text if character != " "})
    words = sorted({f"▁{word}" for text in TEXTS for word in text.split()})
    vocabulary = [("<pad>", 0.0), (END, 0.0), (UNKNOWN, -20.0), ("▁", -5.0)]
    vocabulary += [(word, -4.0) for word in words]
    vocabulary += [(piece, -8.0) for piece in pieces if piece not in words]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<pad>", END])
    put_around(tokenizer, after=END)
    return tokenizer


def fallback_unigram() -> Tokenizer:
    """Unigram pieces with byte tokens, as in XLM-R's kin with byte fallback."""
    document = json.loads(unigram().to_str())
    document["model"]["vocab"] += [[token, -30.0] for token in BYTE_TOKENS]
    document["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    return tokenizer


def as_it_is(text: str) -> str:
    """What tokens spell where nothing is put in front."""
    return text


def with_a_space(text: str) -> str:
    """What they spell where a text begins with a space: one that has it keeps it."""
    return text if text.startswith(" ") or not text else f" {text}"


def with_another_space(text: str) -> str:
    """What they spell where a space is put in front of any text."""
    return f" {text}" if text else text


# By name: what makes one, and what its tokens spell for a text.
KINDS: dict[str, tuple[Callable[[], Tokenizer], Callable[[str], str]]] = {
    "byte-level BPE": (byte_level_bpe, as_it_is),
    "split byte-level BPE": (split_byte_level_bpe, as_it_is),
    "BPE with byte fallback": (fallback_bpe, with_a_space),
    "BPE with byte fallback, older file": (lambda: fallback_bpe(legacy=True), with_another_space),
    "BPE without a space in front": (unspaced_bpe, as_it_is),
    "unigram with byte fallback": (fallback_unigram, with_a_space),
}


def put_around(tokenizer: Tokenizer, *, before: str = "", after: str = "") -> None:
    """Have these special tokens put before and behind each text."""
    words = [word for word in (before, "$A", after) if word]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(words),
        special_tokens=[
            (token, tokenizer.token_to_id(token)) for token in (before, after) if token
        ],
    )


def write_folder(folder: Path, tokenizer: Tokenizer | None, **files: dict[str, Any]) -> Path:
    """A model's folder with `tokenizer.json` and JSON files by their names without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def config_of(size: int, **changes: Any) -> PretrainedConfig:
    """A decoder's configuration with `size` rows and, by itself, no ids that mean something."""
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return LlamaConfig(vocab_size=size, **{**ids, **changes})
