"""Every kind of model gives what `generate` gives, whatever else is in its batches."""

import itertools
import random

import pytest

from tests.torch.cached.harness import Engine
from tests.torch.cached.tiny_models import CONFIGS, VOCABULARY, tiny_model

LENGTHS = (5, 9, 9, 23, 40, 9, 31)


def make_prompts(lengths, seed=1):
    numbers = random.Random(seed)  # noqa: S311 -- not for secrets
    return [[numbers.randrange(VOCABULARY) for _ in range(length)] for length in lengths]


def submit_all(engine, lengths=LENGTHS, max_new_tokens=12):
    for number, prompt in enumerate(make_prompts(lengths)):
        engine.submit(f"r{number}", prompt, max_new_tokens)


@pytest.fixture(params=CONFIGS)
def hf_model(request):
    return tiny_model(request.param)


def test_prompts_of_different_lengths_in_chunks(hf_model):
    engine = Engine(hf_model, batch_tokens=16)
    submit_all(engine)
    engine.run()
    chunks = [share for batch in engine.executor.batches for share in batch if share[1] > 1]
    assert any(start for start, _ in chunks)
    engine.check()
    assert len({token_id for answer in engine.answers.values() for token_id in answer}) > 8


def test_preempted_sequences_go_on_where_they_were(hf_model):
    engine = Engine(hf_model, batch_tokens=16, cache_tokens=75, max_total_tokens=75)
    submit_all(engine, max_new_tokens=20)
    engine.run()
    assert engine.runner.stats().num_preemptions >= 2
    engine.check()


def test_cancelled_amid_prompt_and_answer(hf_model):
    engine = Engine(hf_model, batch_tokens=16)
    submit_all(engine)
    engine.until(lambda: 0 < engine.model._num_computed.get(4, 0) < 40)
    num_tokens = len(engine.answers["r1"])
    assert 0 < num_tokens < 12
    engine.runner.cancel("r4")
    engine.runner.cancel("r1")
    engine.step()
    engine.runner.cancel("r0")
    engine.run()
    assert len(engine.answers["r1"]) == num_tokens
    assert not engine.answers["r4"]
    assert len(engine.answers["r6"]) == 12
    engine.check()


def test_a_step_without_memory_changes_nothing(hf_model):
    engine = Engine(hf_model, batch_tokens=16)
    engine.executor.fails_at = itertools.cycle(range(0, 400, 7))
    submit_all(engine, max_new_tokens=30)
    engine.until(lambda: engine.answers["r2"])
    engine.runner.cancel("r2")  # so that batches are formed anew
    engine.run()
    assert engine.executor.num_failures > 20
    engine.check()


def test_all_memory_is_free_in_the_end(hf_model):
    engine = Engine(hf_model, batch_tokens=16, settings={"max_retained_sequences": 0})
    submit_all(engine)
    engine.until(lambda: engine.answers["r6"])
    assert engine.num_bytes() > 0
    engine.run()
    assert engine.num_bytes() == 0
