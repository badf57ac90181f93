"""What a step's sampling costs by backend: microseconds a row, apart from the model.

`python benchmarks/sampling.py` prints a table of parameter sets by number of rows, for flat logits
(random weights: the worst case) and for peaked ones (a trained model's). No model is needed.
`--samplers compiled numpy torch` sets llama.cpp's two and the torch engine's side by side.
"""

import argparse
import functools
import itertools
import os
import statistics
import time
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from backplane_core.batching.executor import ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.messages import Grammar, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_llamacpp.compiled_sampler import CompiledSampler
from backplane_llamacpp.native import rows as native_rows
from backplane_llamacpp.numpy_sampler import NumpySampler
from backplane_llamacpp.sampler import Logits, Sampler

NUM_CORES = len(os.sched_getaffinity(0))
PROMPT_TOKENS, OUTPUT_TOKENS = 157, 48
REPEATS = 9
SAMPLERS: Final = ("compiled", "numpy", "torch")
KINDS: Final = ("flat", "peaked")
ALL: dict[str, object] = {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1}
PENALTIES: dict[str, object] = {
    "temperature": 0.8,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.2,
    "presence_penalty": 0.1,
}
# Parameters, top_logprobs, and the share of the vocabulary that a grammar allows.
CASES: dict[str, tuple[dict[str, object], int | None, float | None]] = {
    "greedy": ({"temperature": 0.0}, None, None),
    "greedy, penalty": ({"temperature": 0.0, "repetition_penalty": 1.1}, None, None),
    "greedy, logprobs 5": ({"temperature": 0.0}, 5, None),
    "plain draw": ({}, None, None),
    "top-k 40": ({"temperature": 0.8, "top_k": 40}, None, None),
    "top-p 0.95": ({"temperature": 0.8, "top_p": 0.95}, None, None),
    "top-p, penalty": (ALL, None, None),
    "all penalties": (PENALTIES, None, None),
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


class Contender(Protocol):
    """A backend's sampling of whole steps."""

    def rows(self, logits: Logits) -> Any:
        """Its own copy of a step's logits, as its model gives them."""
        ...

    def sample(self, scheduled: list[ScheduledSequence], rows: Any) -> object:
        """The step's tokens."""
        ...


class LlamaCpp:
    """The llama.cpp backend's, compiled or numpy's."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def rows(self, logits: Logits) -> Logits:
        """These, which it leaves as they were."""
        return logits

    def sample(self, scheduled: list[ScheduledSequence], rows: Logits) -> object:
        """The step's tokens."""
        return self._sampler.tokens(scheduled, rows, list(range(len(rows))))


class Torch:
    """The torch engine's."""

    def __init__(self, num_tokens: int, threads: int, dtype: str) -> None:
        # Only where it is asked for: llama.cpp's are measured where there is no torch, too.
        import torch  # noqa: PLC0415 -- said above
        from backplane_torch.engine.sampling.batch_sampler import (  # noqa: PLC0415 -- likewise
            BatchSampler,
        )

        torch.set_num_threads(threads)
        self._tensor = functools.partial(torch.tensor, dtype=getattr(torch, dtype))
        self._sampler = BatchSampler(num_tokens, [], torch.device("cpu"))

    def rows(self, logits: Logits) -> Any:
        """A tensor, to which it writes."""
        return self._tensor(logits)

    def sample(self, scheduled: list[ScheduledSequence], rows: Any) -> object:
        """The step's tokens."""
        return self._sampler.sample(scheduled, rows)


def contender(sampler: str, num_tokens: int, threads: int, dtype: str) -> Contender:
    """The one of that name."""
    if sampler == "torch":
        return Torch(num_tokens, threads, dtype)
    if sampler == "numpy":
        return LlamaCpp(NumpySampler(num_tokens, []))
    if (library := native_rows.load()) is None:
        raise SystemExit("sample.c is not compiled: there are --samplers numpy torch")
    return LlamaCpp(CompiledSampler(library, num_tokens, [], threads))


def microseconds(sampling: Contender, name: str, kind: str, shape: tuple[int, int]) -> float:
    """Of one row: the median over steps, each of which brings every sequence a token."""
    scheduled, logits = sequences(name, *shape), logits_of(kind, *shape)
    new_tokens = np.random.default_rng(0).integers(0, shape[1], REPEATS + 1).tolist()
    times: list[float] = []
    for token_id in new_tokens:
        rows = sampling.rows(logits)
        started = time.perf_counter()
        sampling.sample(scheduled, rows)
        times.append(time.perf_counter() - started)
        for one in scheduled:
            one.sequence.token_ids.append(token_id)
    return statistics.median(times[1:]) * 1e6 / shape[0]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[NUM_CORES])
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name has this in it")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=["compiled"])
    parser.add_argument("--logits", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--dtype", default="float32", help="of the logits that torch is given")
    args = parser.parse_args()
    names = [name for name in CASES if any(part in name for part in args.only)]
    for kind, threads in itertools.product(args.logits, args.threads):
        contenders = [
            contender(sampler, args.vocabulary, threads, args.dtype) for sampler in args.samplers
        ]
        print(f"\n{kind} logits, {args.vocabulary} tokens, threads: {threads}; µs a row")
        print(f"{'':36}" + "".join(f"{num:>7} rows" for num in args.rows))
        for name, (label, one) in itertools.product(
            names, zip(args.samplers, contenders, strict=True)
        ):
            taken = [
                microseconds(one, name, kind, (num_rows, args.vocabulary)) for num_rows in args.rows
            ]
            title = name if len(contenders) == 1 else f"{name}, {label}"
            print(f"{title:36}" + "".join(f"{each:12.0f}" for each in taken), flush=True)


if __name__ == "__main__":
    main()
