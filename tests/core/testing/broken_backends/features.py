"""Broken in tokenizing, seeds, choices, grammars and adapters."""

import time

from backplane_core.messages import Failed, SequenceDelta, StepOutput, Submit
from backplane_core.testing.echo_runner import EchoRunner

from broken_backends.breaking import breaks, changed


@breaks("test_encoded_texts_decode_to_themselves")
class EncodesLatinAlone(EchoRunner):
    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        latin = [text.encode("latin-1", errors="replace").decode("latin-1") for text in texts]
        return super().tokenize(latin, add_special=add_special, parse_special=parse_special)


@breaks("test_texts_encoded_at_once_do_not_mix")
class EncodesInOnePlace(EchoRunner):
    """What one thread is to encode lies where the other one puts its own."""

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        self._texts = texts
        time.sleep(0.002)
        return super().tokenize(self._texts, add_special=add_special, parse_special=parse_special)


@breaks("test_first_token_is_added_on_request")
class NeverAddsTheFirstToken(EchoRunner):
    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        return super().tokenize(texts, add_special=False, parse_special=parse_special)


@breaks("test_special_texts_are_parsed_only_on_request")
class AlwaysParsesSpecials(EchoRunner):
    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        return super().tokenize(texts, add_special=add_special, parse_special=True)


@breaks("test_choices_share_a_prompt_and_differ_in_seed")
class GivesAllChoicesOneSeed(EchoRunner):
    def submit(self, request: Submit) -> None:
        super().submit(request)
        sequences = self._requests[request.request_id].sequences
        for sequence in sequences:
            sequence.seed = sequences[0].seed


@breaks("test_same_seed_same_tokens")
class DrawsByTheBatch(EchoRunner):
    """One generator for all: what a request draws depends on who is beside it."""

    def _step(self, started: float) -> StepOutput:
        time.sleep(0.002)  # else the first requests may be over before the fifth arrives
        if len({sequence.owner for sequence in self._decoding}) > 4:
            for sequence in self._decoding:
                sequence.seed += 1
        return super()._step(started)


@breaks("test_grammars_are_obeyed")
class ConstrainsEverySecondRequest(EchoRunner):
    def submit(self, request: Submit) -> None:
        super().submit(request)
        if request.sampling.seed % 2:
            for sequence in self._requests[request.request_id].sequences:
                sequence.guide = None


@breaks("test_a_grammar_may_end_where_nothing_else_follows")
class NeverEndsWhereNoEndIsAskedFor(EchoRunner):
    """The tokens are the grammar's; the end that comes is not taken for one."""

    def _commit(self, deltas: list[SequenceDelta]) -> int:
        for number, delta in enumerate(deltas):
            request = self._decoding[number].owner.request
            forbidden = request.stopping.ignore_eos or request.stopping.min_new_tokens
            if request.grammar is not None and forbidden:
                deltas[number] = changed(delta, finish_reason=None)
        return super()._commit(deltas)


@breaks("test_grammars_leave_their_neighbours_alone")
class MasksTheRowsBesideToo(EchoRunner):
    """Guided sequences push the others off their place."""

    def _step(self, started: float) -> StepOutput:
        guided = [one.owner.request.grammar is not None for one in self._decoding]
        if any(guided):
            for sequence, is_guided in zip(self._decoding, guided, strict=True):
                sequence.place += not is_guided
        return super()._step(started)


@breaks("test_a_broken_grammar_fails_alone")
class GoesOnWithoutTheGrammar(EchoRunner):
    def _settle_guides(self) -> list[Failed]:
        for request, error in self._guides.settled():
            if error is not None:
                for sequence in request.sequences:
                    sequence.guide = None
            self._queue(request)
        return []


@breaks("test_adapters_do_not_mix")
class AppliesTheFirstAdapterToAll(EchoRunner):
    def _step(self, started: float) -> StepOutput:
        owners = {sequence.owner: None for sequence in self._decoding}
        adapted = [owner for owner in owners if owner.request.adapter]
        if adapted and len(owners) > 1:
            for sequence in self._decoding:
                sequence.cycle = adapted[0].cycle
        return super()._step(started)
