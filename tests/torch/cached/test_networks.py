"""What is found out of a model before it serves, and which models are refused, with why."""

import pytest
import torch
from backplane_core.backend import EngineSettings
from backplane_core.batching.executor import MemoryLayout
from backplane_core.errors import GenerationError, ModelError
from backplane_torch.engine.cached import selective_scan
from backplane_torch.engine.cached.model import create_cached_model, create_network
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    MiniMaxConfig,
    MistralConfig,
    OpenAIGPTConfig,
    RwkvConfig,
)

from tests.torch.cached.harness import Engine, PlainDevice
from tests.torch.cached.test_generation import make_prompts
from tests.torch.cached.tiny_models import CONFIGS, ENCODER_DECODERS, VOCABULARY, tiny_model

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY}


def sliding_model():
    config = MistralConfig(
        **_SMALL,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.4,
        tie_word_embeddings=False,
    )
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


@pytest.mark.parametrize(
    ("name", "per_token", "per_sequence"),
    [
        # Keys and values, layers, one head of 8 numbers, room for an eighth more.
        ("falcon", 2 * 2 * 8 * 4 * 9 / 8, 0),
        (
            "falcon new",
            2 * 2 * 4 * 8 * 4 * 9 / 8,
            0,
        ),  # its two heads once per query head
        ("gptj", 2 * 2 * 32 * 4 * 9 / 8, 0),
        ("mamba", 0, 2 * 64 * (4 + 8) * 4),  # layers, inner width, convolution and state
        ("t5", 2 * 2 * 32 * 4 + 32 * 4, 0),  # and what the encoder made of it
    ],
)
def test_memory_is_measured(name, per_token, per_sequence):
    shape = create_network(tiny_model(name)).shape
    assert (shape.bytes_per_token, shape.bytes_per_sequence) == (per_token, per_sequence)
    assert shape.num_vocabulary == VOCABULARY


@pytest.mark.parametrize("name", CONFIGS)
def test_traits_say_what_can_be_dropped_and_scored(name):
    engine = Engine(tiny_model(name))
    traits = engine.model.traits
    assert traits.layout is MemoryLayout.CELLS
    assert not traits.shareable
    assert traits.trimmable == (
        name not in {"mamba", "falcon_mamba", "mamba2", "jamba", *ENCODER_DECODERS}
    )
    assert traits.reusable == (name not in ENCODER_DECODERS)
    assert (traits.max_scored_tokens > 0) == (name not in ENCODER_DECODERS)


@pytest.mark.parametrize("name", ["mamba", "falcon_mamba", "mamba2", "jamba", "bloom"])
def test_prompts_go_on_in_chunks_at_once(name):
    assert create_network(tiny_model(name))._continues


def test_a_scan_that_begins_anew_is_noticed_and_stepped_through(monkeypatch):
    monkeypatch.setattr(selective_scan, "_MIXERS", ())
    engine = Engine(tiny_model("mamba"), batch_tokens=16)
    assert not engine.model._network._continues
    (prompt,) = make_prompts([40])
    engine.submit("r0", prompt, 8, prompt_logprobs=0)
    assert [engine.step_forwards() for _ in range(3)] == [1, 16, 8]
    engine.run()
    engine.check()
    with torch.no_grad():
        logprobs = engine.reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
    expected = logprobs[range(39), prompt[1:]].tolist()
    assert engine.reports["r0"][1:] == pytest.approx(expected, abs=1e-4)


def test_windows_are_computed_but_not_trimmed():
    engine = Engine(sliding_model(), batch_tokens=16, cache_tokens=75, max_total_tokens=75)
    assert not engine.model.traits.trimmable
    for number, prompt in enumerate(make_prompts((5, 30, 30, 12, 40))):
        engine.submit(f"r{number}", prompt, 20)
    engine.executor.fails_at = iter(range(0, 10_000, 11))
    engine.run()
    assert engine.runner.stats().num_preemptions
    assert engine.executor.num_failures
    engine.check()


@pytest.mark.parametrize("name", ["falcon", "mamba", "mamba2", "jamba"])
def test_prompts_are_scored_chunk_by_chunk(name):
    engine = Engine(tiny_model(name), batch_tokens=16, scored_tokens=6)
    (prompt,) = make_prompts([21])
    engine.submit("other", prompt[:7], 20)
    engine.submit("scored", prompt, 2, prompt_logprobs=0)
    engine.run()
    with torch.no_grad():
        logprobs = engine.reference(torch.tensor([prompt])).logits[0].log_softmax(-1)
    expected = logprobs[range(20), prompt[1:]].tolist()
    assert engine.reports["scored"][0] is None
    assert engine.reports["scored"][1:] == pytest.approx(expected, abs=1e-4)
    engine.check()


def test_models_without_a_cache_are_refused():
    config = OpenAIGPTConfig(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY)
    with pytest.raises(ModelError, match="OpenAIGPTLMHeadModel takes no cache"):
        create_network(AutoModelForCausalLM.from_config(config).eval())
    config = RwkvConfig(**_SMALL, attention_hidden_size=32)
    with pytest.raises(ModelError, match="RwkvForCausalLM takes no cache"):
        create_network(AutoModelForCausalLM.from_config(config).eval())


def test_a_model_that_wants_another_cache_is_refused():
    config = MiniMaxConfig(
        **_SMALL,
        intermediate_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        num_experts_per_tok=1,
        head_dim=8,
        block_size=4,
    )
    with pytest.raises(ModelError, match="does not run on transformers' DynamicCache: "):
        create_network(AutoModelForCausalLM.from_config(config).eval())


def test_a_cache_that_holds_more_than_is_known_is_refused():
    model = tiny_model("gptj")

    def keep_more(_module, _inputs, named, _output):
        named["past_key_values"].layers[0].landmarks = {0: [torch.zeros(1, 3)]}

    model.register_forward_hook(keep_more, with_kwargs=True)
    with pytest.raises(ModelError, match="keeps landmarks in GrowingLayer"):
        create_network(model)


def test_models_that_make_no_logits_are_refused(monkeypatch):
    model = AutoModel.from_config(CONFIGS["gptj"]()).eval()
    with pytest.raises(ModelError, match="GPTJModel has no output layer"):
        create_network(model)
    model = tiny_model("gptj")
    weight = model.lm_head.weight
    del model.lm_head
    model.lm_head = lambda hidden: hidden @ weight.T
    monkeypatch.setattr(model, "get_output_embeddings", lambda: torch.nn.Linear(32, VOCABULARY))
    with pytest.raises(ModelError, match="does not let its output layer make the logits"):
        create_network(model)


def test_positions_bound_a_sequence_where_they_end():
    assert create_network(tiny_model("gptj")).shape.max_positions == 128
    assert create_network(tiny_model("mpt")).shape.max_positions == 128
    assert create_network(tiny_model("bloom")).shape.max_positions is None
    assert create_network(tiny_model("mamba")).shape.max_positions is None
    t5 = tiny_model("t5")
    t5.config.n_positions = 512  # as its checkpoints say, whose positions are relative
    assert create_network(t5).shape.max_positions is None


def test_a_sequence_trimmed_to_nothing_begins_anew():
    engine = Engine(tiny_model("gptj"), batch_tokens=16)
    engine.submit("r0", range(40), 4)
    engine.step()
    engine.model.trim(0, 0)
    assert engine.num_bytes() == 0
    engine.runner.cancel("r0")
    engine.submit("r1", range(20), 4)
    engine.run()
    engine.check()


@pytest.mark.parametrize("start", [None, [], [1, 2]])
def test_an_encoder_decoder_that_does_not_say_how_to_begin_is_refused(start):
    model = tiny_model("t5")
    model.generation_config.decoder_start_token_id = start
    model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="does not say what its decoder begins with"):
        create_network(model)


def test_a_sequence_that_goes_on_elsewhere_is_no_silent_mistake():
    engine = Engine(tiny_model("gptj"), batch_tokens=16)
    engine.submit("r0", range(40), 4)
    engine.step()
    engine.model.trim(0, 7)
    with pytest.raises(GenerationError, match="goes on at token 16 the cache holds 7"):
        engine.step()


@pytest.mark.parametrize("name", ["falcon", "mamba"])
def test_a_model_is_as_before_once_it_is_closed(name):
    hf_model = tiny_model(name)
    model = create_cached_model(hf_model, PlainDevice(), EngineSettings(max_total_tokens=64))
    assert model.plan.max_total_tokens == 64
    assert num_hooks(hf_model) >= 1
    model.close()
    assert num_hooks(hf_model) == 0


def num_hooks(model):
    modules = list(model.modules())
    return sum(len(one._forward_pre_hooks) + len(one._forward_hooks) for one in modules)
