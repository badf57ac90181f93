"""What a step's sampling costs in the llama.cpp backend: microseconds a row, apart from the model.

`python benchmarks/sampling.py` prints a table of parameter sets by number of rows, for flat logits
(random weights: the worst case) and for peaked ones (a trained model's). No model is needed.
"""

import argparse
import os
import statistics
import time

import msgspec
import numpy as np
import numpy.typing as npt
from backplane_core.batching.executor import ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.messages import Grammar, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_llamacpp.step_sampler import StepSampler

NUM_CORES = len(os.sched_getaffinity(0))
PROMPT_TOKENS, OUTPUT_TOKENS = 157, 48
REPEATS = 9
ALL: dict[str, object] = {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1}
# Parameters, top_logprobs, and the share of the vocabulary that a grammar allows.
CASES: dict[str, tuple[dict[str, object], int | None, float | None]] = {
    "greedy": ({"temperature": 0.0}, None, None),
    "greedy, penalty": ({"temperature": 0.0, "repetition_penalty": 1.1}, None, None),
    "greedy, logprobs 5": ({"temperature": 0.0}, 5, None),
    "plain draw": ({}, None, None),
    "top-k 40": ({"temperature": 0.8, "top_k": 40}, None, None),
    "top-p 0.95": ({"temperature": 0.8, "top_p": 0.95}, None, None),
    "top-p, penalty": (ALL, None, None),
    "top-p, penalty, logprobs 5": (ALL, 5, None),
    "min-p 0.05": ({"min_p": 0.05}, None, None),
    "typical-p 0.9": ({"typical_p": 0.9}, None, None),
    "watermark": ({"watermark": Watermark()}, None, None),
    "all, grammar of 20 tokens": (ALL, 5, 20 / 128_000),
    "all, grammar of most": (ALL, 5, 0.98),
    "greedy, grammar of most": ({"temperature": 0.0}, None, 0.98),
}


class Masked:
    """In a guide's place: one mask, there at once."""

    def __init__(self, bits: npt.NDArray[np.uint8]) -> None:
        self._bits = bits

    def allowed(self) -> memoryview:
        """The mask."""
        return self._bits.data


def sequences(name: str, num_rows: int, n_vocab: int) -> list[ScheduledSequence]:
    """A step's, each with a prompt and an output of its own."""
    params, top_logprobs, allowed = CASES[name]
    random = np.random.default_rng(num_rows)
    made: list[ScheduledSequence] = []
    for seq_id in range(num_rows):
        tokens = random.integers(0, n_vocab, PROMPT_TOKENS + OUTPUT_TOKENS).tolist()
        request = Submit(
            request_id=str(seq_id),
            prompt=[TokenSegment(token_ids=tokens[:PROMPT_TOKENS])],
            sampling=msgspec.convert(params | {"seed": seq_id}, SamplingParams),
            stopping=StoppingParams(max_new_tokens=1000),
            top_logprobs=top_logprobs,
            grammar=None if allowed is None else Grammar(kind="regex", source=".*"),
        )
        sequence = Sequence(
            request=request,
            index=0,
            token_ids=tokens,
            num_prompt_tokens=PROMPT_TOKENS,
            eos_token_ids=frozenset({2}),
        )
        if allowed is not None:
            # In runs, as a vocabulary sorted by frequency has neither all nor none.
            bits = np.packbits(np.repeat(random.random(n_vocab // 16 + 1) < allowed, 16)[:n_vocab])
            if allowed < 0.5:
                bits = np.packbits(np.isin(np.arange(n_vocab), random.integers(0, n_vocab, 20)))
            sequence.guide = Masked(bits)  # type: ignore[assignment] -- a mask is all that is asked
        made.append(
            ScheduledSequence(
                seq_id=seq_id,
                sequence=sequence,
                start=len(tokens) - 1,
                token_ids=tokens[-1:],
                sample=True,
            )
        )
    return made


def logits_of(kind: str, num_rows: int, n_vocab: int) -> npt.NDArray[np.float32]:
    """Flat ones, as of random weights, or such as a trained model's: few high, a long tail."""
    random = np.random.default_rng(7)
    flat = random.normal(0, 1, (num_rows, n_vocab))
    if kind == "peaked":
        flat = 3 * flat + 4 * random.standard_exponential((num_rows, n_vocab))
    return flat.astype(np.float32)


def microseconds(sampler: StepSampler, name: str, kind: str, shape: tuple[int, int]) -> float:
    """Of one row: the median over steps."""
    scheduled, logits = sequences(name, *shape), logits_of(kind, *shape)
    sampler.sample(scheduled, logits)
    times: list[float] = []
    while len(times) < REPEATS:
        started = time.perf_counter()
        sampler.sample(scheduled, logits)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6 / shape[0]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[NUM_CORES])
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    args = parser.parse_args()
    for kind in ("flat", "peaked"):
        for threads in args.threads:
            sampler = StepSampler(args.vocabulary, [], threads)
            print(f"\n{kind} logits, {args.vocabulary} tokens, threads: {threads}; µs a row")
            print(f"{'':30}" + "".join(f"{num:>7} rows" for num in args.rows))
            for name in (name for name in CASES if args.only in name):
                row = f"{name:30}"
                for num_rows in args.rows:
                    taken = microseconds(sampler, name, kind, (num_rows, args.vocabulary))
                    row += f"{taken:12.0f}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
