"""Conformance: when a sequence ends, and what its deltas look like."""

import msgspec

from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, lasting
from backplane_core.testing.worker_client import WorkerClient

_CERTAIN = 100.0  # a bias no logit comes near


class StoppingTests(ConformanceBase):
    """`StoppingParams`, one by one."""

    def test_max_new_tokens_is_exact(self, backplane_client: WorkerClient) -> None:
        """Also for a single token, which the prefill alone yields."""
        self.require_stopping(backplane_client.info, "ignore_eos")
        prompt = self.prompt(backplane_client)
        for count in (1, 2, 7):
            stopping = lasting(backplane_client, count)
            output = backplane_client.run(prompt, sampling=GREEDY, stopping=stopping)[0]
            assert len(output.token_ids) == count
            assert output.finish_reason == "length"

    def test_end_token_ends_and_is_delivered(self, backplane_client: WorkerClient) -> None:
        """The model's own end token comes as the last token, with its reason."""
        self.require_sampling(backplane_client.info, "logit_bias")
        for token_id in backplane_client.info.vocabulary.eos_token_ids:
            output = backplane_client.run(
                self.prompt(backplane_client),
                sampling=certain(token_id),
                stopping=StoppingParams(max_new_tokens=5),
            )[0]
            assert output.token_ids == [token_id]
            assert output.finish_reason == "eos"

    def test_ignored_end_token_does_not_end(self, backplane_client: WorkerClient) -> None:
        """`ignore_eos` lets the end token come and go on."""
        self.require_sampling(backplane_client.info, "logit_bias")
        self.require_stopping(backplane_client.info, "ignore_eos")
        token_id = backplane_client.info.vocabulary.eos_token_ids[0]
        output = backplane_client.run(
            self.prompt(backplane_client),
            sampling=certain(token_id),
            stopping=StoppingParams(max_new_tokens=6, ignore_eos=True),
        )[0]
        assert output.token_ids == [token_id] * 6
        assert output.finish_reason == "length"

    def test_stop_token_ends_and_is_delivered(self, backplane_client: WorkerClient) -> None:
        """A token named by the request ends the sequence where it first comes."""
        self.require_stopping(backplane_client.info, "stop_token_ids")
        prompt = self.prompt(backplane_client)
        whole = backplane_client.run(
            prompt, sampling=GREEDY, stopping=lasting(backplane_client, 12)
        ).token_ids
        token_id = whole[-1]
        stopping = lasting(backplane_client, 12, stop_token_ids=(token_id,))
        output = backplane_client.run(prompt, sampling=GREEDY, stopping=stopping)[0]
        assert output.token_ids == whole[: whole.index(token_id) + 1]
        assert output.finish_reason == "stop_token"

    def test_min_new_tokens_masks_end_tokens(self, backplane_client: WorkerClient) -> None:
        """An end token wanted from the start comes right after the least number of tokens."""
        self.require_sampling(backplane_client.info, "logit_bias")
        self.require_stopping(backplane_client.info, "min_new_tokens")
        eos_ids = backplane_client.info.vocabulary.eos_token_ids
        bias = SamplingParams(temperature=0.0, logit_bias=dict.fromkeys(eos_ids, _CERTAIN))
        output = backplane_client.run(
            self.prompt(backplane_client),
            sampling=bias,
            stopping=StoppingParams(max_new_tokens=9, min_new_tokens=4),
        )[0]
        assert not set(output.token_ids[:4]) & set(eos_ids)
        assert output.token_ids[4] in eos_ids
        assert output.finish_reason == "eos"

    def test_deltas_are_well_formed(self, backplane_client: WorkerClient) -> None:
        """Timing with the first token, the reason at the end, each once, nothing after."""
        prompt = self.prompt(backplane_client)
        stopping = lasting(backplane_client, 5)
        deltas = backplane_client.run(prompt, sampling=GREEDY, stopping=stopping)[0].deltas
        assert [delta.finish_reason is not None for delta in deltas[:-1]].count(True) == 0
        first = next(place for place, delta in enumerate(deltas) if delta.token_ids)
        timings = [delta.timing for delta in deltas]
        timing = timings.pop(first)
        assert timing is not None
        assert not any(timings)
        assert timing.num_prompt_tokens == len(prompt)
        assert 0 <= timing.num_cached_tokens < len(prompt)
        assert timing.queue_s >= 0.0
        assert timing.prefill_s >= 0.0

    def test_tokens_arrive_as_they_are_made(self, backplane_client: WorkerClient) -> None:
        """A stream is a stream: no holding back until the end."""
        prompt = self.prompt(backplane_client)
        stopping = lasting(backplane_client, 32)
        output = backplane_client.run(prompt, sampling=GREEDY, stopping=stopping)[0]
        with_tokens = [delta for delta in output.deltas if delta.token_ids]
        assert len(with_tokens) >= len(output.token_ids) // 8
        assert output.first_token_tick != output.finish_tick


def certain(token_id: int) -> SamplingParams:
    """Sampling that can choose nothing but `token_id`."""
    return msgspec.structs.replace(GREEDY, logit_bias={token_id: _CERTAIN})
