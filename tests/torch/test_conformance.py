"""The torch backend passes the suite that every backend has to pass, on a model of each path."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from backplane_core.backend import ModelSource
from backplane_core.testing.conformance import BackendConformance
from transformers import PreTrainedModel

from tests.torch.models.tiny_checkpoint import VOCABULARY, Case, make_model, write_checkpoint

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
LLAMA = Case(
    model_type="llama",
    config=_SIZES | {"intermediate_size": 128, "num_hidden_layers": 2, "num_key_value_heads": 2},
)
GEMMA = Case(
    model_type="gemma3_text",
    config=_SIZES
    | {"intermediate_size": 128, "num_hidden_layers": 6, "num_key_value_heads": 2}
    | {"head_dim": 16, "sliding_window": 48, "tie_word_embeddings": False},
)
BLOOM = Case(
    model_type="bloom",
    config={"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
)
T5 = Case(
    model_type="t5",
    config={"vocab_size": VOCABULARY, "d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4}
    | {"num_layers": 2, "decoder_start_token_id": 0, "tie_word_embeddings": False},
)
PROMPTS = ((70, 90, 110), (40, 41, 42, 43, 44), (200, 14))
NO_ADAPTERS = {"test_adapters_do_not_mix"}
SERVER_ENCODES = {
    "test_encoded_texts_decode_to_themselves",
    "test_texts_encoded_at_once_do_not_mix",
    "test_first_token_is_added_on_request",
    "test_special_texts_are_parsed_only_on_request",
}
# What an encoder makes of a prompt depends on all of it, and gives no logits.
ENCODED_WHOLE = {
    "test_known_prefix_is_not_computed_again",
    "test_prefixes_do_not_cross_salts",
    "test_prompt_logprobs_cover_the_prompt",
    "test_prompt_logprobs_are_those_of_the_output",
}


def greedy(model: PreTrainedModel, prompt: tuple[int, ...], num_tokens: int) -> tuple[int, ...]:
    output = model.generate(
        torch.tensor([prompt]),
        max_new_tokens=num_tokens,
        do_sample=False,
        attention_mask=torch.ones(1, len(prompt)),
    )[0].tolist()
    begin = 1 if model.config.is_encoder_decoder else len(prompt)
    return tuple(output[begin:])


class TorchConformance(BackendConformance):
    """Not collected: the classes below are."""

    __test__ = False
    backend = "torch"
    case: ClassVar[Case]
    model: ClassVar[ModelSource] = ModelSource(model_id="tiny")  # its path is known at run time
    settings: ClassVar[Mapping[str, Any]] = {"threads": 1, "block_size": 16}
    allowed_skips = frozenset(NO_ADAPTERS | SERVER_ENCODES)
    near_tie_gap = 0.02

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _tiny_model(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("model")
        model = make_model(cls.case)
        write_checkpoint(model, folder)
        cls.model = source_of(folder)
        cls.golden = tuple((prompt, greedy(model, prompt, 16)) for prompt in PROMPTS)


def source_of(folder: Path) -> ModelSource:
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ModelSource(model_id="tiny", path=str(folder), files=files)


class TestPaged(TorchConformance):
    __test__ = True
    case = LLAMA


class TestWindowedLayers(TorchConformance):
    __test__ = True
    case = GEMMA


class TestOwnCache(TorchConformance):
    __test__ = True
    case = BLOOM
    shares_prompts = False  # transformers' caches cannot


class TestEncoderDecoder(TorchConformance):
    __test__ = True
    case = T5
    shares_prompts = False
    allowed_skips = TorchConformance.allowed_skips | ENCODED_WHOLE
