"""docs/examples/alphabet, the backend that the documentation walks through, does what it says."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from backplane_core.backend import ModelSource, RunnerSpec, Unsupported
from backplane_core.messages import Submit, TokenSegment
from backplane_core.registry import discover
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing import sampling_vectors
from backplane_core.testing.conformance import BackendConformance

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "alphabet"
PLUGIN = "backplane_alphabet.plugin"
END = 256


class TestAlphabet(BackendConformance):
    """The suite that docs/writing-a-backend.md tells authors to subclass."""

    backend = "alphabet"
    model = ModelSource(model_id="alphabet:latin")
    environment = {  # noqa: RUF012 -- the suite never writes it
        "PYTHONPATH": str(EXAMPLE / "src"),
        "BACKPLANE_EXTRA_PLUGINS": PLUGIN,
    }
    settings = {"step_seconds": 0.001}  # noqa: RUF012 -- the suite never writes it
    golden = (((*b"abc",), (*b"defgh",)), ((*b"x",), (*b"yz", END)))
    allowed_skips = frozenset(
        {
            "test_a_broken_grammar_fails_alone",
            "test_a_grammar_may_end_where_nothing_else_follows",
            "test_adapters_do_not_mix",
            "test_cancelling_one_choice_leaves_the_others",
            "test_choices_share_a_prompt_and_differ_in_seed",
            "test_grammars_are_obeyed",
            "test_grammars_leave_their_neighbours_alone",
            "test_known_prefix_is_not_computed_again",
            "test_penalties_count_what_they_should",
            "test_prefixes_do_not_cross_salts",
            "test_prompt_logprobs_are_those_of_the_output",
            "test_prompt_logprobs_cover_the_prompt",
            "test_watermark_prefers_green_tokens",
        }
    )


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE / "src")
    monkeypatch.setenv("BACKPLANE_EXTRA_PLUGINS", PLUGIN)
    registry = discover(only=[PLUGIN])
    assert registry.failures == {}
    return registry.create("alphabet")


def recite(backend, prompt, *, max_new_tokens, settings=()):
    spec = RunnerSpec(model=ModelSource(model_id="alphabet:latin"), settings=dict(settings))
    runner = backend.create_runner(spec, lambda stage, fraction=None, detail="": None)
    try:
        vocabulary = runner.info.vocabulary.tokens
        (ids,) = runner.tokenize([prompt], add_special=True, parse_special=False)
        runner.submit(
            Submit(
                request_id="s-1",
                prompt=[TokenSegment(token_ids=ids)],
                sampling=SamplingParams(temperature=0.0),
                stopping=StoppingParams(max_new_tokens=max_new_tokens),
            )
        )
        text, reason = b"", None
        while reason is None:
            for delta in runner.poll(1.0).deltas:
                text += b"".join(vocabulary[token_id] for token_id in delta.token_ids)
                reason = delta.finish_reason
        return text, reason
    finally:
        runner.close()


def test_it_recites(backend):
    assert recite(backend, "abc", max_new_tokens=4) == (b"defg", "length")


def test_it_ends_at_the_end(backend):
    assert recite(backend, "x", max_new_tokens=10) == (b"yz<end>", "eos")


def test_its_setting_is_honoured(backend):
    assert recite(backend, "a", max_new_tokens=3, settings={"stride": "2"}) == (b"ceg", "length")


def test_its_sampler_draws_as_the_vectors_say(backend):
    """As docs/writing-a-backend.md advises, for the parameters that the example declares."""
    executor = importlib.import_module("backplane_alphabet.executor")
    declared = set(importlib.import_module("backplane_alphabet.runner").CAPABILITIES.sampling)
    num_checked = 0
    for case in sampling_vectors.load().cases:
        asked = {
            name
            for name in SamplingParams.__struct_fields__
            if getattr(case.params, name) != getattr(SamplingParams(), name)
        }
        if not asked <= declared:
            continue
        logits = {one: logit for one, logit in enumerate(case.logits) if one not in case.masked}
        if case.params.greedy:
            assert executor.draw(logits, case.params, 0.5) == case.kept[0].token_id, case.name
        for draw in case.draws:
            drawn = executor.draw(logits, case.params, draw.number)
            assert drawn == draw.token_id, case.name
        num_checked += 1
    assert num_checked > 3
    del backend  # its fixture makes the example importable


def test_its_runner_imports_nothing_of_the_kit():
    for module in (EXAMPLE / "src").rglob("*.py"):
        assert "backplane_core.testing" not in module.read_text(), module


def test_it_serves_nothing_else(backend):
    assert isinstance(backend.supports(ModelSource(model_id="llama")), Unsupported)


def test_its_plugin_module_loads_no_engine():
    """What docs/writing-a-backend.md asks for: the launcher reads facts alone."""
    probe = (
        f"import sys; sys.path.insert(0, {str(EXAMPLE / 'src')!r}); import {PLUGIN};"
        "print('backplane_alphabet.runner' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "False"
