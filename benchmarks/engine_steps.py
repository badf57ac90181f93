"""What a step takes, by its tokens and whose cells they see: the engine alone, in this process.

`python -m benchmarks.engine_steps`, in milliseconds, medians. Another build of llama.cpp does the
same work where `LLAMA_CPP_LIB_PATH` and `LD_LIBRARY_PATH` name its folder.
"""

import argparse
import dataclasses
import os
import statistics
import time
from typing import Final

from backplane_llamacpp.loading import load_model
from backplane_llamacpp.native.context import ContextOptions, NativeContext, TokenBatch
from backplane_llamacpp.settings import LlamaCppSettings

from benchmarks.random_model import gguf_of

_MAX_TOKENS: Final = 512
_POSITIONS: Final = 32_768
_SEQUENCES: Final = 64
# One of each at least. Of more rows, a published llama.cpp computes every cell that one of 64
# attends to, which takes minutes.
_SET_UP_TOKENS: Final = 48


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sequences, what the cache has of them, and how many tokens of each a step computes.

    Attributes:
        shared: tokens with which all begin, whose cells they share.
        own: further tokens of each, in cells between those of the others.
        new: tokens of each in the step.
        others: kept sequences of 250 tokens that no query attends to.
    """

    sequences: int
    new: int
    shared: int = 0
    own: int = 0
    others: int = 0


SHAPES: Final = {
    "decode 1, behind 200": Shape(sequences=1, own=200, new=1),
    "decode 1, behind 4,000": Shape(sequences=1, own=4000, new=1),
    "decode 1, behind 200, 10,000 kept": Shape(sequences=1, own=200, new=1, others=40),
    "decode 16, behind 200 each": Shape(sequences=16, own=200, new=1),
    "decode 32, behind 250 each": Shape(sequences=32, own=250, new=1),
    "decode 16, behind 1,180 common, 80 each": Shape(sequences=16, shared=1180, own=80, new=1),
    "prompt of 157": Shape(sequences=1, new=157),
    "prompt of 512": Shape(sequences=1, new=512),
    "4 prompts of 80, behind 1,180 common": Shape(sequences=4, shared=1180, new=80),
    "192 tokens, behind 4,000": Shape(sequences=1, own=4000, new=192),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each shape")
    asked = parser.parse_args()
    context, batch = _made()
    for name, shape in SHAPES.items():
        times_ms = _times_ms(shape, context, batch, asked.seconds)
        print(f"{name:42} {statistics.median(times_ms):8.2f}", flush=True)


def _silent(stage: str, fraction: float | None = None, detail: str = "") -> None:
    """Loading shows nothing: the file is small."""


def _made() -> tuple[NativeContext, TokenBatch]:
    model = load_model(gguf_of("125m-long"), LlamaCppSettings(), _silent)
    threads = os.cpu_count() or 1
    options = ContextOptions(
        n_ctx=_POSITIONS,
        n_batch=_MAX_TOKENS,
        n_ubatch=_MAX_TOKENS,
        n_seq_max=_SEQUENCES + 64,
        n_threads=threads,
        n_threads_batch=threads,
    )
    return NativeContext(model, options), TokenBatch(_MAX_TOKENS)


def _times_ms(
    shape: Shape, context: NativeContext, batch: TokenBatch, seconds: float
) -> list[float]:
    context.clear()
    for other in range(shape.others):
        _decode(context, batch, [(_SEQUENCES + other, position) for position in range(250)])
    for begin in range(0, shape.shared, _MAX_TOKENS):
        end = min(shape.shared, begin + _MAX_TOKENS)
        _decode(context, batch, [(0, position) for position in range(begin, end)])
    for sequence in range(1, shape.sequences):
        context.copy_sequence(0, sequence, shape.shared)
    start = shape.shared + shape.own
    at_once = max(1, _SET_UP_TOKENS // shape.sequences)
    for begin in range(shape.shared, start, at_once):
        places = range(begin, min(start, begin + at_once))
        _decode(context, batch, [(s, place) for place in places for s in range(shape.sequences)])
    step = [(s, start + i) for s in range(shape.sequences) for i in range(shape.new)]
    times_ms: list[float] = []
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s or len(times_ms) < 3:
        started_s = time.perf_counter()
        _decode(context, batch, step)
        times_ms.append(1e3 * (time.perf_counter() - started_s))
        for sequence in range(shape.sequences):
            context.remove(sequence, start)
    return times_ms


def _decode(context: NativeContext, batch: TokenBatch, places: list[tuple[int, int]]) -> None:
    """Compute these sequences' positions; which tokens they are does not matter."""
    num = len(places)
    batch.tokens[:num] = [300 + 7 * place for place in range(num)]
    batch.seq_ids[:num] = [sequence for sequence, _ in places]
    batch.positions[:num] = [position for _, position in places]
    last = dict(places)
    batch.wants_logits[:num] = [last[sequence] == position for sequence, position in places]
    code = context.decode(batch, num)
    if code:
        raise SystemExit(f"llama_decode failed with code {code}")
    context.logits(len(last))  # waits for it


if __name__ == "__main__":
    main()
