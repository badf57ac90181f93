"""A model of random weights as a folder that the torch backend loads, and as transformers' own.

The tokens of its tokenizer are the bytes, so that every text has tokens and any token is text.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

_SPECIAL = ("<pad>", "<s>", "</s>")
PAD_ID, BOS_ID, EOS_ID = range(len(_SPECIAL))
# A few rows are no token's, as in embeddings that are padded to a round number.
VOCABULARY = 272


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of model, small.

    Attributes:
        model_type: its name in transformers.
        config: what differs from the class's defaults.
        variant: which of the class's ways to compute this config is about.
        seed: of the weights.
        weight_std: of matrices; large enough that answers vary.
        cache_tokens: so few that the sequences of the proof do not all fit at once.
        attention: what transformers computes attention with where it is the reference.
    """

    model_type: str
    config: dict[str, Any]
    variant: str = ""
    seed: int = 0
    weight_std: float = 0.15
    cache_tokens: int = 136
    attention: str = "eager"

    @property
    def name(self) -> str:
        """For tests and pages."""
        return f"{self.model_type}, {self.variant}" if self.variant else self.model_type


def make_model(case: Case) -> PreTrainedModel:
    """The model in float32, as transformers computes it by itself."""
    torch.manual_seed(case.seed)
    config = AutoConfig.for_model(case.model_type, **case.config)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32, attn_implementation=case.attention)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # What sets the pace of a state is left as it is, or the state would explode.
            is_pace = any(part in name for part in ("A_log", "conv", "dt_"))
            is_vector = parameter.dim() < 2 and not name.endswith(("bias", "sinks"))
            # What is not trained (sines of positions) is in no checkpoint.
            if parameter.requires_grad and not is_pace and not is_vector:
                parameter.normal_(std=case.weight_std)
    generation = model.generation_config
    generation.eos_token_id = None
    generation.forced_eos_token_id = None  # else the last token of any answer
    generation.pad_token_id = PAD_ID
    return model.eval()


def write_checkpoint(model: PreTrainedModel, folder: Path) -> None:
    """Weights, configuration and tokenizer."""
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
