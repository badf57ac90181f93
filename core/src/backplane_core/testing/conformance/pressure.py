"""Conformance: at the limits a backend refuses or waits; it does not break."""

import math

from backplane_core.errors import OutOfMemoryError, OverloadedError, ValidationError
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, lasting
from backplane_core.testing.worker_client import WorkerClient


class PressureTests(ConformanceBase):
    """Too long, too many, too much."""

    def test_longest_sequence_is_served_and_a_longer_one_refused(
        self, backplane_client: WorkerClient
    ) -> None:
        """The limits are met exactly, from both sides."""
        client = backplane_client
        limits = client.info.limits
        tokens = self.long_prompt(client, limits.max_input_tokens + 1, seed=21)
        longest = tokens[: limits.max_input_tokens]
        room = self.room(client, longest)
        fits = client.run(longest, sampling=GREEDY, stopping=lasting(client, room))
        assert fits[0].finish_reason is not None
        assert len(fits.token_ids) <= room
        refused = [
            client.submit(longest, stopping=lasting(client, room + 1)),
            client.submit(tokens, stopping=lasting(client, 1)),
        ]
        client.finish(refused)
        assert all(isinstance(stream.error, ValidationError) for stream in refused)

    def test_overload_is_refused_and_the_accepted_served(
        self, backplane_client: WorkerClient
    ) -> None:
        """Beyond the places there are, requests are told to come later; no other one suffers."""
        client = backplane_client
        limits = client.info.limits
        places = min(
            self.engine.max_concurrent_requests, limits.max_sequences + limits.max_waiting_requests
        )
        prompt = self.prompt(client, seed=22)
        streams = [
            client.submit(prompt, sampling=GREEDY, stopping=lasting(client, 64))
            for _ in range(places + 8)
        ]
        client.finish(streams)
        refused = [stream for stream in streams if not stream.accepted]
        assert refused, "more requests than places were accepted"
        for stream in refused:
            assert isinstance(stream.error, OverloadedError)
            assert stream.error.retry_after_s
        served = [stream for stream in streams if stream.accepted]
        assert len(served) >= places
        assert [stream.error for stream in served] == [None] * len(served)

    def test_memory_pressure_breaks_nothing(self, backplane_client: WorkerClient) -> None:
        """More tokens than the cache holds: requests wait, or fail by a typed error."""
        client = backplane_client
        limits = client.info.limits
        needed = math.ceil(1.5 * limits.cache_tokens / limits.max_total_tokens)
        assert needed <= self.engine.max_concurrent_requests, (
            "set `engine.max_batch_total_tokens` low enough to be reached"
        )
        prompts = self.prompts(client, needed, seed=23)
        streams = [self.submit_longest(client, prompt) for prompt in prompts]
        client.finish(streams)
        served = [stream for stream in streams if stream.error is None]
        assert served, "nobody was served"
        for stream in streams:
            assert isinstance(stream.error, OutOfMemoryError | None), stream.error
        client.run(prompts[0], sampling=GREEDY, stopping=lasting(client, 2))
