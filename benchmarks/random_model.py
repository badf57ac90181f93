"""Writes a Llama of real size and random weights: 125 M parameters, a vocabulary of 32,000.

`python -m benchmarks.random_model FILE.gguf` in the project's folder; `backplane quantize FILE.gguf
SMALLER.gguf --type q8_0` then makes it what the tables of docs/performance.md were measured on. Its
speed is that of a trained one; its answers are noise.
"""

import argparse
import random
from pathlib import Path

from tests.llamacpp import tiny_gguf

_LETTERS = 'etaoinshrdlucmfwypvbgkjqxz0123456789{}[]":,._-'
_SPACE = "Ġ"


def words(num_words: int, known: set[str]) -> list[str]:
    """Random tokens of two to nine characters, none of them known."""
    source = random.Random(1)  # noqa: S311 -- the same every time
    made: dict[str, None] = {}
    while len(made) < num_words:
        letters = source.choices(_LETTERS, k=source.randint(2, 8))
        word = _SPACE * source.randint(0, 1) + "".join(letters)
        if word not in known:
            made[word] = None
    return list(made)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--vocabulary", type=int, default=32_000, help="tokens")
    asked = parser.parse_args()
    known = set(tiny_gguf.bpe_vocabulary()[0])
    shape = tiny_gguf.Shape(
        context=2048, width=768, layers=12, heads=12, kv_heads=4, feed_forward=2048
    )
    more = words(asked.vocabulary - len(known), known)
    tiny_gguf.write(asked.file, shape=shape, more_tokens=more)


if __name__ == "__main__":
    main()
