"""The echo backend's own promises: what it says, its pace, its faults. The rest is the suite's."""

import json
import threading
import time

import pytest
from backplane_core.backend import EngineSettings, ModelSource, Native, RunnerSpec, Unsupported
from backplane_core.errors import (
    BackendError,
    ModelError,
    OutOfMemoryError,
    UnsupportedError,
    ValidationError,
)
from backplane_core.guidance.guide import SequenceGuide
from backplane_core.messages import Grammar, SequenceDelta, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_core.testing import echo_model
from backplane_core.testing.echo import EchoBackend
from backplane_core.testing.echo_model import BOS, EOS, IM_END, IM_START
from backplane_core.testing.worker_process import WorkerProcess, WorkerStartError
from backplane_core.watermark import detect

MODEL = ModelSource(model_id="echo:test")
GREEDY = SamplingParams(temperature=0.0)


def load(engine: EngineSettings | None = None, progress=lambda *_: None, **settings):
    spec = RunnerSpec(model=MODEL, engine=engine or EngineSettings(), settings=settings)
    return EchoBackend().create_runner(spec, progress)


def submit(runner, number, prompt, *, count=8, sampling=GREEDY, stopping=None, **fields):
    runner.submit(
        Submit(
            request_id=f"t-{number}",
            prompt=[TokenSegment(token_ids=list(prompt))],
            sampling=sampling,
            stopping=stopping or StoppingParams(max_new_tokens=count),
            **fields,
        )
    )


def finish(runner) -> dict[tuple[str, int], list[int]]:
    outputs: dict[tuple[str, int], list[int]] = {}
    while runner.stats().running + runner.stats().waiting:
        for delta in runner.poll(0.1).deltas:
            outputs.setdefault((delta.request_id, delta.index), []).extend(delta.token_ids)
    return outputs


def test_it_repeats_the_prompt_then_ends():
    runner = load()
    submit(runner, 1, [BOS, *b"abc"])
    submit(runner, 2, b"abc", count=2)
    submit(runner, 3, b"abc", stopping=StoppingParams(max_new_tokens=7, ignore_eos=True))
    assert finish(runner) == {
        ("t-1", 0): [*b"abc", EOS],
        ("t-2", 0): [*b"ab"],
        ("t-3", 0): [*b"abcabca"],
    }


def test_it_answers_a_chat_with_its_last_turn():
    runner = load()
    turns = [IM_START, *b"system\nBe kind.", IM_END, *b"\n", IM_START, *b"user\nHi!", IM_END]
    submit(runner, 1, [*turns, *b"\n", IM_START, *b"assistant\n"])
    assert finish(runner) == {("t-1", 0): [*b"Hi!", EOS]}


def test_a_prompt_of_specials_alone_ends_at_once():
    runner = load()
    submit(runner, 1, [BOS])
    assert finish(runner) == {("t-1", 0): [EOS]}


def test_specials_are_parsed_wherever_they_stand():
    text = "<|im_start|>a<|im_end|><|eos|> <|im_x|>"
    ids = echo_model.tokenize(text, add_special=True, parse_special=True)
    assert ids == [BOS, IM_START, *b"a", IM_END, EOS, *b" <|im_x|>"]
    plain = echo_model.tokenize(text, add_special=False, parse_special=False)
    assert plain == [*text.encode()]


def test_the_vocabulary_grows_by_fillers():
    tokens = load(vocabulary_size=300).info.vocabulary.tokens
    assert len(tokens) == 300
    assert tokens[65] == b"A"
    assert tokens[299] == b"[299]"


def test_it_paces_its_steps():
    runner = load(step_seconds=0.02)
    for number in range(3):
        submit(runner, number, b"abcdefghij", count=6)
    started = time.monotonic()
    finish(runner)
    # Three streams share the steps: six of them lie five gaps apart.
    assert time.monotonic() - started >= 5 * 0.02
    assert runner.stats().num_steps == 6


def test_wake_ends_a_wait_and_the_limit_another():
    runner = load()
    threading.Timer(0.05, runner.wake).start()
    started = time.monotonic()
    runner.poll(10.0)
    assert time.monotonic() - started < 5.0
    started = time.monotonic()
    runner.poll(0.05)
    assert time.monotonic() - started >= 0.05


def test_it_waits_for_a_place_by_priority():
    runner = load(max_sequences=1)
    submit(runner, 1, b"aa", count=2)
    runner.poll(0.0)
    submit(runner, 2, b"bb", count=1, priority=5)
    submit(runner, 3, b"cc", count=1, priority=1)
    assert runner.stats().running == 1
    assert runner.stats().waiting == 2
    assert list(finish(runner)) == [("t-1", 0), ("t-3", 0), ("t-2", 0)]


def test_a_cancelled_request_leaves_whether_it_runs_or_waits():
    runner = load(max_sequences=1)
    submit(runner, 1, b"aa", count=50)
    submit(runner, 2, b"bb", count=50)
    runner.poll(0.0)
    assert runner.stats().used_tokens == 52
    runner.cancel("t-2")
    runner.cancel("t-1")
    runner.cancel("t-unknown")
    stats = runner.stats()
    assert (stats.running, stats.waiting, stats.used_tokens) == (0, 0, 0)
    assert stats.num_cancelled == 2
    assert runner.poll(0.0).deltas == []


def test_long_prompts_are_prefilled_in_chunks_beside_running_ones():
    runner = load(EngineSettings(max_batch_prefill_tokens=10))
    submit(runner, 1, b"ab", stopping=StoppingParams(max_new_tokens=20, ignore_eos=True))
    runner.poll(0.0)
    submit(runner, 2, b"x" * 25, count=1)
    arrived: list[list[str]] = [
        [delta.request_id for delta in runner.poll(0.0).deltas] for _ in range(3)
    ]
    # Nine tokens a step beside one decode: 9 + 9 + 7.
    assert arrived == [["t-1"], ["t-1"], ["t-1", "t-2"]]


def test_known_blocks_give_way_when_memory_is_short():
    runner = load(EngineSettings(max_total_tokens=64), cache_tokens=64)
    submit(runner, 1, b"a" * 48, count=4)
    finish(runner)
    assert runner.stats().cached_tokens == 48
    submit(runner, 2, b"b" * 30, count=30)
    runner.poll(0.0)
    stats = runner.stats()
    assert stats.used_tokens == 60
    assert stats.used_tokens + stats.cached_tokens + stats.free_tokens == 64


def test_more_than_the_whole_cache_is_out_of_memory():
    runner = load(EngineSettings(max_total_tokens=64), cache_tokens=64)
    with pytest.raises(OutOfMemoryError):
        submit(runner, 1, b"a" * 30, count=30, num_sequences=2)


@pytest.mark.parametrize(
    ("source", "prompt", "said"),
    [
        ("(yes|no|maybe)", b"no", b"no"),
        ("(yes|no|maybe)", b"zebra", b"maybe"),  # the lowest letter that may come
        ("[a-z]+!", b"ab!c", b"ab!"),
        (r"\d{3}", b"7x", b"700"),  # it keeps its place at x, which may never come
    ],
)
def test_under_a_grammar_it_says_what_it_may_of_what_it_meant_to(source, prompt, said):
    runner = load()
    submit(runner, 1, prompt, grammar=Grammar(kind="regex", source=source))
    assert bytes(finish(runner)["t-1", 0][:-1]) == said


@pytest.mark.parametrize("prompt", [b"hello world", b'{"a": [1, "x"]}', b"#"])
def test_every_json_text_comes_to_its_end(prompt):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "count": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "any": {},
            "nothing": {"type": "null"},
        },
        "required": ["name", "count", "tags", "any", "nothing"],
        "additionalProperties": False,
    }
    runner = load()
    source = json.dumps(schema)
    submit(runner, 1, prompt, count=200, grammar=Grammar(kind="json_schema", source=source))
    output = finish(runner)["t-1", 0]
    assert output[-1] == EOS
    assert set(json.loads(bytes(output[:-1]))) == set(schema["required"])


def test_requests_wait_for_their_own_grammar_alone():
    runner = load()
    submit(runner, 1, b"yes", grammar=Grammar(kind="regex", source="(yes|no)"))
    submit(runner, 2, b"ab")
    stats = runner.stats()
    assert (stats.running, stats.waiting) == (0, 2)
    assert finish(runner) == {("t-1", 0): [*b"yes", EOS], ("t-2", 0): [*b"ab", EOS]}
    submit(runner, 3, b"no", grammar=Grammar(kind="regex", source="(yes|no)"))
    runner.cancel("t-3")
    stats = runner.stats()
    assert (stats.running, stats.waiting, stats.used_tokens) == (0, 0, 0)


def test_whatever_a_guide_says_stands_in_the_way_fails_its_request_alone(monkeypatch):
    def refuse(_):
        raise ValidationError("it cannot be compiled again")

    monkeypatch.setattr(SequenceGuide, "allowed", refuse)
    runner = load()
    submit(runner, 1, b"yes", grammar=Grammar(kind="regex", source="(yes|no)"))
    submit(runner, 2, b"ab")
    failures = []
    while runner.stats().running + runner.stats().waiting:
        failures += runner.poll(0.1).failures
    assert [(one.request_id, one.error.code) for one in failures] == [("t-1", "validation")]


def test_without_llguidance_it_declares_and_takes_no_grammar(monkeypatch):
    monkeypatch.setattr("backplane_core.guidance.kinds.find_spec", lambda _: None)
    runner = load()
    assert runner.info.capabilities.grammars == ()
    with pytest.raises(UnsupportedError) as caught:
        submit(runner, 1, b"a", grammar=Grammar(kind="regex", source="a"))
    assert caught.value.parameter == "grammar"
    assert runner.stats().waiting == 0


def test_a_watermark_reaches_tokens_beyond_the_likeliest():
    runner = load()
    marked = SamplingParams(temperature=0.0, watermark=Watermark(delta=100.0))
    submit(
        runner, 1, b"x", sampling=marked, stopping=StoppingParams(max_new_tokens=9, ignore_eos=True)
    )
    output = finish(runner)["t-1", 0]
    verdict = detect([*b"x", *output], 0.5)
    assert verdict.num_green == verdict.num_scored > 0


def test_its_steps_are_counted_as_tgi_counts_batches():
    runner = load()
    submit(runner, 1, b"abcd", count=3)
    runner.poll(0.0)
    submit(runner, 2, b"ab", count=2)
    finish(runner)
    stats = runner.stats()
    assert stats.batches == {"prefill": 2, "decode": 1, "concat_chunking": 1}
    sizes = stats.histograms["batch_next_size"]
    assert (sizes.counts[0], sizes.sum) == (2, 2.0)
    assert sum(stats.histograms["batch_inference/prefill"].counts) == 2
    assert sum(stats.histograms["batch_inference/decode"].counts) == 1
    assert sum(stats.histograms["request_skipped_tokens"].counts) == stats.num_generated_tokens
    assert stats.histograms["request_skipped_tokens"].sum == 0


def test_one_request_can_be_made_to_fail():
    runner = load(fail_on="BAD")
    submit(runner, 1, b"a BAD one")
    submit(runner, 2, b"good")
    failures = []
    deltas: list[SequenceDelta] = []
    while runner.stats().running + runner.stats().waiting:
        output = runner.poll(0.0)
        failures += output.failures
        deltas += output.deltas
    assert [failed.request_id for failed in failures] == ["t-1"]
    # The fault strikes after the first token, so that it meets an open stream.
    assert sum(delta.request_id == "t-1" for delta in deltas) == 1
    assert bytes(d.token_ids[0] for d in deltas if d.request_id == "t-2" and d.token_ids != [EOS])


def test_the_engine_can_be_made_to_break():
    runner = load(raise_on="BREAK")
    submit(runner, 1, b"BREAK")
    runner.poll(0.0)
    with pytest.raises(RuntimeError):
        runner.poll(0.0)


@pytest.mark.parametrize(("fault", "dies"), [("crash_on", True), ("hang_on", False)])
def test_the_process_can_be_made_to_die_or_hang(fault, dies):
    spec = RunnerSpec(model=MODEL, settings={fault: "NOW", "step_seconds": 0.1})
    worker = WorkerProcess("echo", spec, timeout_s=20.0)
    try:
        client = worker.connect()
        stream = client.submit(
            [*b"NOW"], sampling=GREEDY, stopping=StoppingParams(max_new_tokens=9)
        )
        client.wait(lambda: bool(stream.token_ids), "the first token")
        if dies:
            assert worker.wait() == -9
        else:
            worker.observe(1.2)
            assert [beat.busy for beat in worker.heartbeats][-1]
            assert not stream.done
            assert worker.alive
    finally:
        worker.close()


def test_loading_takes_its_time_and_reports_it():
    reports: list[tuple[str, float]] = []
    started = time.monotonic()
    load(progress=lambda stage, fraction: reports.append((stage, fraction)), load_seconds=0.2)
    assert time.monotonic() - started >= 0.2
    assert reports[0] == ("load", 0.0)
    assert reports[-1] == ("load", 1.0)
    assert reports == sorted(reports)
    assert len(reports) > 10


def test_loading_can_be_made_to_fail():
    spec = RunnerSpec(model=MODEL, settings={"load_error": "no such model"})
    with pytest.raises(WorkerStartError) as caught:
        WorkerProcess("echo", spec, timeout_s=20.0)
    assert caught.value.status == 3
    assert caught.value.down is not None
    assert caught.value.down.reason == "no such model"


@pytest.mark.parametrize(
    ("engine", "settings", "named"),
    [
        (EngineSettings(dtype="float16"), {}, "dtype"),
        (EngineSettings(num_shard=2), {}, "num_shard"),
        (EngineSettings(memory_fraction=0.5), {}, "memory_fraction"),
        (EngineSettings(rope_scaling="linear"), {}, "rope_scaling"),
        (EngineSettings(rope_factor=2.0), {}, "rope_factor"),
        (EngineSettings(speculate=2), {}, "speculate"),
        (EngineSettings(cuda_graphs=(1, 2)), {}, "cuda_graphs"),
        (EngineSettings(max_input_tokens=64, max_total_tokens=64), {}, "max_input_tokens"),
        (EngineSettings(max_total_tokens=64, max_batch_total_tokens=32), {}, "cache"),
        (EngineSettings(), {"vocabulary_size": 100}, "vocabulary_size"),
    ],
)
def test_settings_it_cannot_honour_are_refused(engine, settings, named):
    with pytest.raises(BackendError, match=named):
        load(engine, **settings)


def test_what_asks_for_nothing_is_taken():
    load(EngineSettings(speculate=0, cuda_graphs=(0,)))


def test_it_serves_only_echo_models():
    backend = EchoBackend()
    assert isinstance(backend.supports(MODEL), Native)
    other = ModelSource(model_id="owner/name")
    assert isinstance(backend.supports(other), Unsupported)
    assert backend.select_files(MODEL) == ()
    with pytest.raises(ModelError):
        backend.select_files(other)
