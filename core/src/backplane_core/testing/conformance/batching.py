"""Conformance: an output depends on its request alone, and nobody waits for a whole other one."""

from backplane_core.sampling import SamplingParams
from backplane_core.testing.conformance.base import (
    GREEDY,
    ConformanceBase,
    gap_at,
    lasting,
    parting,
)
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_stream import Continuation, Stream

_COMPARED_TOKENS = 16
_MAX_TIE_SHARE = 0.01


class BatchingTests(ConformanceBase):
    """Many requests at a time."""

    def test_greedy_is_reproducible(self, backplane_client: WorkerClient) -> None:
        """The same prompt gives the same tokens each time, known prefix or not."""
        prompt = self.prompt(backplane_client)
        lone = [self._lone(backplane_client, prompt)[0] for _ in range(5)]
        assert lone[0].token_ids
        for again in lone[1:]:
            assert not self._differs(lone[0], again)

    def test_greedy_is_the_known_output(self, backplane_client: WorkerClient) -> None:
        """The continuations in `golden`, made elsewhere, are met."""
        self.require(bool(self.golden), "golden outputs")
        for prompt, expected in self.golden:
            stopping = lasting(backplane_client, len(expected))
            stream = backplane_client.run(list(prompt), sampling=GREEDY, stopping=stopping)
            assert stream.token_ids == list(expected)

    def test_batched_outputs_are_the_lone_ones(self, backplane_client: WorkerClient) -> None:
        """All at once, each prompt gets what it got alone, up to near ties (`near_tie_gap`)."""
        prompts = self.prompts(backplane_client, self.num_compared, seed=1)
        lone = [self._lone(backplane_client, prompt) for prompt in prompts]
        batch = [self._submit(backplane_client, prompt) for prompt in prompts]
        backplane_client.finish(batch)
        assert [stream.error for stream in batch] == [None] * len(batch)
        ties = 0
        for one, other in zip(lone, batch, strict=True):
            assert not self._differs(one[0], other[0]), (one.token_ids, other.token_ids)
            ties += parting(one[0], other[0]) is not None
        assert ties <= _MAX_TIE_SHARE * len(prompts), f"{ties} near ties are too many"

    def test_newcomer_does_not_wait_for_a_running_request(
        self, backplane_client: WorkerClient
    ) -> None:
        """A request submitted mid-decode has its first token before the running one ends."""
        client = backplane_client
        self.require(client.info.limits.max_sequences > 1, "more than one sequence at a time")
        first, second = self.prompts(client, 2, seed=2)
        before = client.stats().num_generated_tokens
        running = self.submit_longest(client, first)
        client.wait_for_stats(lambda now: now.num_generated_tokens > before, "a first token")
        newcomer = client.submit(second, sampling=GREEDY, stopping=lasting(client, 2))
        client.finish([running, newcomer])
        arrived, ended = newcomer[0].first_token_tick, running[0].finish_tick
        assert arrived is not None
        assert ended is not None
        assert arrived < ended, "the newcomer waited for the running request's end"

    def test_choices_share_a_prompt_and_differ_in_seed(
        self, backplane_client: WorkerClient
    ) -> None:
        """The prompt is computed once (`shares_prompts`); the first choice is the lone one."""
        client = backplane_client
        self.require(client.info.capabilities.multiple_sequences, "multiple sequences")
        self.require_sampling(client.info, "temperature", "seed")
        # Salts of their own keep earlier prompts' caches out of the counts.
        lone_prompt, prompt = self.prompts(client, 2, seed=3)
        sampling = SamplingParams(temperature=2.0, seed=11)
        stopping = lasting(client, 24)
        before = client.stats().num_prefilled_tokens
        several = client.run(
            prompt, sampling=sampling, stopping=stopping, num_sequences=3, cache_salt="choices"
        )
        computed = client.stats().num_prefilled_tokens - before
        if self.shares_prompts:
            # A last token computed again for each choice is fair; the whole prompt is not.
            assert computed < 2 * len(prompt), "the prompt was computed for each choice"
        else:
            assert computed == 3 * len(prompt), "the choices share a prompt after all"
        outputs = [several[index].token_ids for index in range(3)]
        assert len({tuple(output) for output in outputs}) > 1, "all choices drew the same"
        same = client.run(prompt, sampling=sampling, stopping=stopping, cache_salt="lone")
        if not self.near_tie_gap:
            assert same.token_ids == outputs[0]
        greedy = client.run(
            lone_prompt, sampling=GREEDY, stopping=stopping, num_sequences=2, top_logprobs=None
        )
        assert greedy[0].token_ids == greedy[1].token_ids

    def _submit(self, client: WorkerClient, prompt: list[int]) -> Stream:
        # Two alternatives, to judge near ties by; without logprobs outputs must be equal.
        reported = client.info.capabilities.max_top_logprobs or 0
        return client.submit(
            prompt,
            sampling=GREEDY,
            stopping=lasting(client, _COMPARED_TOKENS),
            top_logprobs=min(2, reported) or None,
        )

    def _lone(self, client: WorkerClient, prompt: list[int]) -> Stream:
        stream = self._submit(client, prompt)
        client.finish([stream])
        assert stream.error is None
        return stream

    def _differs(self, lone: Continuation, other: Continuation) -> bool:
        place = parting(lone, other)
        if place is None:
            return False
        if place >= min(len(lone.token_ids), len(other.token_ids)):
            return True
        return gap_at(lone, place, other.token_ids[place]) > self.near_tie_gap
