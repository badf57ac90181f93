"""What a sequence leaves is taken over, where it can be, and otherwise not there."""

import pytest

from tests.torch.cached.harness import Engine
from tests.torch.cached.test_generation import make_prompts
from tests.torch.cached.tiny_models import ENCODER_DECODERS, tiny_model

GROWING = ("falcon", "bloom", "mpt", "gptj", "gpt_neo")
STATEFUL = ("mamba", "mamba2", "jamba")


def num_prefilled(engine, request_id, prompt):
    before = engine.runner.stats().num_prefilled_tokens
    engine.submit(request_id, prompt, 6)
    engine.run()
    engine.check()
    return engine.runner.stats().num_prefilled_tokens - before


def second_turn(engine):
    (prompt,) = make_prompts([12])
    assert num_prefilled(engine, "first", prompt) == 12
    return [*prompt, *engine.answers["first"], 3, 4, 5]


@pytest.mark.parametrize("name", GROWING + STATEFUL)
def test_the_next_turn_goes_on_from_the_last(name):
    engine = Engine(tiny_model(name))
    turn = second_turn(engine)
    # The last token of an answer was never computed.
    assert num_prefilled(engine, "second", turn) == len(turn) - 12 - 5


@pytest.mark.parametrize("name", GROWING)
def test_a_common_prefix_is_kept_where_the_rest_can_be_dropped(name):
    engine = Engine(tiny_model(name))
    turn = second_turn(engine)
    other = [*turn[:10], 96, 95, 94]
    assert num_prefilled(engine, "third", other) == 3


@pytest.mark.parametrize("name", STATEFUL)
def test_no_part_of_a_state_is_reused(name):
    engine = Engine(tiny_model(name))
    turn = second_turn(engine)
    other = [*turn[:10], 96, 95, 94]
    assert num_prefilled(engine, "third", other) == 13


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_what_was_generated_is_no_beginning_of_another_prompt(name):
    engine = Engine(tiny_model(name))
    turn = second_turn(engine)
    assert engine.runner.stats().cached_tokens == 0
    assert num_prefilled(engine, "second", turn) == len(turn)
