"""Conformance: a known prefix is not computed again, and never crosses a salt."""

from backplane_core.messages import SequenceTiming
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, lasting, parting
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_stream import Stream

_MIN_SHARE = 0.5


class PrefixTests(ConformanceBase):
    """Reuse, as the counters show it."""

    def test_known_prefix_is_not_computed_again(self, backplane_client: WorkerClient) -> None:
        """A prompt that begins like an earlier one is prefilled from where they part."""
        client = backplane_client
        self.require(client.info.capabilities.prefix_cache, "a prefix cache")
        prompt = self.long_prompt(client, self._length(client), seed=8)
        first, computed_first, _ = self._run(client, prompt, "reuse")
        again, computed_again, timing = self._run(client, prompt, "reuse")
        assert computed_first >= len(prompt)
        assert timing.num_cached_tokens >= _MIN_SHARE * len(prompt)
        assert computed_again == len(prompt) - timing.num_cached_tokens
        if not self.near_tie_gap:
            assert parting(first[0], again[0]) is None, "reuse changed the output"

    def test_prefixes_do_not_cross_salts(self, backplane_client: WorkerClient) -> None:
        """Another tenant's cache neither saves time nor, by that, tells what it holds."""
        client = backplane_client
        self.require(client.info.capabilities.prefix_cache, "a prefix cache")
        prompt = self.long_prompt(client, self._length(client), seed=9)
        self._run(client, prompt, "tenant one")
        _, computed, timing = self._run(client, prompt, "tenant two")
        assert timing.num_cached_tokens == 0
        assert computed == len(prompt)

    @staticmethod
    def _length(client: WorkerClient) -> int:
        return client.info.limits.max_input_tokens * 3 // 4

    @staticmethod
    def _run(
        client: WorkerClient, prompt: list[int], salt: str
    ) -> tuple[Stream, int, SequenceTiming]:
        before = client.stats().num_prefilled_tokens
        stream = client.run(prompt, sampling=GREEDY, stopping=lasting(client, 8), cache_salt=salt)
        timing = stream[0].timing
        assert timing is not None
        return stream, client.stats().num_prefilled_tokens - before, timing
