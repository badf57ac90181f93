"""Broken in scheduling, memory and their accounts."""

import itertools

from backplane_core.messages import RunnerStats, Submit
from backplane_core.testing.echo_runner import EchoRunner
from backplane_core.testing.echo_stream import EchoRequest

from broken_backends.breaking import ChangingRequests, Leaking, breaks, changed


@breaks("test_newcomer_does_not_wait_for_a_running_request")
class BatchesStatically(EchoRunner):
    """A batch takes nobody in once it runs."""

    def _admit(self) -> None:
        if not self._decoding and not self._prefilling:
            super()._admit()


@breaks("test_cancel_frees_at_once")
class FreesLate(Leaking):
    def leaks(self, request: Submit, index: int | None) -> bool:
        return index is None and request.deadline is None


@breaks("test_deadline_ends_a_request")
class KeepsWhatIsOverdue(Leaking):
    def leaks(self, request: Submit, index: int | None) -> bool:
        return request.deadline is not None

    def _expired(self) -> list[object]:
        return []  # left to the worker, which cancels


@breaks("test_cancelling_one_choice_leaves_the_others")
class CancelsAllChoices(EchoRunner):
    def cancel(self, request_id: str, index: int | None = None) -> None:
        super().cancel(request_id, None)


@breaks("test_stats_add_up")
class CountsTokensTwice(EchoRunner):
    def stats(self) -> RunnerStats:
        stats = super().stats()
        return changed(stats, num_generated_tokens=2 * stats.num_generated_tokens)


@breaks("test_known_prefix_is_not_computed_again", apart=True)
class RemembersNothing(EchoRunner):
    def _known_prefix(self, request: EchoRequest) -> int:
        return 0


@breaks("test_prefixes_do_not_cross_salts")
class IgnoresSalts(ChangingRequests):
    def change(self, request: Submit) -> Submit:
        return changed(request, cache_salt=None)


@breaks("test_memory_pressure_breaks_nothing")
class RunsOutOfMemory(EchoRunner):
    """Counts on room for as many sequences as may run, however long they get.

    It notices as they come, whatever the faults beside it make of the batch.
    """

    def submit(self, request: Submit) -> None:
        super().submit(request)
        limits = self.info.limits
        first = itertools.islice(self._requests.values(), limits.max_sequences)
        if sum(one.num_reserved for one in first) > limits.cache_tokens:
            raise MemoryError("the device has no memory left")
