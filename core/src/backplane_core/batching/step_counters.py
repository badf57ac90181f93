"""`StepCounters`: what a runner has done since it started."""

from backplane_core.batching.executor import ScheduledBatch
from backplane_core.batching.sequence import Sequence, SequenceState
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

    def produced(self, num_tokens: int) -> None:
        """A sequence gained so many tokens in a step; those beyond one were drafted."""
        self.num_generated_tokens += num_tokens
        if num_tokens:
            self.num_skipped_tokens += num_tokens - 1
            self.telemetry.produced(num_tokens)

    def count(self, batch: ScheduledBatch, duration_s: float) -> None:
        """A batch was computed. Its time is split by tokens."""
        num_decodes = len(batch.sequences)
        num_prefilled = 0
        for scheduled in reversed(batch.sequences):
            if scheduled.sequence.state is SequenceState.DECODE:
                break  # decodes come first, with one token each
            num_decodes -= 1
            num_prefilled += len(scheduled.token_ids)
        self.num_steps += 1
        self.batch_tokens = num_decodes + num_prefilled
        self.batch_sequences = len(batch.sequences)
        self.num_prefilled_tokens += num_prefilled
        prefill_s = duration_s * num_prefilled / self.batch_tokens
        self.prefill_seconds += prefill_s
        self.decode_seconds += duration_s - prefill_s


def method_of(batch: ScheduledBatch) -> Method:
    """What a batch that is not yet committed counts as: prefills come last."""
    last = batch.sequences[-1].sequence
    return "prefill" if last.state is SequenceState.PREFILL else "decode"
