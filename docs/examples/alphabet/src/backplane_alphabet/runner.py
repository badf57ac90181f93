"""The engine: an `Executor` that knows which letter comes next. `BatchingRunner` does the rest."""

from backplane_core.backend import RunnerSpec
from backplane_core.batching.executor import (
    Executor,
    ExecutorTraits,
    MemoryLayout,
    SampledTokens,
    ScheduledBatch,
    StepResult,
)
from backplane_core.batching.runner import BatchingRunner
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.messages import ModelInfo, RunnerInfo
from backplane_core.runner import ModelRunner
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary

LETTERS = b"abcdefghijklmnopqrstuvwxyz"
END = len(LETTERS)


class AlphabetExecutor(Executor):
    """Computes letters. Eight sequences at a time, each in a slot of its own."""

    def __init__(self, stride: int, max_tokens: int) -> None:
        self._stride = stride
        self._traits = ExecutorTraits(
            layout=MemoryLayout.SLOTS,
            max_sequences=8,
            cache_tokens=8 * max_tokens,
            slot_tokens=max_tokens,
            max_batch_tokens=max_tokens,
            shareable=False,
        )

    @property
    def traits(self) -> ExecutorTraits:
        """What the scheduler must respect."""
        return self._traits

    def execute(self, batch: ScheduledBatch) -> StepResult:
        """One step for every sequence of the batch: the letter after its newest token."""
        return StepResult(
            [
                SampledTokens([self._next(scheduled.token_ids[-1])]) if scheduled.sample else None
                for scheduled in batch.sequences
            ]
        )

    def _next(self, token_id: int) -> int:
        return min(token_id + self._stride, END)

    def share_prefix(self, source: int, target: int, num_tokens: int) -> None:
        """Never called: the traits say that slots share nothing."""
        raise NotImplementedError(f"slot {source} shares no {num_tokens} tokens with {target}")

    def trim(self, seq_id: int, num_tokens: int) -> None:
        """There is no cache to cut."""

    def release(self, seq_id: int) -> None:
        """There is no cache to free."""


class AlphabetRunner(BatchingRunner):
    """Adds the tokenizer: one id per letter, and 26 for the end."""

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """Letters become their places; whatever else the text holds is left out."""
        del add_special, parse_special
        return [
            [LETTERS.index(byte) for byte in text.lower().encode() if byte in LETTERS]
            for text in texts
        ]


def load(spec: RunnerSpec, stride: int) -> ModelRunner:
    """A runner for the settings that the launcher hands down."""
    max_tokens = spec.engine.max_total_tokens or 256
    executor = AlphabetExecutor(stride, max_tokens)
    info = RunnerInfo(
        model=ModelInfo(
            model_id=spec.model.model_id,
            backend="alphabet",
            backend_version="0.1.0",
            device="cpu",
        ),
        limits=Limits(
            max_total_tokens=max_tokens,
            max_input_tokens=max_tokens - 1,
            max_batch_tokens=executor.traits.max_batch_tokens,
            max_sequences=executor.traits.max_sequences,
            max_waiting_requests=spec.engine.max_concurrent_requests,
            cache_tokens=executor.traits.cache_tokens,
        ),
        capabilities=Capabilities(),
        vocabulary=Vocabulary(
            tokens=[*(bytes([letter]) for letter in LETTERS), b"<end>"],
            special_token_ids=(END,),
            eos_token_ids=(END,),
        ),
        tokenizer=RemoteTokenizer(),
    )
    return AlphabetRunner(executor, info)
