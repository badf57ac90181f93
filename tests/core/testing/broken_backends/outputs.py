"""Broken in what comes out: tokens, reasons, timing, logprobs."""

import math
from collections import Counter
from typing import Any

from backplane_core.messages import SequenceDelta, SequenceTiming, StepOutput, Submit
from backplane_core.testing.echo_runner import EchoRunner

from broken_backends.breaking import ChangingDeltas, breaks, changed


@breaks("test_max_new_tokens_is_exact")
class ForgetsThePrefillsToken(ChangingDeltas):
    """One more token where the prefill's own would have been enough."""

    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        if request.stopping.max_new_tokens > 1:
            return delta
        return changed(delta, token_ids=delta.token_ids * 2)


@breaks("test_end_token_ends_and_is_delivered")
class SwallowsAnOnlyEndToken(ChangingDeltas):
    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        only = delta.timing is not None and delta.finish_reason == "eos"
        return changed(delta, token_ids=[]) if only else delta


@breaks("test_deltas_are_well_formed")
class RepeatsTheTiming(ChangingDeltas):
    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        if delta.finish_reason is None:
            return delta
        return changed(delta, timing=SequenceTiming(0.0, 0.0, len(request.prompt_token_ids), 0))


@breaks("test_tokens_arrive_as_they_are_made", apart=True)
class HoldsBackUntilTheEnd(EchoRunner):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.held: dict[tuple[str, int], SequenceDelta] = {}

    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        ended: list[SequenceDelta] = []
        for delta in output.deltas:
            key = (delta.request_id, delta.index)
            before = self.held.pop(key, None)
            whole = delta if before is None else _joined(before, delta)
            if delta.finish_reason is None:
                self.held[key] = whole
            else:
                ended.append(whole)
        return changed(output, deltas=ended)


def _joined(one: SequenceDelta, two: SequenceDelta) -> SequenceDelta:
    return changed(
        two,
        token_ids=one.token_ids + two.token_ids,
        logprobs=None if two.logprobs is None else (one.logprobs or []) + two.logprobs,
        top_logprobs=(
            None if two.top_logprobs is None else (one.top_logprobs or []) + two.top_logprobs
        ),
        timing=one.timing or two.timing,
    )


@breaks("test_greedy_is_reproducible")
class DriftsWithUse(ChangingDeltas):
    """From the fourth time on, the same greedy request gets another first token."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.times: Counter[object] = Counter()
        self.begun: set[tuple[str, int]] = set()

    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        sequence = (delta.request_id, delta.index)
        if sequence in self.begun or not request.sampling.greedy:
            return delta
        self.begun.add(sequence)
        prompt = tuple(request.prompt_token_ids)
        key = (prompt, request.stopping, request.adapter, request.top_logprobs)
        self.times[key] += 1
        if self.times[key] < 4:
            return delta
        return changed(delta, token_ids=[delta.token_ids[0] ^ 1])


@breaks("test_greedy_is_the_known_output")
class IsAnotherModel(EchoRunner):
    """Consistent in itself: the echo begins with the second token."""

    def submit(self, request: Submit) -> None:
        super().submit(request)
        queued = self._requests[request.request_id]
        queued.cycle[:] = queued.cycle[1:] + queued.cycle[:1]


@breaks("test_batched_outputs_are_the_lone_ones")
class MixesUpLargeBatches(EchoRunner):
    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        deltas = output.deltas
        if len(deltas) <= 15:
            return output
        neighbours = [*deltas[1:], deltas[0]]
        mixed = [
            changed(delta, token_ids=other.token_ids)
            for delta, other in zip(deltas, neighbours, strict=True)
        ]
        return changed(output, deltas=mixed)


@breaks("test_logprobs_are_well_formed")
class SortsAlternativesUpwards(ChangingDeltas):
    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        if delta.top_logprobs is None:
            return delta
        return changed(delta, top_logprobs=[top[::-1] for top in delta.top_logprobs])


@breaks("test_logprobs_are_the_models_own")
class ReportsLogprobsAfterTheBias(ChangingDeltas):
    """As seen by the softmax after one token was lifted: all others sink."""

    def change_delta(self, delta: SequenceDelta, request: Submit) -> SequenceDelta:
        if delta.top_logprobs is None or not request.sampling.logit_bias:
            return delta
        sunk = [[(key, logprob - 100.0) for key, logprob in top] for top in delta.top_logprobs]
        return changed(delta, top_logprobs=sunk)


@breaks("test_prompt_logprobs_cover_the_prompt")
class ScoresTheFirstTokenToo(EchoRunner):
    """The first token follows nothing, so that it cannot have a logprob."""

    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        chunks = [
            changed(chunk, logprobs=[one or 0.0 for one in chunk.logprobs])
            for chunk in output.prompt_logprobs
        ]
        return changed(output, prompt_logprobs=chunks)


@breaks("test_prompt_logprobs_are_those_of_the_output")
class ScoresPromptsInBits(EchoRunner):
    """The output's logprobs are natural ones, the prompt's are to the base 2."""

    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        chunks = [
            changed(
                chunk,
                logprobs=[None if one is None else one / math.log(2.0) for one in chunk.logprobs],
            )
            for chunk in output.prompt_logprobs
        ]
        return changed(output, prompt_logprobs=chunks)
