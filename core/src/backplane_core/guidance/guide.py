"""`SequenceGuide`: which tokens may come next in one sequence, by its grammar.

Masks are made on a thread of their own while the model computes; whoever samples waits for the
one it needs, within a budget. Knows nothing of batches.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

from backplane_core.errors import BackplaneError, GenerationError
from backplane_core.guidance.follower import Follower
from backplane_core.guidance.limits import GuidanceLimits

_log = logging.getLogger(__name__)


# So many masks in good time make a sequence whose mask was late an ordinary one again; each further
# time twice as many, so that a step waits for it ever more rarely.
_WARY_FOR, _WARY_AT_MOST = 16, 1024


class SequenceGuide:
    """One sequence's place in its grammar. Survives preemption: it follows tokens, not the cache.

    End tokens are allowed where the grammar accepts what is there, and nowhere else. While
    `ignore_eos` or `min_new_tokens` forbid an end they are left out of the mask as long as any
    other token may follow; where only the end may follow, it is allowed, whatever they say.

    `allowed` and `advance` are for one thread, the engine's; masks are made on `pool`'s.
    """

    def __init__(self, pool: Executor, limits: GuidanceLimits) -> None:
        self._pool = pool
        self._limits = limits
        self._follower: Follower | None = None
        self._mask: Future[bytes] = Future()
        self._started_s: float | None = None
        self._awaited_s: float | None = None
        self._num_wary = 0
        self._wary_for = _WARY_FOR
        self._wake: Callable[[], None] = _nobody
        self._closed = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether the mask is there, or the reason why there is none."""
        return self._mask.done()

    @property
    def may_take_turn(self) -> bool:
        """Whether the sequence should be in the next step.

        One whose masks come late should not before its mask is there, or has taken too long,
        which `allowed` then tells, after the patience that each step has.
        """
        if not self._num_wary or self._mask.done():
            return True
        started_s = self._started_s
        return started_s is not None and time.monotonic() > started_s + self._limits.mask_s

    @property
    def error(self) -> BackplaneError | None:
        """Of a guide that is ready: why its grammar cannot be followed."""
        error = self._mask.exception()
        return error if isinstance(error, BackplaneError) else None

    def begin(self, follower: "Future[Follower]", ready: Callable[[], None]) -> None:
        """Start at the beginning; `ready` is called, on any thread, whenever `self.ready` again."""
        self._wake = ready

        def first_mask() -> bytes:
            made = follower.result()
            mask = made.follow(())
            self._follower = made
            return mask

        def start(_: object) -> None:
            self._mask.add_done_callback(lambda _: ready())
            self._submit(first_mask, self._mask)

        follower.add_done_callback(start)

    def allowed(self) -> memoryview:
        """The tokens that may come next, as a bitmask: ⌈vocabulary / 32⌉ little-endian words.

        Bit `id % 32` of word `id // 32` is that token's. Waits for the mask within the budget.

        Raises:
            BackplaneError: the mask took too long, the grammar became too complex or cannot be
                compiled again, or a token was appended that it does not allow. It concerns this
                sequence alone.
        """
        return memoryview(self._result())

    def advance(self, token_ids: Sequence[int]) -> None:
        """Tokens were appended: begin the mask of what follows. Returns at once."""
        follower = self._follower
        if follower is None:
            raise AssertionError("a sequence was sampled before its grammar was ready")
        previous, self._mask = self._mask, Future()
        tokens = tuple(token_ids)

        def next_mask() -> bytes:
            previous.result()  # what went wrong once stays wrong
            return follower.follow(tokens)

        # For each: whether anybody waits for this one is not known before it is there.
        self._mask.add_done_callback(lambda _: self._wake())
        self._submit(next_mask, self._mask)

    def close(self) -> None:
        """The sequence is over: masks not yet begun are not made."""
        self._closed.set()

    # ── the engine's side ────────────────────────────────────────────────────────────────

    def _submit(self, task: Callable[[], bytes], mask: "Future[bytes]") -> None:
        self._started_s = self._awaited_s = None

        def run() -> None:
            if self._closed.is_set():
                mask.cancel()
                return
            self._started_s = time.monotonic()
            own_s = time.thread_time()
            try:
                result = task()
                # Its own work is counted by the processor's time: where the model computes on all
                # cores, its thread stands still for most of a step. A step that waits for it waits
                # for that, too, and for a thread to be free, however quick its grammar is.
                late_s = time.thread_time() - own_s
                if (awaited_s := self._awaited_s) is not None:
                    late_s = max(late_s, time.monotonic() - awaited_s)
                if late_s > self._limits.patience_s:
                    self._num_wary = self._wary_for
                    self._wary_for = min(2 * self._wary_for, _WARY_AT_MOST)
                else:
                    self._num_wary = max(0, self._num_wary - 1)
            except BackplaneError as error:
                mask.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - native code panics past Exception
                _log.exception("a grammar could not be followed")
                failed = GenerationError("the grammar could not be followed")
                failed.__cause__ = error
                mask.set_exception(failed)
            else:
                mask.set_result(result)

        self._pool.submit(run)

    def _result(self) -> bytes:
        limits = self._limits
        asked_s = time.monotonic()
        if not self._mask.done():
            self._awaited_s = asked_s
        until_s = asked_s + limits.queue_s
        while True:
            now_s = time.monotonic()
            started_s = self._started_s
            end_s = min(until_s, now_s + limits.mask_s)
            if started_s is not None:
                # Should its thread have stood still beside the model, now is its turn.
                end_s = max(started_s + limits.mask_s, asked_s + limits.patience_s)
            try:
                return self._mask.result(timeout=max(0.0, end_s - now_s))
            except TimeoutError:
                if started_s is None and time.monotonic() < until_s:
                    continue
                why = "no thread was free" if started_s is None else "its mask took too long"
                raise GenerationError(
                    f"the grammar could not be followed: {why}",
                    remedy="try again, or use a simpler grammar",
                ) from None


def _nobody() -> None:
    """Nobody waits yet."""
