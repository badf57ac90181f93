"""`Deadlines`: which requests have run out of time. O(log n) each, whatever the number."""

import heapq


class Deadlines:
    """Request ids by deadline, in monotonic seconds. Ended requests are dropped when due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, deadline_s: float, request_id: str) -> None:
        """Watch a request."""
        heapq.heappush(self._heap, (deadline_s, request_id))

    def expired(self, now_s: float) -> list[str]:
        """The requests whose deadline has passed since the last call, ended ones included."""
        request_ids: list[str] = []
        while self._heap and self._heap[0][0] <= now_s:
            request_ids.append(heapq.heappop(self._heap)[1])
        return request_ids
