"""Who is equally long is computed together: counted in forward passes."""

import pytest

from tests.torch.cached.harness import Engine
from tests.torch.cached.test_generation import make_prompts
from tests.torch.cached.tiny_models import CONFIGS, ENCODER_DECODERS, tiny_model

STATES = ("mamba", "falcon_mamba", "mamba2")


def four_alike(name, length=9):
    engine = Engine(tiny_model(name), batch_tokens=64)
    for number, prompt in enumerate(make_prompts([length] * 4)):
        engine.submit(f"r{number}", prompt, 16)
    return engine


@pytest.mark.parametrize("name", CONFIGS)
def test_four_equally_long_sequences_take_one_forward_pass(name):
    engine = four_alike(name)
    assert [engine.step_forwards() for _ in range(5)] == [1] * 5
    engine.check()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_group_goes_on_without_who_leaves(name):
    engine = four_alike(name)
    engine.step()
    engine.runner.cancel("r2")
    assert [engine.step_forwards() for _ in range(3)] == [1] * 3
    engine.check()


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name not in STATES + ENCODER_DECODERS]
)
def test_a_prompt_as_long_as_a_group_has_become_joins_it(name):
    engine = four_alike(name)
    engine.step()
    engine.step()
    # After the next step the four have 9 + 2 tokens computed.
    (prompt,) = make_prompts([11], seed=2)
    engine.submit("r4", prompt, 16)
    assert [engine.step_forwards() for _ in range(3)] == [2, 1, 1]
    engine.check()


@pytest.mark.parametrize("name", STATES)
def test_states_are_computed_together_at_any_length(name):
    engine = Engine(tiny_model(name), batch_tokens=64)
    for number, prompt in enumerate(make_prompts([5, 17, 30])):
        engine.submit(f"r{number}", prompt, 16)
    assert [engine.step_forwards() for _ in range(4)] == [3, 1, 1, 1]
    engine.check()


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_encoded_prompts_are_computed_together_where_equally_long(name):
    engine = Engine(tiny_model(name), batch_tokens=64)
    for number, prompt in enumerate(make_prompts([5, 17, 5, 17])):
        engine.submit(f"r{number}", prompt, 16)
    assert [engine.step_forwards() for _ in range(4)] == [2] * 4
    engine.check()


def test_a_group_splits_when_a_preempted_one_comes_back_later():
    engine = four_alike("gptj")
    for _ in range(4):
        engine.step()
    scheduler = engine.runner._scheduler
    scheduler._preempt(scheduler._last())
    assert scheduler._memory.drop_cached()
    # The one that left computes its prompt and answer again, beside the others, and has then as
    # many tokens as they.
    assert [engine.step_forwards() for _ in range(3)] == [2, 1, 1]
    engine.run()
    engine.check()
