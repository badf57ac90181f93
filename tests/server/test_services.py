"""Decisions without HTTP: which worker, within which limits, with what the backend can do."""

from types import SimpleNamespace

import msgspec
import pytest
from backplane_core.capabilities import Capabilities
from backplane_core.control import Progress, ServerLaunch, WorkerDown
from backplane_core.errors import BackplaneError, UnsupportedError, ValidationError
from backplane_core.sampling import SamplingParams
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.readiness import Readiness
from backplane_server.services.request_checks import check_request, fit_to_context
from backplane_server.services.services import Services
from backplane_server.services.worker_pool import least_outstanding
from backplane_server.web.errors import map_error

SETTINGS = ServerLaunch(server_id="s", control_path="", model_id="m")


def request(**fields):
    sampling = {name: fields.pop(name) for name in list(fields) if name in SAMPLING}
    return GenerationRequest(
        prompt="hi",
        add_special=True,
        sampling=SamplingParams(**sampling),
        keep_stop=False,
        names={"num_sequences": "n", "min_new_tokens": "min_tokens"},
        **fields,
    )


SAMPLING = {
    "logit_bias": {0: 1.0},
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "temperature": 0.5,
    "top_k": 5,
    "top_p": 0.5,
    "min_p": 0.1,
    "typical_p": 0.5,
}


@pytest.mark.parametrize("name", list(SAMPLING))
def test_sampling_outside_the_capabilities_names_parameter_and_backend(info, name):
    asked = request(**{name: SAMPLING[name]})
    with pytest.raises(UnsupportedError) as caught:
        check_request(asked, SETTINGS, info())
    assert caught.value.parameter == name
    assert f"`{name}`" in caught.value.message
    assert "plain" in caught.value.message
    check_request(asked, SETTINGS, info(sampling=(name,)))


@pytest.mark.parametrize(
    ("fields", "name", "capabilities"),
    [
        ({"seed": 5}, "seed", {"sampling": ("seed",)}),
        ({"ignore_eos": True}, "ignore_eos", {"stopping": ("ignore_eos",)}),
        ({"min_new_tokens": 2}, "min_tokens", {"stopping": ("min_new_tokens",)}),
        ({"stop_token_ids": (0,)}, "stop_token_ids", {"stopping": ("stop_token_ids",)}),
        ({"top_logprobs": 0}, "logprobs", {"max_top_logprobs": 0}),
        ({"top_logprobs": 3}, "top_logprobs", {"max_top_logprobs": 3}),
        ({"num_sequences": 2}, "n", {"multiple_sequences": True}),
    ],
)
def test_other_parameters_outside_the_capabilities(info, fields, name, capabilities):
    asked = request(**fields)
    short = {"max_top_logprobs": 1} if name == "top_logprobs" else {}
    with pytest.raises(UnsupportedError) as caught:
        check_request(asked, SETTINGS, info(**short))
    assert caught.value.parameter == name
    check_request(asked, SETTINGS, info(**capabilities))


def test_logprobs_that_a_route_implies_are_left_out_where_there_are_none():
    implied = request(top_logprobs=0, implied_logprobs=True)
    assert implied.fitted_to(Capabilities()).top_logprobs is None
    assert implied.fitted_to(Capabilities(max_top_logprobs=0)).top_logprobs == 0
    asked = request(top_logprobs=0)
    assert asked.fitted_to(Capabilities()).top_logprobs == 0


def test_more_sequences_than_can_run_are_refused(info):
    with pytest.raises(ValidationError, match="at most 4"):
        check_request(request(num_sequences=5), SETTINGS, info(multiple_sequences=True))


def test_the_context_bounds_new_tokens(info):
    assert fit_to_context(request(), 30, info()) == 70
    assert fit_to_context(request(max_new_tokens=70), 30, info()) == 70
    for asked, num_prompt in ((request(max_new_tokens=71), 30), (request(), 91)):
        with pytest.raises(ValidationError):
            fit_to_context(asked, num_prompt, info())


async def test_only_the_names_that_are_told_are_looked_at():
    names = iter([f"name\n{number}" for number in range(1000)])
    told = Services(SETTINGS, SimpleNamespace()).note_ignored(names)
    assert told == ", ".join(f"name%0A{number}" for number in range(20))
    assert next(names) == "name\n20"


def test_the_least_busy_replica_is_taken():
    replicas = [SimpleNamespace(outstanding_tokens=count) for count in (5, 2, 9)]
    assert least_outstanding(replicas, []) is replicas[1]


def test_readiness_tells_of_the_worker_that_is_nearest():
    readiness = Readiness()
    assert readiness.report().stage == "starting"
    told = WorkerDown(worker_id="a", reason="/secret: no disk", summary="no disk", final=True)
    readiness.down(told)
    assert readiness.report().sentence == "the model is not ready: failed: no disk"
    readiness.progress(Progress(worker_id="b", stage="load", fraction=0.25, detail="x"))
    report = readiness.report()
    assert (report.stage, report.fraction, report.ready) == ("load", 0.25, False)
    readiness.up("b")
    assert readiness.report().ready
    assert {worker.phase for worker in readiness.report().workers} == {"failed", "ready"}
    readiness.draining = True
    assert not readiness.report().ready


def every_error(root=BackplaneError):
    return [root, *(leaf for child in root.__subclasses__() for leaf in every_error(child))]


@pytest.mark.parametrize("error_class", every_error())
def test_every_error_has_a_status_and_both_shapes(error_class):
    if error_class.__name__ == "NotReadyError":
        error = error_class(Readiness().report())
    else:
        error = error_class("what happened", parameter="p", retry_after_s=2.5)
    mapped = map_error(error)
    assert 400 <= mapped.status < 600
    native = msgspec.json.decode(mapped.body("native"))
    assert set(native) >= {"error", "error_type"}
    openai = msgspec.json.decode(mapped.body("openai"))["error"]
    assert set(openai) >= {"message", "type", "param", "code"}
    if mapped.status in {429, 503}:
        assert int(mapped.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "error", [KeyError("/secret/0x7f"), ValueError("0x1234"), RuntimeError("<object at 0x9>")]
)
def test_foreign_exceptions_say_nothing(error):
    mapped = map_error(error)
    for body in (mapped.body("native"), mapped.event("openai")):
        assert b"0x" not in body
        assert b"secret" not in body
        assert b"object" not in body
        assert type(error).__name__.encode() not in body
    assert mapped.status == 500
