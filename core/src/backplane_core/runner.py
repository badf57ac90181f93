"""`ModelRunner`: the engine a backend hands to the worker. It owns its batching.

Token ids in, token ids out: a runner knows nothing of text, HTTP or JSON.
"""

from abc import ABC, abstractmethod

from backplane_core.errors import AdapterError, UnsupportedError
from backplane_core.messages import RunnerInfo, RunnerStats, StepOutput, Submit


class ModelRunner(ABC):
    """A loaded model that serves many requests at a time.

    Threads: every method is called from the worker's engine thread, but `info` and `wake`,
    and `tokenize`, which two other threads may call at any time, and at the same.
    """

    @property
    @abstractmethod
    def info(self) -> RunnerInfo:
        """The model, its limits and capabilities. Constant."""

    @abstractmethod
    def submit(self, request: Submit) -> None:
        """Queue a request that the worker has checked against `info`. Returns at once.

        Raises:
            BackplaneError: the request cannot be served; it leaves no trace in the runner.
        """

    @abstractmethod
    def cancel(self, request_id: str, index: int | None = None) -> None:
        """Forget a request, or one of its sequences; unknown ids are ignored.

        What it held is free when this returns, or after the next `poll` at the latest.
        """

    @abstractmethod
    def poll(self, timeout: float) -> StepOutput:
        """Run or await one iteration and return what is new, possibly of earlier ones.

        Waits at most `timeout` seconds for something to do; `wake` ends the wait. An error of
        one request is in `StepOutput.failures`; an exception means the engine is broken and
        ends the worker.
        """

    @abstractmethod
    def wake(self) -> None:
        """End a waiting `poll` early. Any thread."""

    @abstractmethod
    def stats(self) -> RunnerStats:
        """Gauges now and counters since start."""

    @property
    def num_steps(self) -> int:
        """Counter of `stats`, asked after every `poll`: override it where `stats` costs more."""
        return self.stats().num_steps

    @abstractmethod
    def close(self) -> None:
        """Free the model. No other call follows."""

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """Encode texts; only for a runner whose `info.tokenizer` is remote.

        Any thread, also two at once: short texts do not wait for long ones.

        Raises:
            UnsupportedError: the server has the tokenizer itself.
        """
        raise UnsupportedError(
            f"{self.info.model.backend} gave the server a tokenizer file; "
            f"{len(texts)} texts (add_special={add_special}, parse_special={parse_special}) "
            "are to be encoded there"
        )

    def load_adapter(self, name: str, path: str) -> None:
        """Make an adapter available under `name`.

        Raises:
            AdapterError: the runner has no adapters, or this one cannot be loaded.
        """
        raise AdapterError(f"{self.info.model.backend} loads no adapters ({name} at {path})")

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter.

        Raises:
            AdapterError: no such adapter.
        """
        raise AdapterError(f"{self.info.model.backend} has no adapter {name}")
