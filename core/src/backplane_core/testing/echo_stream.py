"""One request inside the echo runner: its sequences, their tokens, and how each goes on."""

import time
from collections.abc import Iterable
from functools import lru_cache

from backplane_core.guidance.guide import SequenceGuide
from backplane_core.messages import (
    FinishReason,
    PromptLogprobs,
    SequenceDelta,
    SequenceTiming,
    Submit,
)
from backplane_core.sampling import sequence_seed
from backplane_core.testing import echo_model, sampling_reference
from backplane_core.testing.echo_model import EOS


class EchoRequest:
    """A request from `submit` to its last sequence's end."""

    def __init__(self, request: Submit, rotation: int, num_vocabulary: int) -> None:
        self.request = request
        self.prompt = request.prompt_token_ids
        self.num_vocabulary = num_vocabulary
        self.cycle = echo_model.expected_cycle(
            self.prompt, ignore_eos=request.stopping.ignore_eos, rotation=rotation
        )
        self.sequences = [EchoSequence(self, index) for index in range(request.num_sequences)]
        self.num_cached = 0
        self.num_prefilled = 0
        self.arrival_s = time.monotonic()
        self.start_s = 0.0

    @property
    def num_reserved(self) -> int:
        """Tokens owned on behalf of the prompt and of the sequences still there."""
        return len(self.prompt) + len(self.sequences) * self.request.stopping.max_new_tokens

    @property
    def num_uncomputed(self) -> int:
        """Prompt tokens still to be prefilled."""
        return len(self.prompt) - self.num_cached - self.num_prefilled

    def timing(self) -> SequenceTiming:
        """What goes with the first token."""
        return SequenceTiming(
            self.start_s - self.arrival_s,
            time.monotonic() - self.start_s,
            len(self.prompt),
            self.num_cached,
        )

    def prompt_logprobs(self, start: int, stop: int) -> PromptLogprobs:
        """The made-up model expects every prompt token: each is the highest of its window."""
        count = self.request.prompt_logprobs or 0
        logprobs: list[float | None] = []
        top: list[list[tuple[int, float]]] = []
        for position in range(start, stop):
            token_id = self.prompt[position]
            logits = echo_model.logits_around(token_id, ())
            values = sampling_reference.log_softmax(logits)
            logprobs.append(values[token_id] if position else None)
            top.append(_top_pairs(values, count) if position else [])
        return PromptLogprobs(
            request_id=self.request.request_id,
            start=start,
            token_ids=self.prompt[start:stop],
            logprobs=logprobs,
            top_logprobs=top if count else [],
        )


class EchoSequence:
    """One continuation. `advance` is the decode step; `guide` says what its grammar allows."""

    __slots__ = (
        *("cycle", "ends", "guide", "index", "max_output", "num_output", "output", "owner"),
        *("num_top", "place", "plain", "request_id", "seed"),
    )

    def __init__(self, owner: EchoRequest, index: int) -> None:
        request = owner.request
        sampling = request.sampling
        self.owner = owner
        self.index = index
        self.cycle = owner.cycle
        self.request_id = request.request_id
        self.num_output = 0
        self.place = 0
        self.output: list[int] = []
        self.guide: SequenceGuide | None = None
        self.seed = sequence_seed(sampling.seed, index)
        # Nothing but the cycle decides: the road for thousands of streams in a benchmark.
        self.plain = (
            sampling.greedy
            and sampling.watermark is None
            and not sampling.logit_bias
            and sampling.repetition_penalty == 1.0
            and sampling.frequency_penalty == sampling.presence_penalty == 0.0
            and request.grammar is None
            and request.stopping.min_new_tokens == 0
        )
        self.num_top = request.top_logprobs
        self.ends = {*request.stopping.stop_token_ids, EOS}
        self.max_output = request.stopping.max_new_tokens

    def advance(self) -> SequenceDelta:
        """The next token; the delta's `finish_reason` says whether it was the last.

        Raises:
            BackplaneError: its grammar cannot be followed.
        """
        expected = self.cycle[self.place % len(self.cycle)]
        self.place += 1
        self.num_output += 1
        if self.plain:
            token_id = expected
            logprobs, top = _scores(expected, self.num_top)
            if 1 < self.num_output < self.max_output and expected not in self.ends:
                return SequenceDelta(self.request_id, self.index, [expected], logprobs, top)
        else:
            token_id, logprobs, top = self._sample(expected)
            self.output.append(token_id)
        timing = self.owner.timing() if self.num_output == 1 else None
        reason = self._finish_reason(token_id)
        return SequenceDelta(self.request_id, self.index, [token_id], logprobs, top, reason, timing)

    def _finish_reason(self, token_id: int) -> FinishReason | None:
        stopping = self.owner.request.stopping
        # Under a grammar an end comes only where nothing else may.
        if token_id == EOS and not (stopping.ignore_eos and self.guide is None):
            return "eos"
        if token_id in stopping.stop_token_ids:
            return "stop_token"
        return "length" if self.num_output >= stopping.max_new_tokens else None

    def _sample(
        self, expected: int
    ) -> tuple[int, list[float] | None, list[list[tuple[int, float]]] | None]:
        request = self.owner.request
        allowed: set[int] | None = None
        masked: set[int] = set()
        likeliest = expected
        if self.guide is not None:
            allowed = echo_model.ids_in(self.guide.allowed())
            likeliest = echo_model.likeliest_of(allowed, expected)
        elif len(self.output) < request.stopping.min_new_tokens:
            masked = {EOS, *request.stopping.stop_token_ids}
        logits = echo_model.logits_around(likeliest, self._lifted(allowed or ()))
        token_id = sampling_reference.sample(
            logits,
            request.sampling,
            self.owner.prompt,
            self.output,
            seed=self.seed,
            masked=masked,
            allowed=allowed,
        )
        if self.guide is not None:
            # Under a grammar echo keeps its place until it may say what it means to.
            self.place -= token_id != expected
            self.guide.advance((token_id,))
        if self.num_top is None:
            return token_id, None, None
        logprobs = sampling_reference.log_softmax(logits)
        top = _top_pairs(logprobs, self.num_top)
        return token_id, [logprobs[token_id]], [top] if self.num_top else None

    def _lifted(self, allowed: Iterable[int]) -> Iterable[int]:
        sampling = self.owner.request.sampling
        if sampling.watermark is not None:
            return range(self.owner.num_vocabulary)
        return (*sampling.logit_bias, *allowed)


@lru_cache(maxsize=4096)
def _scores(
    expected: int, num_top: int | None
) -> tuple[list[float] | None, list[list[tuple[int, float]]] | None]:
    """Logprobs, where asked for, of a token that nothing bends; the lists are for reading only."""
    if num_top is None:
        return None, None
    logprobs = sampling_reference.log_softmax(echo_model.logits_around(expected, ()))
    top = [_top_pairs(logprobs, num_top)] if num_top else None
    return [logprobs[expected]], top


def _top_pairs(logprobs: dict[int, float], count: int) -> list[tuple[int, float]]:
    """The `count` highest, best first, lower ids first among equals."""
    order = sorted(logprobs, key=lambda token_id: (-logprobs[token_id], token_id))
    return [(token_id, logprobs[token_id]) for token_id in order[:count]]
