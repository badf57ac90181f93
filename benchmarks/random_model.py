"""Models of a wanted shape and random weights: as fast as trained ones; their answers are noise.

`python -m benchmarks.random_model SHAPE…` in the project's folder makes what the tables of
docs/performance.md were measured on, as GGUF in Q8_0 or `--type`, and prints where it is.
"""

import argparse
import dataclasses
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from backplane_launcher.bench.prompts import WORDS

from benchmarks.peers.places import kept
from tests.llamacpp import tiny_gguf

_SYMBOLS: Final = '0123456789{}[]":,._-'
_LETTERS: Final = "etaoinshrdlucmfwypvbgkjqxz"
_SPACE: Final = "Ġ"
_OUTWEIGHING: Final = 64


@dataclasses.dataclass(frozen=True)
class Model:
    """A shape.

    `words_alone`: tokens are whole words, which come back from their text as such, and each word is
    answered by the next: what is said is the same whoever computes it, in whichever batch.
    `known`: such words that there are besides the random ones.
    """

    shape: tiny_gguf.Shape
    vocabulary: int
    words_alone: bool = False
    known: tuple[str, ...] = ()


_TABLE: Final = tiny_gguf.Shape(
    context=2048, width=768, layers=12, heads=12, kv_heads=4, feed_forward=2048
)
MODELS: Final = {
    # 125 million parameters.
    "125m": Model(_TABLE, 32_000),
    "125m-long": Model(dataclasses.replace(_TABLE, context=8192), 32_000),
    "125m-chat": Model(dataclasses.replace(_TABLE, context=4096), 32_000, words_alone=True),
    # The load generator's own words are tokens: a prompt of so many words has so many tokens, in a
    # server that takes no ids as well. And no answer ends early, even where nobody may forbid it.
    "125m-text": Model(_TABLE, 32_000, words_alone=True, known=WORDS),
    "125m-128k": Model(_TABLE, 128_000),
    # One and three million: where the front end takes more than the engine.
    "1m": Model(
        tiny_gguf.Shape(context=2048, width=128, layers=2, heads=2, kv_heads=1, feed_forward=384),
        4096,
    ),
    "3m": Model(
        tiny_gguf.Shape(context=2048, width=192, layers=4, heads=3, kv_heads=1, feed_forward=512),
        4096,
    ),
}


def words(num_words: int, known: set[str], *, words_alone: bool = False) -> list[str]:
    """Random tokens of two to nine characters, none of them known."""
    source = random.Random(1)  # noqa: S311 -- the same every time
    letters = _LETTERS if words_alone else _LETTERS + _SYMBOLS
    made: dict[str, None] = {}
    while len(made) < num_words:
        body = "".join(source.choices(letters, k=source.randint(2, 8)))
        word = _SPACE * (1 if words_alone else source.randint(0, 1)) + body
        if word not in known:
            made[word] = None
    return list(made)


def more_tokens(model: Model) -> list[str]:
    """What a model has beside the bytes and special tokens."""
    known = set(tiny_gguf.bpe_vocabulary()[0])
    # As a prompt's first word, and behind a space.
    spoken = [token for word in model.known for token in (word, _SPACE + word)]
    added = [token for token in dict.fromkeys(spoken) if token not in known]
    known.update(added)
    num_random = model.vocabulary - len(known)
    return [*added, *words(num_random, known, words_alone=model.words_alone)]


def tensors_of(model: Model) -> dict[str, npt.NDArray[np.float32]]:
    """All weights by their GGUF names."""
    tensors = tiny_gguf.tensors_of(model.shape, model.vocabulary)
    if model.words_alone:
        first = len(tiny_gguf.bpe_vocabulary()[0])
        nexts = first + (np.arange(model.vocabulary) + 1 - first) % (model.vocabulary - first)
        embeddings, scores = tensors["token_embd.weight"], tensors["output.weight"]
        # What the layers add is small beside the token itself, by which the next one is chosen.
        scores[:] = 0
        np.add.at(scores, nexts, embeddings)
        embeddings *= _OUTWEIGHING
    return tensors


def write_gguf(model: Model, path: Path) -> None:
    """Write it in float32."""
    tiny_gguf.write(
        path,
        shape=model.shape,
        more_tokens=more_tokens(model),
        tensors=tensors_of(model),
        # Whole words are taken as they stand, before any merge.
        splits="llama-bpe" if model.words_alone else "gpt-2",
    )


def gguf_of(name: str, type_: str = "q8_0") -> Path:
    """A model's file with its weights in a type; made if it is not there."""
    model, path = MODELS[name], kept("models", f"{name}-{type_}.gguf")
    if not path.exists():
        print(f"making {path}", file=sys.stderr)
        plain, quantized = path.with_name(f"{name}.tmp.gguf"), path.with_suffix(".tmp")
        write_gguf(model, plain)
        backplane = Path(sys.executable).with_name("backplane")
        command = [str(backplane), "quantize", str(plain), str(quantized), "--type", type_]
        subprocess.run(command, check=True, stdout=sys.stderr)
        plain.unlink()
        quantized.rename(path)
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="+", choices=MODELS)
    parser.add_argument("--type", choices=("q8_0", "bf16"), default="q8_0", help="of the weights")
    asked = parser.parse_args()
    for name in asked.shapes:
        print(gguf_of(name, asked.type))


if __name__ == "__main__":
    main()
