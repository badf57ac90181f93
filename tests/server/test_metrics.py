"""The metrics' values against a client that counts for itself, over one server and over two."""

import contextlib
import signal
from pathlib import Path

import pytest
from server_tests_metrics_tally import (
    BATCH_DURATIONS,
    CHAT,
    HI,
    LINEAR,
    LONG,
    MAX_TOTAL,
    OURS,
    REQUEST_DURATIONS,
    SETTINGS,
    TEXT,
    TGI,
    Tally,
    edges_of,
    fallen,
    families_of,
    names_of,
    work,
)


@pytest.fixture(scope="module")
def one(stack_module):
    with stack_module.Stack(settings=SETTINGS) as running:
        yield running


@contextlib.contextmanager
def two_servers(stack_module, folder):
    """Two servers of one launch, and one worker."""
    folder = str(folder / "metrics")
    with (
        stack_module.Stack(settings=SETTINGS, metrics_dir=folder) as first,
        stack_module.Stack(worker=False, server_id="server-1", metrics_dir=folder) as second,
    ):
        second.share_worker(first)
        yield first, second


@pytest.fixture(scope="module")
def two(stack_module, tmp_path_factory):
    with two_servers(stack_module, tmp_path_factory.mktemp("two")) as running:
        yield running


def test_values_of_one_server(one):
    tally = Tally(one)
    work(tally)
    tally.check(one.metrics())


def test_values_of_two_servers_are_sums_whichever_is_asked(two):
    tally = Tally(*two)
    work(tally)
    work(tally)
    for stack in two:
        tally.check(stack.metrics())
    first, second = (
        {name: value for name, value in stack.metrics().items() if "duration" not in name}
        for stack in two
    )
    assert first == second
    assert first["backplane_workers_ready"] == 1
    texts = [names_of(stack) for stack in two]
    assert texts[0] == texts[1]


def test_the_text_is_the_same_with_a_folder_and_without(one, two):
    assert names_of(one) == names_of(two[0])


def test_failures_by_kind(stack_module):
    # Slow enough that no stream is over before its client leaves.
    with stack_module.Stack(settings=SETTINGS | {"step_seconds": 0.02}) as slow:
        check_failures(slow, stack_module)


def check_failures(one, stack_module):
    tally = Tally(one)
    tally.refuse(CHAT, {"messages": []}, status=422, kind="validation")
    body = {"inputs": "please fail", "parameters": {"max_new_tokens": 9}}
    tally.refuse("/generate", body, status=424, kind="generation")
    response, events = one.events("/generate_stream", body)
    assert (response.status_code, events[-1]["error_type"]) == (200, "generation")
    tally.requests += 1
    tally.failures["generation"] += 1
    with contextlib.ExitStack() as open_streams:
        for _ in range(3):
            raw = open_streams.enter_context(one.connect(receive_buffer=4096))
            raw.sendall(stack_module.http_request(TEXT, LONG))
            assert b"200" in raw.recv(100)
        assert one.metrics()["backplane_requests_in_flight"] == 3
    stack_module.wait_until(lambda: one.metrics()["backplane_requests_in_flight"] == 0)
    tally.requests += 3
    tally.failures["dropped"] += 3
    metrics = one.metrics()
    for kind in TGI["tgi_request_failure"]["err"]:
        name = f'tgi_request_failure{{err="{kind}"}}'
        assert metrics[name] - tally.before[name] == tally.failures[kind], kind
    assert metrics["tgi_request_count"] - tally.before["tgi_request_count"] == tally.requests
    assert metrics["tgi_request_success"] == tally.before["tgi_request_success"]


def test_a_full_worker_is_told_as_overloaded(stack_module):
    settings = {"max_sequences": 1, "max_waiting_requests": 0, "step_seconds": 0.02}
    with stack_module.Stack(settings=settings) as stack, stack.connect() as raw:
        raw.sendall(stack_module.http_request(TEXT, LONG))
        assert b"200" in raw.recv(100)
        assert stack.post("/generate", {"inputs": "b"}).status_code == 429
        metrics = stack.metrics()
        assert metrics['tgi_request_failure{err="overloaded"}'] == 1
        assert metrics["tgi_batch_current_size"] == 1


def test_before_there_is_a_worker_every_series_exists_and_is_zero(stack_module, tmp_path):
    for folder in (None, str(tmp_path / "metrics")):
        with stack_module.Stack(worker=False, metrics_dir=folder) as stack:
            families = families_of(stack)
            assert families.keys() >= TGI.keys() | OURS
            for name, labels in TGI.items():
                for label, values in labels.items():
                    seen = {sample.labels[label] for sample in families[name].samples}
                    assert seen == values, name
            assert not any(stack.metrics().values())
            assert stack.post("/generate", {"inputs": "x"}).status_code == 503
            assert stack.metrics()['tgi_request_failure{err="unavailable"}'] == 1


def test_names_types_and_edges_are_tgi_s(one):
    response = one.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "_created" not in response.text
    assert "count_total" not in response.text
    lines = response.text.splitlines()
    assert len(lines) == len(set(lines)), "each series once"
    families = families_of(one)
    counters = {"tgi_request_count", "tgi_request_success", "tgi_request_failure"}
    counters |= {name for name in TGI if name.startswith("tgi_batch_inference_")}
    counters |= {"tgi_batch_concat"}
    counters -= set(BATCH_DURATIONS)
    assert {name for name in TGI if families[name].type == "counter"} == counters
    gauges = {name for name in TGI if families[name].type == "gauge"}
    assert gauges == {
        "tgi_queue_size",
        "tgi_batch_current_size",
        "tgi_batch_current_max_tokens",
        "tgi_batch_max_total_tokens",
    }
    for name, labels in TGI.items():
        first = families[name].samples[0]
        assert set(first.labels) - {"le"} == set(labels), name
    geometric, value = [], 0.0001
    for _ in range(35):
        value *= 1.5
        geometric.append(value)
    for name in [*REQUEST_DURATIONS, *BATCH_DURATIONS]:
        assert edges_of(families[name]) == [*geometric, float("inf")]
    for name in LINEAR:
        limit = MAX_TOTAL - 1 if name == "tgi_request_input_length" else MAX_TOTAL
        assert edges_of(families[name])[:100] == [limit / 100 * step for step in range(1, 101)]
    assert edges_of(families["tgi_batch_next_size"]) == [*map(float, range(1, 1025)), float("inf")]
    assert edges_of(families["tgi_request_skipped_tokens"])[0] == 0


def test_the_engine_s_steps_add_up(one):
    before = one.metrics()
    for _ in range(3):
        one.post("/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 4}})
    now = one.metrics()
    metrics = {name: now[name] - before[name] for name in now}
    counts = {
        (what, method): metrics[f'tgi_batch_inference_{what}{{method="{method}"}}']
        for what in ("count", "success", "failure")
        for method in ("prefill", "decode")
    }
    assert counts["count", "prefill"] == counts["success", "prefill"] == 3
    assert counts["count", "decode"] == counts["success", "decode"] == 9
    assert counts["failure", "prefill"] == counts["failure", "decode"] == 0
    assert metrics["backplane_engine_steps"] == 12
    for part in ("inference", "forward", "decode"):
        for method, count in (("prefill", 3), ("decode", 9)):
            name = f'tgi_batch_{part}_duration_count{{method="{method}"}}'
            assert metrics[name] == count, name
    assert metrics["tgi_batch_next_size_sum"] == metrics["tgi_batch_next_size_count"] == 3
    assert metrics["tgi_request_skipped_tokens_sum"] == 0
    assert metrics['tgi_request_skipped_tokens_bucket{le="0.0"}'] == 12


def test_no_label_comes_from_a_client(one):
    before = set(one.metrics())
    for number in range(20):
        one.get(f"/nope/{number}")
        one.post("/generate", {"inputs": "x", f"field{number}": 1})
        one.post(CHAT, {**HI, "model": f"model-{number}", "max_tokens": 1})
        one.get("/metrics", headers={"x-request-id": f"id-{number}"})
        one._client.request("PATCH", one.url + "/generate")
    assert set(one.metrics()) == before


def test_a_worker_that_is_started_again_lowers_nothing_and_counts_nothing_twice(
    stack_module, tmp_path
):
    with two_servers(stack_module, tmp_path) as two:
        check_worker_restart(stack_module, two)


def check_worker_restart(stack_module, two):
    first, second = two
    tally = Tally(*two)
    work(tally)
    before = first.metrics()
    tally.check(before)
    assert before["backplane_worker_restarts"] == 0
    first.kill_worker()
    second.say(stack_module.WorkerDown(worker_id="worker-0", reason="signal 9"))
    for stack in two:
        stack_module.wait_until(lambda stack=stack: stack.get("/health").status_code == 503)
        assert stack.metrics()["backplane_workers_ready"] == 0
        tally.check(stack.metrics())
    first.start_worker(**SETTINGS)
    second.share_worker(first)
    work(tally)
    for stack in two:
        after = stack.metrics()
        tally.check(after)
        assert not fallen(before, after)
        assert after["backplane_worker_restarts"] == 1


def test_a_server_that_is_killed_lowers_nothing_and_counts_nothing_twice(stack_module, tmp_path):
    with two_servers(stack_module, tmp_path) as two:
        check_server_restart(stack_module, two)


def check_server_restart(stack_module, two):
    first, second = two
    tally = Tally(*two)
    work(tally)
    with second.connect(receive_buffer=4096) as raw:
        raw.sendall(stack_module.http_request(TEXT, LONG))
        assert b"200" in raw.recv(100)
        before = first.metrics()
        assert before["backplane_requests_in_flight"] == 1
        second.server.send_signal(signal.SIGKILL)
        second.server.wait()
    metrics = first.metrics()
    assert not fallen(before, metrics)
    assert metrics["backplane_requests_in_flight"] == 0
    folder = second._server_fields["metrics_dir"]
    with stack_module.Stack(worker=False, server_id="server-1.2", metrics_dir=folder) as third:
        third.share_worker(first)
        assert not fallen(metrics, third.metrics())
        assert third.metrics()["tgi_request_count"] == tally.requests + 1
        later = Tally(first, third)
        work(later)
        for stack in (first, third):
            later.check(stack.metrics())
            assert stack.metrics()["backplane_worker_restarts"] == 0


def test_files_of_servers_that_begin_or_are_gone_disturb_no_reading(two):
    folder = Path(two[0]._server_fields["metrics_dir"])
    before = two[0].metrics()
    begins = [folder / f"{kind}_1.db" for kind in ("counter", "histogram", "gauge_livesum")]
    for path in begins:
        path.touch()
    gone = folder / "gauge_livesum_4194304.db"  # above the highest process id there is
    gone.write_bytes((folder / f"gauge_livesum_{two[0].server.pid}.db").read_bytes())
    assert two[0].metrics().keys() == before.keys()
    assert not gone.exists()
    for path in begins:
        path.unlink()


def test_where_counts_lie_is_not_the_environment_s_to_say(stack_module, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with stack_module.Stack(worker=False) as stack:
        stack.post("/generate", {"inputs": "x"})
        assert stack.metrics()["tgi_request_count"] == 1
    assert not list(tmp_path.iterdir())
