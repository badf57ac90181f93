"""A request that a worker has accepted: its deltas decoded, its times taken, its end enforced."""

import asyncio
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from backplane_core.errors import BackplaneError
from backplane_core.messages import PromptLogprobs, SequenceDelta, SequenceTiming
from backplane_core.request_stream import StreamListener

from backplane_server.errors import IncompleteGenerationError
from backplane_server.services.deadline import overdue
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.served_model import ServedModel
from backplane_server.text.choice_decoder import ChoiceDecoder, ChoiceEvent, Finish

EventSink = Callable[[ChoiceEvent], None]
EndSink = Callable[[Exception | None], None]


class DeltaStream(Protocol):
    """The part of a worker's request stream that is used here."""

    def listen(self, listener: StreamListener | None) -> None:
        """Tell `listener` what waits and what comes; None holds it back."""
        ...

    def cancel(self, index: int | None = None) -> None:
        """Stop the request or one of its sequences."""
        ...

    def abandon(self, error: BackplaneError) -> None:
        """Stop the request; who listens is told why."""
        ...


def _no_gaps() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class GenerationTimes:
    """Moments of `time.monotonic()`, and what the worker measured. Seconds.

    Attributes:
        arrived, submitted, first_token, finished: of the request, its acceptance, its first
            token here, its last.
        queue_s, prefill_s: from acceptance to the first step; from there to the first token.
        num_cached_tokens: prompt tokens that the worker did not compute again.
        token_gaps_s: for each token but a sequence's first, the time since the one before;
            tokens that come together share theirs.
    """

    arrived: float
    submitted: float
    queue_s: float = 0.0
    prefill_s: float = 0.0
    num_cached_tokens: int = 0
    first_token: float | None = None
    finished: float | None = None
    token_gaps_s: "array[float]" = field(default_factory=_no_gaps)

    @property
    def total_s(self) -> float:
        """From arrival to the end, or to now."""
        return (self.finished or time.monotonic()) - self.arrived

    @property
    def validation_s(self) -> float:
        """From arrival to the worker's acceptance."""
        return self.submitted - self.arrived

    @property
    def inference_s(self) -> float:
        """From the first step of the engine to the end."""
        return max(0.0, self.total_s - self.validation_s - self.queue_s)


@dataclass(frozen=True, slots=True)
class PromptToken:
    """A token of the prompt, its logprob (the first has none) and the likeliest in its place."""

    token_id: int
    logprob: float | None
    top_logprobs: list[tuple[int, float]]


class Generation:
    """An accepted request. `follow` it once; `cancel` in every case.

    Attributes:
        seed: the one in force; None where nothing is drawn.
        max_new_tokens: the limit in force.
        choices: a decoder for each sequence, by index.
        prompt_tokens: those of the prompt with their logprobs, where asked for; all are there
            before the first event.
    """

    def __init__(
        self,
        request: GenerationRequest,
        model: ServedModel,
        stream: DeltaStream,
        *,
        prompt_token_ids: list[int],
        max_new_tokens: int,
        seed: int | None,
        times: GenerationTimes,
        timeout_s: float | None = None,
        length_first: bool = False,
        worker_request_id: str = "",
    ) -> None:
        self.request: Final = request
        self.model: Final = model
        self.prompt_token_ids: Final = prompt_token_ids
        self.max_new_tokens: Final = max_new_tokens
        self.seed: Final = seed
        self.times: Final = times
        self.worker_request_id: Final = worker_request_id
        self.choices: Final = [
            ChoiceDecoder(
                model.table,
                index,
                request.stops,
                keep_stop=request.keep_stop,
                shown_special_ids=model.table.ids_shown(
                    request.special_literals, everything=request.show_special
                ),
                length_at=max_new_tokens if length_first else None,
            )
            for index in range(request.num_sequences)
        ]
        self.prompt_tokens: Final[list[PromptToken]] = []
        self._stream = stream
        self._told = self.choices
        self._num_running = request.num_sequences
        self._sink: EventSink | None = None
        self._on_end: EndSink | None = None
        self._last_tokens = [0.0] * request.num_sequences
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            left_s = times.arrived + timeout_s - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, left_s), stream.abandon, overdue(timeout_s)
            )

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt_token_ids)

    @property
    def num_new_tokens(self) -> int:
        """Tokens of the sequences that are told so far, up to their ends."""
        return sum(choice.num_tokens for choice in self._told)

    @property
    def finished(self) -> bool:
        """Whether every sequence has come to its end."""
        return not self._num_running

    def tell_only(self, *indexes: int) -> None:
        """The answer is these sequences of several, or none, so what is counted is these."""
        self._told = [self.choices[index] for index in indexes]

    def follow(self, sink: EventSink, on_end: EndSink) -> None:
        """From `resume` on, tell events as they come, then the end once.

        Both are called within the callback that read the worker's bytes.

        Args:
            sink: takes each event. What it raises is the end.
            on_end: takes None after every sequence's end; or the `BackplaneError` that ended the
                request after it was accepted, `IncompleteGenerationError` where the worker
                stopped short of an end.
        """
        self._sink = sink
        self._on_end = on_end

    def resume(self) -> None:
        """Tell what has come and what comes."""
        if self._on_end is not None:
            self._stream.listen(self)

    def hold(self) -> None:
        """Tell nothing until `resume`. What comes meanwhile waits as the worker sent it."""
        self._stream.listen(None)

    def take(self, delta: SequenceDelta) -> None:
        """For the worker's stream: new tokens."""
        choice = self.choices[delta.index]
        if choice.finish is not None:
            return
        try:
            now = time.monotonic()
            if delta.token_ids:
                self._take_time(delta.index, len(delta.token_ids), now)
            event = choice.push(delta)
            if delta.timing is not None and delta.index == 0:
                self._take_timing(delta.timing)
            if event.finish is not None:
                self._end_sequence(event.finish, delta, now)
            if self._sink is not None and (event.tokens or event.tail or event.finish):
                self._sink(event)
            if not self._num_running:
                self._tell_end(None)
        except Exception as error:  # noqa: BLE001 - told to who follows; a connection is read here
            self._tell_end(error)

    def take_prompt(self, chunk: PromptLogprobs) -> None:
        """For the worker's stream: logprobs of the prompt."""
        tops = chunk.top_logprobs or [[]] * len(chunk.token_ids)
        self.prompt_tokens.extend(map(PromptToken, chunk.token_ids, chunk.logprobs, tops))

    def end(self, error: BackplaneError | None) -> None:
        """For the worker's stream: there is nothing more, and should have been."""
        self._tell_end(error or _incomplete())

    def cancel(self) -> None:
        """Stop whatever still runs in the worker, and tell nothing more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._on_end = self._sink = None
        self._stream.cancel()

    def _take_timing(self, timing: SequenceTiming) -> None:
        self.times.queue_s = timing.queue_s
        self.times.prefill_s = timing.prefill_s
        self.times.num_cached_tokens = timing.num_cached_tokens

    def _end_sequence(self, reason: Finish, delta: SequenceDelta, now: float) -> None:
        if reason is Finish.CANCELLED:
            raise _incomplete()
        self._num_running -= 1
        if delta.finish_reason is None:  # a stop string, of which the worker knows nothing
            self._stream.cancel(delta.index)
        if not self._num_running:
            self.times.finished = now

    def _tell_end(self, error: Exception | None) -> None:
        on_end, self._on_end, self._sink = self._on_end, None, None
        self._stream.listen(None)
        if on_end is not None:
            on_end(error)

    def _take_time(self, index: int, num_tokens: int, now: float) -> None:
        last = self._last_tokens[index]
        self._last_tokens[index] = now
        if last:
            gap = (now - last) / num_tokens
            for _ in range(num_tokens):
                self.times.token_gaps_s.append(gap)
        elif self.times.first_token is None:
            self.times.first_token = now


def _incomplete() -> IncompleteGenerationError:
    return IncompleteGenerationError("the worker ended the request before its end")
