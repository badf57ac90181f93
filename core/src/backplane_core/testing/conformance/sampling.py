"""Conformance: seeds, cuts, bias and penalties, by the semantics of `docs/sampling.md`."""

import math
from collections import Counter

from backplane_core.sampling import SamplingParams, Watermark
from backplane_core.testing.conformance.base import (
    GREEDY,
    ConformanceBase,
    lasting,
    ordinary_ids,
    parting,
)
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.watermark import detect

_NUM_DRAWS = 240
_WAVE = 24
_NUM_TOP = 5
_MIN_EXPECTED = 5.0
_MARKED_TOKENS = 64
# Chi-square's upper 1e-6 points by degrees of freedom; seeds are fixed, so no test is unlucky.
_CRITICAL = {1: 23.93, 2: 27.63, 3: 30.66, 4: 33.38}


class SamplingTests(ConformanceBase):
    """`SamplingParams`, as far as outputs can show."""

    def test_same_seed_same_tokens(self, backplane_client: WorkerClient) -> None:
        """A seed decides alone and in a batch alike."""
        client = backplane_client
        self.require(client.info.capabilities.deterministic_seeds, "deterministic seeds")
        prompts = self.prompts(client, 8, seed=10)
        stopping = lasting(client, 12)
        seeded = [SamplingParams(seed=100 + number) for number in range(len(prompts))]
        lone = [
            client.run(prompt, sampling=sampling, stopping=stopping, cache_salt=f"lone {run}")
            for run in range(2)
            for prompt, sampling in zip(prompts, seeded, strict=True)
        ]
        batch = [
            client.submit(prompt, sampling=sampling, stopping=stopping, cache_salt="batch")
            for prompt, sampling in zip(prompts, seeded, strict=True)
        ]
        client.finish(batch)
        for one, again in zip(lone, lone[len(prompts) :], strict=False):
            assert one.token_ids == again.token_ids
        parted = [parting(one[0], two[0]) for one, two in zip(lone, batch, strict=False)]
        differing = sum(place is not None for place in parted)
        # Rounding may push one draw over a boundary on real kernels.
        assert differing <= (1 if self.near_tie_gap else 0)

    def test_different_seeds_differ(self, backplane_client: WorkerClient) -> None:
        """Four seeds do not all give the same 24 tokens."""
        self.require_sampling(backplane_client.info, "temperature", "seed")
        prompt = self.prompt(backplane_client, seed=11)
        outputs = {
            tuple(
                backplane_client.run(
                    prompt,
                    sampling=SamplingParams(temperature=2.0, seed=seed),
                    stopping=lasting(backplane_client, 24),
                ).token_ids
            )
            for seed in range(4)
        }
        assert len(outputs) > 1

    def test_draws_follow_the_distribution(self, backplane_client: WorkerClient) -> None:
        """First tokens under many seeds are spread as the reported logprobs say."""
        client = backplane_client
        self.require_sampling(client.info, "temperature", "top_k", "seed")
        num_top = min(_NUM_TOP, client.info.capabilities.max_top_logprobs or 0)
        self.require(num_top > 1, "alternatives' logprobs")
        prompt = self.prompt(client, seed=12)
        temperature = 1.6
        reported = client.run(
            prompt, sampling=GREEDY, stopping=lasting(client, 1), top_logprobs=num_top
        )
        weights = {
            token_id: math.exp(logprob / temperature)
            for token_id, logprob in reported[0].top_logprobs[0]
        }
        drawn: Counter[int] = Counter()
        for wave in range(0, _NUM_DRAWS, _WAVE):
            streams = [
                client.submit(
                    prompt,
                    sampling=SamplingParams(temperature=temperature, top_k=num_top, seed=seed),
                    stopping=lasting(client, 1),
                )
                for seed in range(wave, wave + _WAVE)
            ]
            client.finish(streams)
            drawn.update(stream.token_ids[0] for stream in streams)
        assert set(drawn) <= set(weights), "a token below the cut was drawn"
        assert _chi_square(drawn, weights) < 1.0

    def test_cuts_to_one_token_are_greedy(self, backplane_client: WorkerClient) -> None:
        """Each cut at its tightest leaves the likeliest token, whatever the temperature."""
        client = backplane_client
        self.require_sampling(client.info, "temperature")
        cuts = {
            "top_k": SamplingParams(temperature=1.5, seed=3, top_k=1),
            "top_p": SamplingParams(temperature=1.5, seed=3, top_p=1e-6),
            "min_p": SamplingParams(temperature=1.5, seed=3, min_p=1.0),
        }
        honoured = {
            name: cut for name, cut in cuts.items() if name in client.info.capabilities.sampling
        }
        self.require(bool(honoured), "top_k, top_p or min_p")
        prompt = self.prompt(client, seed=13)
        stopping = lasting(client, 8)
        greedy = client.run(prompt, sampling=GREEDY, stopping=stopping).token_ids
        for name, cut in honoured.items():
            output = client.run(prompt, sampling=cut, stopping=stopping).token_ids
            assert output == greedy, name

    def test_logit_bias_lifts_and_bans(self, backplane_client: WorkerClient) -> None:
        """A high bias makes a token certain, a low one impossible."""
        client = backplane_client
        self.require_sampling(client.info, "logit_bias")
        prompt = self.prompt(client, seed=14)
        stopping = lasting(client, 6)
        greedy = client.run(prompt, sampling=GREEDY, stopping=stopping).token_ids
        lifted = ordinary_ids(client.info)[5]
        sampling = SamplingParams(temperature=0.0, logit_bias={lifted: 100.0})
        assert client.run(prompt, sampling=sampling, stopping=stopping).token_ids == [lifted] * 6
        sampling = SamplingParams(temperature=0.0, logit_bias={greedy[0]: -100.0})
        assert greedy[0] not in client.run(prompt, sampling=sampling, stopping=stopping).token_ids

    def test_penalties_count_what_they_should(self, backplane_client: WorkerClient) -> None:
        """Repetition looks at prompt and output, presence and frequency at the output alone.

        Biases make two tokens the only ones in question; penalties then turn the scale. The
        first, at 300, stands in the prompt; the second, at 250, does not. Whatever the model's
        logits are, they are small against the distances.
        """
        client = backplane_client
        expected = {
            # 150:250, 150:125, 150:125, 150:125
            "repetition_penalty": ("second", "first", "first", "first"),
            # 300:250, 200:250, 200:150, 200:150
            "presence_penalty": ("first", "second", "first", "first"),
            # 300:250, 200:250, 200:150, 100:150
            "frequency_penalty": ("first", "second", "first", "second"),
        }
        honoured = [name for name in expected if name in client.info.capabilities.sampling]
        self.require(bool(honoured), "penalties")
        self.require_sampling(client.info, "logit_bias")
        first, second = ordinary_ids(client.info)[3:5]
        others = [one for one in self.prompt(client, seed=15) if one not in {first, second}]
        bias = {first: 300.0, second: 250.0}
        penalized = {
            "repetition_penalty": SamplingParams(
                temperature=0.0, logit_bias=bias, repetition_penalty=2.0
            ),
            "presence_penalty": SamplingParams(
                temperature=0.0, logit_bias=bias, presence_penalty=100.0
            ),
            "frequency_penalty": SamplingParams(
                temperature=0.0, logit_bias=bias, frequency_penalty=100.0
            ),
        }
        names = {first: "first", second: "second"}
        for name in honoured:
            stream = client.run(
                [*others, first], sampling=penalized[name], stopping=lasting(client, 4)
            )
            assert tuple(names.get(one) for one in stream.token_ids) == expected[name], name

    def test_watermark_prefers_green_tokens(self, backplane_client: WorkerClient) -> None:
        """A detector finds it in what was drawn and not in plain text; enough of it decides alone.

        Greedy under a high delta, every token is green after the one before it.
        """
        client = backplane_client
        self.require_sampling(client.info, "watermark", "temperature")
        prompt = self.prompt(client, seed=21)
        stopping = lasting(client, _MARKED_TOKENS)
        gamma = 0.5
        verdicts = [
            detect([prompt[-1], *output.token_ids], gamma)
            for output in (
                client.run(prompt, sampling=sampling, stopping=stopping)
                for sampling in (
                    SamplingParams(seed=5, watermark=Watermark(gamma=gamma, delta=8.0)),
                    SamplingParams(seed=5),
                    SamplingParams(temperature=0.0, watermark=Watermark(gamma=gamma, delta=1000.0)),
                )
            )
        ]
        marked, plain, all_green = verdicts
        assert marked.watermarked, marked
        assert not plain.watermarked, plain
        assert all_green.num_green == all_green.num_scored > 0


def _chi_square(drawn: Counter[int], weights: dict[int, float]) -> float:
    """The statistic over its critical value. Rare tokens are counted together."""
    count, total = drawn.total(), sum(weights.values())
    cells: list[tuple[float, int]] = []
    rest = (0.0, 0)
    for token_id, weight in weights.items():
        expected = count * weight / total
        if expected < _MIN_EXPECTED:
            rest = (rest[0] + expected, rest[1] + drawn[token_id])
        else:
            cells.append((expected, drawn[token_id]))
    if rest[0] >= _MIN_EXPECTED:
        cells.append(rest)
    if len(cells) < 2:  # noqa: PLR2004 -- one outcome has no distribution
        return 0.0
    statistic = sum((seen - expected) ** 2 / expected for expected, seen in cells)
    return statistic / _CRITICAL[len(cells) - 1]
