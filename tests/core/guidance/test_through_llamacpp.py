"""Grammars obeyed by a real engine: the demo model, and tiny models of random weights."""

import contextlib
import json
import re
from pathlib import Path

import backplane_launcher
import pytest
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.errors import GenerationError, ValidationError
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.worker_process import WorkerProcess

from tests.llamacpp import tiny_gguf

DEMO = Path(backplane_launcher.__file__).parent / "demo_model" / "backplane-demo-f16.gguf"
START_TIMEOUT_S = 60.0
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {
            "type": "array",
            "items": {"enum": ["red", "green", "blue"]},
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@contextlib.contextmanager
def served(path):
    spec = RunnerSpec(
        model=ModelSource(model_id="m", path=str(path), files=(path.name,)),
        engine=EngineSettings(max_total_tokens=512),
        settings={"n_threads": 1},
    )
    with contextlib.closing(WorkerProcess("llamacpp", spec, timeout_s=START_TIMEOUT_S)) as worker:
        yield worker.connect()


@pytest.fixture(scope="module", params=["demo", "bpe", "spm"])
def client(request, tmp_path_factory):
    path = DEMO
    if request.param != "demo":
        folder = tmp_path_factory.mktemp("gguf")
        path = tiny_gguf.write(folder / "tiny.gguf", vocabulary=request.param)
    with served(path) as connected:
        yield connected


def submit(client, grammar, *, seed=0, max_new_tokens=200, temperature=1.0, **fields):
    return client.submit(
        client.tokenize(["Tell me of a person."])[0],
        grammar=grammar,
        sampling=SamplingParams(temperature=temperature, seed=seed),
        stopping=StoppingParams(max_new_tokens=max_new_tokens),
        **fields,
    )


def text_of(client, stream, index=0):
    vocabulary = client.info.vocabulary
    ends = set(vocabulary.eos_token_ids)
    ids = [token_id for token_id in stream[index].token_ids if token_id not in ends]
    return b"".join(vocabulary.tokens[token_id] for token_id in ids).decode()


def schema(value):
    return Grammar(kind="json_schema", source=json.dumps(value))


def regex(source):
    return Grammar(kind="regex", source=source)


def check_person(text):
    person = json.loads(text)
    assert set(person) == {"name", "age", "tags"}
    assert isinstance(person["name"], str)
    assert len(person["name"]) <= 12
    assert type(person["age"]) is int
    assert 0 <= person["age"] <= 120
    assert 1 <= len(person["tags"]) <= 2
    assert set(person["tags"]) <= {"red", "green", "blue"}


def test_all_kinds_are_named(client):
    assert set(client.info.capabilities.grammars) == {"json_schema", "regex", "lark"}


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_a_schema_is_obeyed_to_its_end(client, temperature):
    streams = [
        submit(client, schema(PERSON), seed=seed, temperature=temperature) for seed in range(4)
    ]
    client.finish(streams)
    for stream in streams:
        assert stream.error is None
        assert stream[0].finish_reason == "eos"
        check_person(text_of(client, stream))


def test_grammars_of_all_kinds_side_by_side(client):
    lark = 'start: greeting " " name\ngreeting: "hi" | "ho"\nname: /[a-z]{2,6}/\n'
    patterns = {
        r"\d{3}-\d{4}": regex(r"\d{3}-\d{4}"),
        r"yes|no|maybe": regex("yes|no|maybe"),
        r"(hi|ho) [a-z]{2,6}": Grammar(kind="lark", source=lark),
    }
    streams = {
        (pattern, seed): submit(client, grammar, seed=seed)
        for pattern, grammar in patterns.items()
        for seed in range(3)
    }
    client.finish(streams.values())
    for (pattern, _), stream in streams.items():
        assert re.fullmatch(pattern, text_of(client, stream), re.ASCII)


def test_forks_go_their_own_ways(client):
    stream = submit(client, regex("[a-z]{6}"), num_sequences=4)
    client.finish([stream])
    texts = {text_of(client, stream, index) for index in range(4)}
    assert all(re.fullmatch("[a-z]{6}", text) for text in texts)
    assert len(texts) > 1


def test_the_end_comes_where_nothing_else_can(client):
    stream = client.submit(
        client.tokenize(["Yes or no?"])[0],
        grammar=regex("yes|no"),
        stopping=StoppingParams(max_new_tokens=40, min_new_tokens=30, ignore_eos=True),
    )
    client.finish([stream])
    assert text_of(client, stream) in {"yes", "no"}
    assert stream[0].finish_reason == "eos"


def test_logprobs_are_the_models_own_not_the_grammars(client):
    """Under a grammar of one text each token would else have a logprob of 0."""
    stream = submit(client, regex("zqzqzq"), top_logprobs=0)
    client.finish([stream])
    assert all(logprob < -0.01 for logprob in stream[0].logprobs[:-1])


def test_what_breaks_or_explodes_fails_alone(client):
    free = client.submit(
        client.tokenize(["Go on."])[0],
        stopping=StoppingParams(max_new_tokens=100, ignore_eos=True),
    )
    broken = submit(client, regex("("))
    deep = submit(client, schema({"$ref": "#"}))
    long = submit(client, regex("a" * 10**6))
    bounded = [
        submit(client, regex(source), max_new_tokens=150)
        for source in ("(a+)+b", "((a{1,1000}){1,1000})", "(a|b)*a(a|b){60}", r"(\p{L}{1,300}){99}")
    ]
    client.finish([free, broken, deep, long, *bounded])
    assert len(free.token_ids) == 100
    assert free.error is None
    for stream in (broken, deep, long):
        assert isinstance(stream.error, ValidationError | GenerationError)
    for stream in bounded:
        assert stream.error is None or isinstance(stream.error, GenerationError)
    again = submit(client, schema(PERSON))
    client.finish([again])
    check_person(text_of(client, again))


def resident_bytes(pid):
    num_pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(num_pages) * 4096


def test_a_thousand_distinct_schemas_take_a_bounded_part_of_memory(tmp_path):
    path = tiny_gguf.write(tmp_path / "tiny.gguf")
    spec = RunnerSpec(
        model=ModelSource(model_id="m", path=str(path), files=(path.name,)),
        engine=EngineSettings(max_total_tokens=128),
        settings={"n_threads": 1},
    )
    with contextlib.closing(WorkerProcess("llamacpp", spec, timeout_s=START_TIMEOUT_S)) as worker:
        client = worker.connect()
        prompt = client.tokenize(["x"])[0]
        sizes = []
        for begin in range(0, 1000, 50):
            streams = [
                client.submit(
                    prompt,
                    grammar=schema(
                        {
                            "type": "object",
                            "properties": {f"field_{number}": {"type": "boolean"}},
                            "required": [f"field_{number}"],
                            "additionalProperties": False,
                        }
                    ),
                    stopping=StoppingParams(max_new_tokens=60),
                )
                for number in range(begin, begin + 50)
            ]
            client.finish(streams)
            for number, stream in enumerate(streams, begin):
                assert list(json.loads(text_of(client, stream))) == [f"field_{number}"]
            sizes.append(resident_bytes(worker.process.pid))
    assert max(sizes) - sizes[0] < 256 * 1024 * 1024
