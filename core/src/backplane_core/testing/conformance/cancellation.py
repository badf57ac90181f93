"""Conformance: what a cancelled request held is free at once, and the counts add up."""

import time
from itertools import pairwise

from backplane_core.errors import DeadlineExceededError
from backplane_core.messages import RunnerInfo, RunnerStats
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, lasting
from backplane_core.testing.conformance.shared_worker import is_idle
from backplane_core.testing.worker_client import WorkerClient

# Between two answers the engine polls, but for a few that meet it before it comes to that.
_MAX_ANSWERS = 10
_COUNTERS = (
    "num_steps",
    "num_prompt_tokens",
    "num_prefilled_tokens",
    "num_cached_tokens",
    "num_generated_tokens",
    "num_finished",
    "num_cancelled",
    "num_failed",
    "num_preemptions",
)


class CancellationTests(ConformanceBase):
    """Cancelling, deadlines, and the stats that show what became of the memory."""

    def test_cancel_frees_at_once(self, backplane_client: WorkerClient) -> None:
        """Cancelled tokens are free again after the next `poll`; others run on."""
        client = backplane_client
        prompts = self.prompts(client, 3, seed=4)
        lasts = [self.submit_longest(client, prompt) for prompt in prompts[:2]]
        stays = client.submit(prompts[2], sampling=GREEDY, stopping=lasting(client, 24))
        client.wait_for_stats(lambda now: now.used_tokens > 0, "memory to be taken")
        for stream in lasts:
            client.cancel(stream)
        client.finish([stays])
        self._assert_freed(client)
        assert stays.error is None
        assert all(not stream.done for stream in lasts), "a cancelled request went on"

    def test_cancelling_one_choice_leaves_the_others(self, backplane_client: WorkerClient) -> None:
        """`index` stops one sequence of a request."""
        client = backplane_client
        self.require(client.info.capabilities.multiple_sequences, "multiple sequences")
        prompt = self.prompt(client, seed=5)
        length = self.room(client, prompt) // 2
        stream = client.submit(
            prompt, sampling=GREEDY, stopping=lasting(client, length), num_sequences=2
        )
        client.wait_for_stats(lambda now: now.used_tokens > 0, "the request to run")
        client.cancel(stream, 0)
        client.wait(lambda: stream[1].finish_reason is not None, "the other choice to end")
        assert stream.error is None
        assert stream[0].finish_reason is None, "the cancelled choice went on"
        self._assert_freed(client)

    def test_deadline_ends_a_request(self, backplane_client: WorkerClient) -> None:
        """Past its deadline a request fails, typed, and holds nothing any more."""
        client = backplane_client
        prompt, other = self.prompts(client, 2, seed=6)
        late = self.submit_longest(client, prompt, deadline=time.time() + 0.05)
        fine = client.submit(other, sampling=GREEDY, stopping=lasting(client, 8))
        client.finish([late, fine])
        assert isinstance(late.error, DeadlineExceededError)
        assert fine.error is None
        self._assert_freed(client)

    def test_stats_add_up(self, backplane_client: WorkerClient) -> None:
        """Used, cached and free make the whole; counters never fall and count what was sent."""
        client = backplane_client
        before = client.stats()
        assert is_idle(before)
        _assert_whole(before, client.info)
        prompts = self.prompts(client, 3, seed=7)
        streams = [
            client.submit(prompt, sampling=GREEDY, stopping=lasting(client, 20), cache_salt="stats")
            for prompt in prompts
        ]
        seen = [before]
        while not all(stream.done for stream in streams):
            seen.append(client.stats())
            client.read(0.005)
        for earlier, later in pairwise(seen):
            _assert_whole(later, client.info)
            for name in _COUNTERS:
                assert getattr(later, name) >= getattr(earlier, name), f"{name} fell"
        after = client.stats()
        assert is_idle(after)
        gained = {name: getattr(after, name) - getattr(before, name) for name in _COUNTERS}
        assert gained["num_generated_tokens"] == sum(len(one.token_ids) for one in streams)
        assert gained["num_finished"] == len(streams)
        assert gained["num_prompt_tokens"] == sum(map(len, prompts))
        assert gained["num_steps"] > 0

    @staticmethod
    def _assert_freed(client: WorkerClient) -> None:
        # Counted in answers, not in seconds: how loaded the machine is makes no difference.
        stats = client.stats()
        for _ in range(_MAX_ANSWERS):
            if not is_idle(stats):
                stats = client.stats()
        assert is_idle(stats), f"still held: {stats}"
        _assert_whole(stats, client.info)


def _assert_whole(stats: RunnerStats, info: RunnerInfo) -> None:
    assert min(stats.used_tokens, stats.cached_tokens, stats.free_tokens) >= 0
    whole = stats.used_tokens + stats.cached_tokens + stats.free_tokens
    assert whole == info.limits.cache_tokens
