"""Broken in what it takes a request for: sampling and stopping parameters ignored or mixed up."""

from typing import Any

from backplane_core.errors import GenerationError, OutOfMemoryError, OverloadedError
from backplane_core.messages import Submit
from backplane_core.testing.echo_model import EOS
from backplane_core.testing.echo_runner import EchoRunner

from broken_backends.breaking import ChangingSampling, ChangingStopping, breaks, changed


@breaks("test_ignored_end_token_does_not_end")
class ForgetsToIgnore(ChangingStopping):
    """Only where the bias asks for end tokens: echo makes none of its own when ignoring them."""

    def change_stopping(self, stopping: Any, request: Submit) -> Any:
        wanted = EOS in request.sampling.logit_bias
        return changed(stopping, ignore_eos=stopping.ignore_eos and not wanted)


@breaks("test_stop_token_ends_and_is_delivered")
class IgnoresStopTokens(ChangingStopping):
    def change_stopping(self, stopping: Any, request: Submit) -> Any:
        return changed(stopping, stop_token_ids=())


@breaks("test_min_new_tokens_masks_end_tokens")
class IgnoresMinNewTokens(ChangingStopping):
    def change_stopping(self, stopping: Any, request: Submit) -> Any:
        return changed(stopping, min_new_tokens=0)


@breaks("test_different_seeds_differ")
class RoundsSeeds(ChangingSampling):
    """The lowest bits do not arrive."""

    def change_sampling(self, sampling: Any) -> Any:
        return changed(sampling, seed=sampling.seed & ~3)


@breaks("test_draws_follow_the_distribution")
class ClipsTemperatures(ChangingSampling):
    def change_sampling(self, sampling: Any) -> Any:
        return changed(sampling, temperature=min(sampling.temperature, 0.5))


@breaks("test_cuts_to_one_token_are_greedy")
class IgnoresMinP(ChangingSampling):
    def change_sampling(self, sampling: Any) -> Any:
        return changed(sampling, min_p=0.0)


@breaks("test_logit_bias_lifts_and_bans")
class IgnoresNegativeBias(ChangingSampling):
    def change_sampling(self, sampling: Any) -> Any:
        lifted = {key: bias for key, bias in sampling.logit_bias.items() if bias > 0.0}
        return changed(sampling, logit_bias=lifted)


@breaks("test_penalties_count_what_they_should")
class CountsThePromptToo(EchoRunner):
    """As TGI does: words of the prompt are driven out of the answer."""

    def submit(self, request: Submit) -> None:
        super().submit(request)
        if request.sampling.presence_penalty or request.sampling.frequency_penalty:
            for sequence in self._requests[request.request_id].sequences:
                sequence.output = list(sequence.owner.prompt)


@breaks("test_watermark_prefers_green_tokens")
class PrefersRedTokens(ChangingSampling):
    def change_sampling(self, sampling: Any) -> Any:
        if sampling.watermark is None:
            return sampling
        return changed(
            sampling, watermark=changed(sampling.watermark, delta=-sampling.watermark.delta)
        )


@breaks("test_unknown_token_ids_are_refused")
class StumblesOverTheLastToken(EchoRunner):
    """An embedding table one row short."""

    def submit(self, request: Submit) -> None:
        if len(self.info.vocabulary.tokens) - 1 in request.prompt_token_ids:
            raise GenerationError("index out of range in the embedding")
        super().submit(request)


@breaks("test_longest_sequence_is_served_and_a_longer_one_refused")
class PromisesOneTokenTooMany(EchoRunner):
    def submit(self, request: Submit) -> None:
        if len(request.prompt_token_ids) >= self.info.limits.max_input_tokens:
            raise OutOfMemoryError("the prompt does not fit")
        super().submit(request)


@breaks("test_overload_is_refused_and_the_accepted_served")
class HasFewerPlacesThanItSays(EchoRunner):
    def submit(self, request: Submit) -> None:
        if len(self._requests) >= 40:
            raise OverloadedError("the queue is full", retry_after_s=1.0)
        super().submit(request)
