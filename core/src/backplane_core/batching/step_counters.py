"""`StepCounters`: what a runner has done since it started."""

from backplane_core.batching.executor import ScheduledBatch
from backplane_core.batching.sequence import Sequence
from backplane_core.telemetry import BatchTelemetry, Method


class StepCounters:
    """Counters behind `RunnerStats`; they never fall. Sequences, not requests, are counted."""

    def __init__(self) -> None:
        self.batch_tokens = 0
        self.batch_sequences = 0
        self.num_steps = 0
        self.num_prompt_tokens = 0
        self.num_prefilled_tokens = 0
        self.num_cached_tokens = 0
        self.num_generated_tokens = 0
        self.num_finished = 0
        self.num_cancelled = 0
        self.num_failed = 0
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0
        self.num_skipped_tokens = 0
        self.telemetry = BatchTelemetry()

    def started(self, sequence: Sequence) -> None:
        """A sequence is in the cache for the first time."""
        self.num_prompt_tokens += sequence.num_prompt_tokens
        self.num_cached_tokens += sequence.num_cached_tokens

    def produced(self, num_tokens: int, *, times: int = 1, num_steps: int = 1) -> None:
        """A sequence, or several, gained so many tokens.

        In several steps it is one each; in one all beyond the first were drafted.
        """
        if num_steps > 1:
            num_tokens, times = 1, times * num_tokens
        if num_tokens and times:
            self.num_generated_tokens += num_tokens * times
            self.num_skipped_tokens += (num_tokens - 1) * times
            self.telemetry.produced(num_tokens, times=times)

    def count(self, batch: ScheduledBatch, duration_s: float, num_steps: int = 1) -> None:
        """A batch was computed, in so many steps. Its time is split by tokens."""
        num_decodes = batch.num_decodes
        num_prefilled = batch.num_prefill_tokens
        self.num_steps += num_steps
        self.batch_tokens = num_decodes + num_prefilled
        self.batch_sequences = len(batch.sequences)
        self.num_prefilled_tokens += num_prefilled
        prefill_s = duration_s * num_prefilled / self.batch_tokens
        self.prefill_seconds += prefill_s
        self.decode_seconds += duration_s - prefill_s


def method_of(batch: ScheduledBatch) -> Method:
    """What a batch counts as: prefills come last."""
    return "decode" if batch.num_decodes == len(batch.sequences) else "prefill"
