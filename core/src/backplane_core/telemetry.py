"""What an engine's steps are measured by: TGI's batch histograms and what they mean here.

Names, bounds and a place to count them. Knows nothing of schedulers, clocks or Prometheus.
"""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate, repeat
from operator import mul
from typing import Literal

from backplane_core.messages import Histogram

Method = Literal["prefill", "decode"]

# TGI's geometric series, multiplied up as there, so that every bound is the same float.
DURATION_BOUNDS = tuple(accumulate(repeat(1.5, 35), mul, initial=0.0001))[1:]
SIZE_BOUNDS = tuple(float(size) for size in range(1, 1025))
SKIPPED_BOUNDS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 16.0, 32.0)

INFERENCE, FORWARD, DECODE, FILTER, CONCAT = (
    f"batch_{part}" for part in ("inference", "forward", "decode", "filter", "concat")
)
NEXT_SIZE = "batch_next_size"
SKIPPED_TOKENS = "request_skipped_tokens"

_BY_METHOD = (INFERENCE, FORWARD, DECODE, FILTER)
# Made up once, as each step asks for them.
_STEP: dict[Method, list[str]] = {
    method: [f"{name}/{method}" for name in (INFERENCE, FORWARD, DECODE)]
    for method in ("prefill", "decode")
}

#: Name → upper bounds of its buckets, inclusive. "batch_inference/prefill" is TGI's
#: `tgi_batch_inference_duration{method="prefill"}`, and so on.
BOUNDS: dict[str, tuple[float, ...]] = {
    **{
        f"{name}/{method}": DURATION_BOUNDS
        for name in _BY_METHOD
        for method in ("prefill", "decode")
    },
    f"{CONCAT}/decode": DURATION_BOUNDS,
    NEXT_SIZE: SIZE_BOUNDS,
    SKIPPED_TOKENS: SKIPPED_BOUNDS,
}


class BatchTelemetry:
    """Counts one runner's steps. One thread.

    TGI joins a prefilled batch into the running one, and filters the running one when requests
    end. Here every step is made anew, of whoever is there; the same names mean, in seconds:

    - inference: a whole step, from asking the scheduler to the last token committed;
    - forward: of that, what the executor computed, without sampling;
    - decode: sampling, and writing down what it gave (`StepResult.sampling_s`, and commit);
    - filter: taking out sequences that ended and freeing their memory, in steps where any did;
    - concat: choosing the step in which new sequences joined running ones.

    The method is "prefill" where the step computed any of a prompt, else "decode". In tokens and
    sequences: next_size is how many sequences left the queue together; skipped_tokens, per
    sequence and step, how many accepted draft tokens came beside the one a step always gives.
    """

    def __init__(self) -> None:
        self._counts = {name: [0] * (len(bounds) + 1) for name, bounds in BOUNDS.items()}
        self._sums = dict.fromkeys(BOUNDS, 0.0)
        self._events: Counter[str] = Counter()

    def observe(self, name: str, value: float, *, times: int = 1) -> None:
        """An observation of the histogram `name`, one of `BOUNDS`, or several equal ones."""
        self._counts[name][bisect_left(BOUNDS[name], value)] += times
        self._sums[name] += value * times

    def succeeded(
        self,
        method: Method,
        *,
        inference_s: float,
        forward_s: float,
        decode_s: float,
        filter_s: float | None = None,
        num_steps: int = 1,
    ) -> None:
        """A step is done, or several in a row, whose times are those of all of them.

        `filter_s` is None where no sequence ended.
        """
        self._events[method] += num_steps
        for name, taken_s in zip(_STEP[method], (inference_s, forward_s, decode_s), strict=True):
            self.observe(name, taken_s / num_steps, times=num_steps)
        if filter_s is not None:
            self.observe(f"{FILTER}/{method}", filter_s)

    def failed(self, method: Method) -> None:
        """A step computed nothing: the device had no memory for it, or it broke."""
        self._events[method] += 1
        self._events[f"{method}_failure"] += 1

    def admitted(self, num_sequences: int) -> None:
        """So many sequences, at least one, left the queue in one step."""
        self.observe(NEXT_SIZE, num_sequences)

    def joined(self, num_sequences: int, *, mixed: bool, concat_s: float) -> None:
        """So many sequences came into the cache beside running ones.

        `mixed` says that the step also decodes ("chunking" in TGI's words), not that decodes
        wait for it ("backpressure").
        """
        self._events["concat_chunking" if mixed else "concat_backpressure"] += num_sequences
        self.observe(f"{CONCAT}/decode", concat_s)

    def produced(self, num_tokens: int, *, times: int = 1) -> None:
        """In one step a sequence, or several, got so many tokens each, at least one."""
        self.observe(SKIPPED_TOKENS, num_tokens - 1, times=times)

    @property
    def events(self) -> dict[str, int]:
        """`RunnerStats.batches`: steps by method, failed ones included, and the other counts."""
        return dict(self._events)

    @property
    def histograms(self) -> dict[str, Histogram]:
        """`RunnerStats.histograms`; those without any observation are left out."""
        return {
            name: Histogram(counts=tuple(counts), sum=self._sums[name])
            for name, counts in self._counts.items()
            if any(counts)
        }
