"""Conformance: logprobs are the model's own, ordered, and consistent with what was chosen."""

import math

import pytest

from backplane_core.sampling import SamplingParams
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, lasting, ordinary_ids
from backplane_core.testing.worker_client import WorkerClient

_ROUNDING = 1e-3


class LogprobTests(ConformanceBase):
    """Of the output, of alternatives, of the prompt."""

    def test_logprobs_are_well_formed(self, backplane_client: WorkerClient) -> None:
        """Never above 0, alternatives best first, the chosen one consistent, at most 1 in sum."""
        client = backplane_client
        most = client.info.capabilities.max_top_logprobs
        self.require(most is not None, "logprobs")
        for count in {0, 1, most or 0}:
            output = client.run(
                self.prompt(client, seed=16),
                sampling=GREEDY,
                stopping=lasting(client, 8),
                top_logprobs=count,
            )[0]
            assert len(output.logprobs) == len(output.token_ids)
            assert all(logprob <= _ROUNDING for logprob in output.logprobs)
            for place, top in enumerate(output.top_logprobs):
                _check_top(top, count)
                assert dict(top).get(output.token_ids[place]) == pytest.approx(
                    output.logprobs[place], abs=_ROUNDING
                ), "greedy chose no alternative, or another logprob than its own"
            assert len(output.top_logprobs) == (len(output.token_ids) if count else 0)

    def test_logprobs_are_the_models_own(self, backplane_client: WorkerClient) -> None:
        """Neither temperature nor bias changes what is reported."""
        client = backplane_client
        most = client.info.capabilities.max_top_logprobs
        self.require(bool(most), "alternatives' logprobs")
        self.require_sampling(client.info, "temperature", "logit_bias")
        prompt = self.prompt(client, seed=17)
        lifted = ordinary_ids(client.info)[7]
        plain, steered = (
            client.run(prompt, sampling=sampling, stopping=lasting(client, 1), top_logprobs=most)[
                0
            ].top_logprobs[0]
            for sampling in (
                GREEDY,
                SamplingParams(temperature=0.3, logit_bias={lifted: 100.0}),
            )
        )
        tolerance = max(_ROUNDING, self.near_tie_gap)
        assert dict(plain) == pytest.approx(dict(steered), abs=tolerance)

    def test_prompt_logprobs_cover_the_prompt(self, backplane_client: WorkerClient) -> None:
        """Chunks join without gap; the first token has none, every other has one."""
        client = backplane_client
        self.require(client.info.capabilities.prompt_logprobs, "prompt logprobs")
        prompt = self.prompt(client, seed=18)
        stream = client.run(prompt, sampling=GREEDY, stopping=lasting(client, 2), prompt_logprobs=1)
        token_ids: list[int] = []
        logprobs: list[float | None] = []
        for chunk in stream.prompt_logprobs:
            assert chunk.start == len(token_ids)
            assert len(chunk.logprobs) == len(chunk.token_ids)
            token_ids += chunk.token_ids
            logprobs += chunk.logprobs
        assert token_ids == prompt
        assert logprobs[0] is None
        assert all(one is not None and one <= _ROUNDING for one in logprobs[1:])

    def test_prompt_logprobs_are_those_of_the_output(self, backplane_client: WorkerClient) -> None:
        """What was generated, asked for as a prompt, has the logprobs that it was generated with.

        One by one and in sum, alternatives included, though its beginning may be cached.
        """
        client = backplane_client
        self.require(client.info.capabilities.prompt_logprobs, "prompt logprobs")
        most = client.info.capabilities.max_top_logprobs
        self.require(most is not None, "logprobs")
        num_top = min(2, most or 0)
        prompt = self.prompt(client, seed=22)
        output = client.run(
            prompt, sampling=GREEDY, stopping=lasting(client, 12), top_logprobs=num_top
        )[0]
        again = client.run(
            [*prompt, *output.token_ids],
            sampling=GREEDY,
            stopping=lasting(client, 1),
            prompt_logprobs=num_top,
        )
        scored = [one or 0.0 for chunk in again.prompt_logprobs for one in chunk.logprobs]
        tops = [top for chunk in again.prompt_logprobs for top in chunk.top_logprobs]
        tolerance = max(_ROUNDING, self.near_tie_gap)
        assert scored[len(prompt) :] == pytest.approx(output.logprobs, abs=tolerance)
        assert sum(scored[len(prompt) :]) == pytest.approx(sum(output.logprobs), abs=4 * tolerance)
        assert len(tops) == (len(scored) if num_top else 0)
        for top, expected in zip(tops[len(prompt) :], output.top_logprobs, strict=True):
            values = sorted(logprob for _, logprob in top)
            assert values == pytest.approx(sorted(one for _, one in expected), abs=tolerance)


def _check_top(top: list[tuple[int, float]], count: int) -> None:
    values = [logprob for _, logprob in top]
    assert len(top) == count
    assert len(dict(top)) == len(top), "a token stands twice among the alternatives"
    assert values == sorted(values, reverse=True)
    assert math.fsum(map(math.exp, values)) <= 1.0 + _ROUNDING
