"""`EncoderDecoderNetwork`: the prompt goes to an encoder, what is generated to a decoder."""

import torch
from backplane_core.batching.executor import ScheduledSequence
from backplane_core.batching.logit_rows import logit_offsets
from backplane_core.errors import ModelError
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from backplane_torch.engine.cached.growing_layer import with_room
from backplane_torch.engine.cached.layers import EncodedPrompts, Layer, bytes_per_token, cache_of
from backplane_torch.engine.cached.network import (
    Network,
    Share,
    check_layers,
    rows_of,
)
from backplane_torch.engine.checkpoint.config import max_positions
from backplane_torch.state_plan import StateShape


class EncoderDecoderNetwork(Network):
    """T5, mT5, mT0, BART and their like.

    An encoder sees a prompt's end from its beginning, so chunks of a prompt are only counted until
    the last one is there. The position of the prompt's last token is then that of the decoder's
    start token: its logits are those of the first token to generate.

        scheduled    p0 p1 p2 p3 g0 g1 g2
        encoder      p0 p1 p2 p3
        decoder                S g0 g1 g2

    Where every answer has to begin with a certain token, a language's say, that follows S and is no
    part of what is generated.

    Sequences are computed together where both their prompts and what the decoder has seen are
    equally long. Only what comes in the same step can be equally far at the decoder; to pad shorter
    prompts among that would need a mask in each class's own terms.
    """

    trimmable = False

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._start_ids = _start_ids(model)
        layers = self._probe()
        check_layers(model, layers)
        own = len(DynamicCache(config=model.config).layers)
        # A token of a prompt takes what the decoder keeps of the encoder's, one that is generated
        # what it keeps of its own: about the same.
        per_token = max(bytes_per_token(layers[:own]), bytes_per_token(layers[own:]))
        self.shape = StateShape(
            bytes_per_token=per_token,
            bytes_per_sequence=0,
            num_vocabulary=model.config.vocab_size,
            max_positions=max_positions(model.config),
            reusable=False,
            scores_prompts=False,
        )

    def share_of(self, scheduled: ScheduledSequence) -> Share | None:
        """The whole prompt with its last chunk, and what is generated."""
        start, known = scheduled.start, scheduled.sequence.token_ids
        num_prompt = scheduled.sequence.num_prompt_tokens
        end = start + len(scheduled.token_ids)
        if end < num_prompt:
            return None
        is_first = start < num_prompt
        token_ids = scheduled.token_ids
        if is_first:
            token_ids = [*self._start_ids, *known[num_prompt:end]]
        skipped = len(scheduled.token_ids) - len(token_ids)
        return Share(
            seq_id=scheduled.seq_id,
            key=(num_prompt, max(start, num_prompt - 1), len(token_ids)),
            token_ids=token_ids,
            prompt_ids=known[:num_prompt] if is_first else [],
            is_first=is_first,
            positions=[offset - skipped for offset in logit_offsets(scheduled)],
        )

    def compute(
        self, shares: list[Share], layers: list[Layer] | None
    ) -> tuple[torch.Tensor, list[Layer]]:
        """Encode, where that is to be done, and decode."""
        device = self._model.device
        if layers is None:
            prompt_ids = torch.tensor([share.prompt_ids for share in shares], device=device)
            encoded = self._model.get_encoder()(input_ids=prompt_ids, return_dict=True)[0]
            cross = DynamicCache(config=self._model.config)
            own = cache_of(with_room(DynamicCache(config=self._model.config).layers))
            cache = EncoderDecoderCache(own, cross)
        else:
            *cached, last = layers
            encoded = last.hidden_states
            half = len(cached) // 2
            cache = EncoderDecoderCache(cache_of(cached[:half]), cache_of(cached[half:]))
        logits = self._call(
            rows_of(shares),
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            decoder_input_ids=torch.tensor([share.token_ids for share in shares], device=device),
            past_key_values=cache,
        )
        own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        return logits, [*own, *cross, EncodedPrompts(encoded)]

    @torch.no_grad()
    def _probe(self) -> list[Layer]:
        """The cache of a short prompt, and the decoder's start.

        Raises:
            ModelError: the decoder does not go on from an encoder's hidden states alone.
        """
        share = Share(
            seq_id=0,
            key=(),
            token_ids=self._start_ids,
            prompt_ids=self._start_ids,
            is_first=True,
            positions=[],
        )
        try:
            return self.compute([share], None)[1]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{type(self._model).__name__} does not decode from what its encoder makes of a "
                f"prompt: {error}",
                remedy="choose another model",
            ) from error


def _start_ids(model: PreTrainedModel) -> list[int]:
    """What the decoder begins with.

    Raises:
        ModelError: nothing says it.
    """
    configs = (model.generation_config, model.config)
    names = ("decoder_start_token_id", "bos_token_id")
    named = [getattr(config, name, None) for name in names for config in configs]
    start = next((token_id for token_id in named if token_id is not None), None)
    if isinstance(start, list) and len(start) == 1:
        start = start[0]
    if not isinstance(start, int):
        raise ModelError(
            f"{type(model).__name__} does not say what its decoder begins with",
            remedy="set decoder_start_token_id in the model's generation_config.json",
        )
    forced = getattr(model.generation_config, "forced_bos_token_id", None)
    return [start] if forced is None else [start, forced]
