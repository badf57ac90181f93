"""The requests a worker has accepted, and which connection each belongs to."""

import dataclasses
import time
from typing import Generic, TypeVar

from backplane_core.errors import OverloadedError, ValidationError
from backplane_core.messages import Submit

OwnerT = TypeVar("OwnerT")


@dataclasses.dataclass(slots=True)
class _Entry(Generic[OwnerT]):
    owner: OwnerT
    open_indexes: set[int]
    deadline: float | None
    since_s: float


class InFlight(Generic[OwnerT]):
    """Accepted requests by id, bounded in sequences. Used by the I/O thread alone."""

    def __init__(self, max_sequences: int) -> None:
        self.max_sequences = max_sequences
        self.num_sequences = 0
        self._entries: dict[str, _Entry[OwnerT]] = {}
        self._mean_duration_s = 1.0

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
        if request.request_id in self._entries:
            raise ValidationError(f"request id {request.request_id} is in flight already")
        if request.num_sequences > self.max_sequences:
            raise ValidationError(
                f"{request.num_sequences} sequences are more than the {self.max_sequences} that "
                "may be in flight",
                parameter="num_sequences",
                remedy="the flag --max-concurrent-requests sets the limit",
            )
        if self.num_sequences + request.num_sequences > self.max_sequences:
            raise OverloadedError(
                f"{self.num_sequences} of {self.max_sequences} places are taken",
                retry_after_s=self._retry_after_s(),
            )
        self.num_sequences += request.num_sequences
        self._entries[request.request_id] = _Entry(
            owner, set(range(request.num_sequences)), request.deadline, time.monotonic()
        )

    def owner(self, request_id: str, index: int | None = None) -> OwnerT | None:
        """Whose request, or sequence of it, it is; None once that is over."""
        entry = self._entries.get(request_id)
        if entry is None or (index is not None and index not in entry.open_indexes):
            return None
        return entry.owner

    def finish(self, request_id: str, index: int | None = None) -> bool:
        """A sequence (or the whole request) is over. Whether it was still open."""
        entry = self._entries.get(request_id)
        if entry is None or (index is not None and index not in entry.open_indexes):
            return False
        closed = set(entry.open_indexes) if index is None else {index}
        entry.open_indexes -= closed
        self.num_sequences -= len(closed)
        if not entry.open_indexes:
            del self._entries[request_id]
            duration_s = time.monotonic() - entry.since_s
            self._mean_duration_s += 0.1 * (duration_s - self._mean_duration_s)
        return True

    def of(self, owner: OwnerT) -> list[str]:
        """The requests of one connection."""
        return [key for key, entry in self._entries.items() if entry.owner is owner]

    def overdue(self, now: float) -> list[str]:
        """Requests whose deadline (Unix seconds) has passed."""
        return [
            key
            for key, entry in self._entries.items()
            if entry.deadline is not None and entry.deadline < now
        ]

    def _retry_after_s(self) -> float:
        # With n places and requests of mean duration d, a place falls free every d/n seconds.
        return min(60.0, max(1.0, self._mean_duration_s / max(1, self.max_sequences)))
