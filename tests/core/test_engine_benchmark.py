"""Measuring a runner in its own interpreter: what is counted, and what it has no room for."""

import sys

import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.engine_benchmark import Order, measure, run
from backplane_core.errors import BackplaneError, SetupError
from backplane_core.sampling import SamplingParams


def order(**changes):
    settings = changes.pop("settings", {})
    fields = {
        "backend": "echo",
        "spec": RunnerSpec(
            model=ModelSource(model_id="echo:"), engine=EngineSettings(), settings=settings
        ),
        "batch_sizes": (1, 3),
        "sequence_length": 6,
        "decode_length": 5,
        "runs": 2,
        "warmups": 1,
        "sampling": SamplingParams(temperature=0.0),
    }
    return Order(**{**fields, **changes})


def silent(stage, fraction=None, detail=""):
    pass


def test_every_batch_is_run_and_timed_in_the_interpreter_it_is_given():
    heard = []
    outcome = run(sys.executable, order(), lambda *report: heard.append(report))
    assert (outcome.backend, outcome.model_id) == ("echo", "echo:")
    assert [batch.batch_size for batch in outcome.batches] == [1, 3]
    for batch in outcome.batches:
        assert len(batch.runs) == 2
        for one in batch.runs:
            # The first token of each belongs to the prefill.
            assert one.num_decoded == batch.batch_size * 4
            assert len(one.steps_s) >= 4
            assert sum(one.steps_s) == pytest.approx(one.decode_s)
            assert one.prefill_s > 0
    measured = [report for report in heard if report[0] == "measure"]
    assert measured[0] == ("measure", 0.0, "batch of 1")
    assert measured[-1][1] == 1.0


def test_one_new_token_is_all_prefill():
    (batch,) = measure(order(batch_sizes=(2,), decode_length=1, runs=1), silent).batches
    assert (batch.runs[0].num_decoded, batch.runs[0].steps_s) == (0, [])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_sizes": (1, 9), "settings": {"max_sequences": 4}}, "more than the 4 sequences"),
        ({"sequence_length": 10**6}, "are more than the model's"),
        (
            {
                "batch_sizes": (2,),
                "sequence_length": 3000,
                "settings": {"cache_tokens": 5000},
            },
            "needs 6010 tokens of cache, and there are 5000",
        ),
    ],
)
def test_what_there_is_no_room_for(changes, told):
    with pytest.raises(SetupError, match=told):
        measure(order(**changes), silent)


def test_what_stands_in_the_way_comes_as_the_error_it_was():
    with pytest.raises(BackplaneError, match="torn"):
        run(sys.executable, order(settings={"load_error": "torn"}), silent)
