"""What a step of the torch backend takes, by its streams: scheduling, model and sampling, in this
process.

`python -m benchmarks.torch_steps`, milliseconds and tokens a second, medians; greedy, prompts of
random tokens. `--profile STREAMS` shows torch's operations in decode steps instead.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.messages import Submit, TokenSegment
from backplane_core.runner import ModelRunner
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_torch.backend import TorchBackend

from benchmarks.hf_model import hf_of

_PROMPT: Final = 157
_STEPS: Final = 80
_WARMUPS: Final = 4
_PREFILLS: Final = (157, 512)
_RANDOM: Final = np.random.default_rng(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="125m", help="of benchmarks.hf_model, or a folder")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--quantize", help="int8, for instance")
    parser.add_argument("--dtype", help="float32, for instance")
    parser.add_argument("--steps", type=int, default=_STEPS, help="of decoding, for each number")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--profile", type=int, metavar="STREAMS")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    runner = _runner(asked)
    if asked.profile:
        _profile(runner, asked.profile, asked.steps)
    else:
        _measure(runner, asked.streams, asked.steps)
    runner.close()


def _runner(asked: argparse.Namespace) -> ModelRunner:
    folder = Path(asked.model)
    if not folder.is_dir():
        folder = hf_of(asked.model)
    spec = RunnerSpec(
        model=ModelSource(
            model_id=folder.name,
            path=str(folder),
            files=tuple(path.name for path in folder.iterdir()),
        ),
        engine=EngineSettings(quantize=asked.quantize, dtype=asked.dtype),
        settings={"threads": asked.threads},
    )
    return TorchBackend().create_runner(spec, _silent)


def _silent(stage: str, fraction: float | None = None, detail: str = "") -> None:
    """Loading shows nothing: the files are small."""


def _measure(runner: ModelRunner, all_streams: list[int], steps: int) -> None:
    for streams in all_streams:
        times_ms = list(_decode_steps_ms(runner, streams, steps))
        median_ms = statistics.median(times_ms)
        print(f"decode {streams:3} {median_ms:8.2f} ms {1e3 * streams / median_ms:8.1f} tokens/s")
    for length in _PREFILLS:
        median_ms = statistics.median(_prefill_ms(runner, length) for _ in range(5))
        print(f"prompt {length:3} {median_ms:8.2f} ms {1e3 * length / median_ms:8.1f} tokens/s")


def _decode_steps_ms(runner: ModelRunner, streams: int, steps: int) -> Iterator[float]:
    """Of steps in which every stream decodes; contexts grow from the prompt's length on."""
    for stream in range(streams):
        _submit(runner, f"decode-{stream}", _PROMPT, steps + _WARMUPS + 16 * streams)
    begun: set[str] = set()
    while len(begun) < streams:
        begun.update(delta.request_id for delta in runner.poll(1.0).deltas)
    for _ in range(_WARMUPS):
        runner.poll(1.0)
    for _ in range(steps):
        started_s = time.perf_counter()
        output = runner.poll(1.0)
        yield 1e3 * (time.perf_counter() - started_s)
        if len(output.deltas) != streams:
            raise SystemExit(f"{len(output.deltas)} of {streams} streams decoded in a step")
    for stream in range(streams):
        runner.cancel(f"decode-{stream}")
    runner.poll(0.0)


def _prefill_ms(runner: ModelRunner, length: int) -> float:
    started_s = time.perf_counter()
    _submit(runner, "prompt", length, 1)
    while not runner.poll(1.0).deltas:
        pass
    return 1e3 * (time.perf_counter() - started_s)


def _submit(runner: ModelRunner, request_id: str, length: int, new: int) -> None:
    runner.submit(
        Submit(
            request_id=request_id,
            prompt=[TokenSegment(token_ids=_RANDOM.integers(300, 20_000, length).tolist())],
            sampling=SamplingParams(temperature=0.0),
            stopping=StoppingParams(max_new_tokens=new, ignore_eos=True),
        )
    )


def _profile(runner: ModelRunner, streams: int, steps: int) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        times_ms = list(_decode_steps_ms(runner, streams, steps))
    table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- torch leaves it open
    print(str(table))  # pyright: ignore[reportUnknownArgumentType] -- likewise
    print(f"decode {streams:3} {statistics.median(times_ms):8.2f} ms while profiled")


if __name__ == "__main__":
    main()
