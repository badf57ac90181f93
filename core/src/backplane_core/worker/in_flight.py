"""The requests a worker has accepted, and which connection each belongs to."""

import dataclasses
import threading
import time
from typing import Generic, TypeVar

from backplane_core.errors import OverloadedError, ValidationError
from backplane_core.messages import Failed, PromptLogprobs, SequenceDelta, StepOutput, Submit

OwnerT = TypeVar("OwnerT")


@dataclasses.dataclass(slots=True, eq=False)
class _Share(Generic[OwnerT]):
    """What a step has for one owner; the lists are used again in the next."""

    owner: OwnerT
    deltas: list[SequenceDelta] = dataclasses.field(default_factory=list[SequenceDelta])
    failures: list[Failed] = dataclasses.field(default_factory=list[Failed])
    prompt_logprobs: list[PromptLogprobs] = dataclasses.field(default_factory=list[PromptLogprobs])


@dataclasses.dataclass(slots=True)
class _Entry(Generic[OwnerT]):
    share: _Share[OwnerT]
    open_indexes: set[int]
    deadline: float | None
    since_s: float


class InFlight(Generic[OwnerT]):
    """Accepted requests by id, bounded in sequences. Any thread, but `route`: the engine's."""

    def __init__(self, max_sequences: int) -> None:
        self.max_sequences = max_sequences
        self.num_sequences = 0
        self._entries: dict[str, _Entry[OwnerT]] = {}
        self._shares: dict[OwnerT, _Share[OwnerT]] = {}
        self._mean_duration_s = 1.0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def add(self, request: Submit, owner: OwnerT) -> None:
        """Take a request in.

        Raises:
            OverloadedError: no room; says when a place is likely to be free.
            ValidationError: it can never fit, or its id is in flight already.
        """
        with self._lock:
            if request.request_id in self._entries:
                raise ValidationError(f"request id {request.request_id} is in flight already")
            if request.num_sequences > self.max_sequences:
                raise ValidationError(
                    f"{request.num_sequences} sequences are more than the {self.max_sequences} "
                    "that may be in flight",
                    parameter="num_sequences",
                    remedy="the flag --max-concurrent-requests sets the limit",
                )
            if self.num_sequences + request.num_sequences > self.max_sequences:
                raise OverloadedError(
                    f"{self.num_sequences} of {self.max_sequences} places are taken",
                    retry_after_s=self._retry_after_s(),
                )
            self.num_sequences += request.num_sequences
            if (share := self._shares.get(owner)) is None:
                share = self._shares[owner] = _Share(owner)
            self._entries[request.request_id] = _Entry(
                share, set(range(request.num_sequences)), request.deadline, time.monotonic()
            )

    def owner(self, request_id: str, index: int | None = None) -> OwnerT | None:
        """Whose request, or sequence of it, it is; None once that is over."""
        entry = self._entries.get(request_id)
        if entry is None or (index is not None and index not in entry.open_indexes):
            return None
        return entry.share.owner

    def finish(self, request_id: str, index: int | None = None) -> bool:
        """A sequence (or the whole request) is over. Whether it was still open."""
        with self._lock:
            entry = self._entries.get(request_id)
            if entry is None or (index is not None and index not in entry.open_indexes):
                return False
            self._close(request_id, entry, index)
            return True

    def route(self, output: StepOutput) -> list[tuple[OwnerT, StepOutput]]:
        """Share a step's output out among the owners; what ended in it is over.

        What is of requests that are over already, late tokens of cancelled ones, is dropped. The
        shares are valid until the next call.
        """
        with self._lock:
            shares = self._shares.values()
            for share in shares:
                share.deltas.clear()
                share.failures.clear()
                share.prompt_logprobs.clear()
            find = self._entries.get
            for chunk in output.prompt_logprobs:
                if entry := find(chunk.request_id):
                    entry.share.prompt_logprobs.append(chunk)
            for delta in output.deltas:  # thousands a second: no calls of ours in here
                entry = find(delta.request_id)
                if entry is not None and delta.index in entry.open_indexes:
                    entry.share.deltas.append(delta)
                    if delta.finish_reason is not None:
                        self._close(delta.request_id, entry, delta.index)
            for failed in output.failures:
                if entry := find(failed.request_id):
                    entry.share.failures.append(failed)
                    self._close(failed.request_id, entry, None)
            return [
                (
                    share.owner,
                    StepOutput(
                        deltas=share.deltas,
                        failures=share.failures,
                        prompt_logprobs=share.prompt_logprobs,
                    ),
                )
                for share in shares
                if share.deltas or share.failures or share.prompt_logprobs
            ]

    def disown(self, owner: OwnerT) -> list[str]:
        """The owner is gone: its requests, which are yet to be finished."""
        with self._lock:
            share = self._shares.pop(owner, None)
            return [key for key, entry in self._entries.items() if entry.share is share]

    def overdue(self, now: float) -> list[str]:
        """Requests whose deadline (Unix seconds) has passed."""
        with self._lock:
            return [
                key
                for key, entry in self._entries.items()
                if entry.deadline is not None and entry.deadline < now
            ]

    def _close(self, request_id: str, entry: _Entry[OwnerT], index: int | None) -> None:
        if index is None or len(entry.open_indexes) == 1:
            self.num_sequences -= len(entry.open_indexes)
            entry.open_indexes.clear()
            del self._entries[request_id]
            duration_s = time.monotonic() - entry.since_s
            self._mean_duration_s += 0.1 * (duration_s - self._mean_duration_s)
        else:
            entry.open_indexes.discard(index)
            self.num_sequences -= 1

    def _retry_after_s(self) -> float:
        # With n places and requests of mean duration d, a place falls free every d/n seconds.
        return min(60.0, max(1.0, self._mean_duration_s / max(1, self.max_sequences)))
