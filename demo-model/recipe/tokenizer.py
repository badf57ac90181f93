"""The tokenizer: byte-level BPE with GPT-2's split, one token per digit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from recipe.chat_format import CHAT_TEMPLATE, END_OF_TEXT, PADDING, SPECIAL_TOKENS, TURN_END

VOCABULARY_SIZE = 3072
MAX_POSITIONS = 2048
_CONTROL = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


def _pieces(texts: Iterator[str]) -> Iterator[str]:
    """The texts without special tokens, cut at digits so that no merge ever holds one."""
    for text in texts:
        for piece in re.split(r"\d", _CONTROL.sub("\n", text)):
            if piece:
                yield piece


def train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A tokenizer of exactly VOCABULARY_SIZE tokens, special tokens first.

    Raises:
        ValueError: the texts are too few to fill the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(texts), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise ValueError(
            f"the text fills only {tokenizer.get_vocab_size()} of {VOCABULARY_SIZE} tokens; "
            "write more text or lower VOCABULARY_SIZE"
        )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and the tokenizer_config.json that AutoTokenizer reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": END_OF_TEXT,
        "eos_token": TURN_END,
        "pad_token": PADDING,
        "unk_token": None,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
