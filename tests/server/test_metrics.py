"""Metrics against what was sent: exact names, and each request counted once."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hello"}]}
TGI_NAMES = {
    "tgi_request_count",
    "tgi_request_success",
    "tgi_request_failure",
    "tgi_request_duration",
    "tgi_request_validation_duration",
    "tgi_request_queue_duration",
    "tgi_request_inference_duration",
    "tgi_request_mean_time_per_token_duration",
    "tgi_request_generated_tokens",
    "tgi_request_input_length",
    "tgi_request_max_new_tokens",
    "tgi_queue_size",
    "tgi_batch_current_size",
    "tgi_batch_current_max_tokens",
    "tgi_batch_max_total_tokens",
}


@pytest.fixture(scope="module")
def counted(stack_module):
    with stack_module.Stack() as running:
        yield running


def test_values_against_requests_sent(counted):
    before = counted.metrics()
    parameters = {"max_new_tokens": 4}
    assert counted.post("/generate", {"inputs": "hello", "parameters": parameters}).is_success
    counted.events("/generate_stream", {"inputs": "hello", "parameters": parameters})
    counted.events(CHAT, {**HI, "stream": True, "max_tokens": 4, "temperature": 0})
    counted.post(CHAT, {**HI, "max_tokens": 4, "temperature": 0, "n": 3})
    counted.post("/v1/completions", {"prompt": ["ab", "cd"], "max_tokens": 2, "temperature": 0})
    counted.post("/tokenize", {"inputs": "x"})
    counted.post_raw("/generate", b"{")
    counted.post("/generate", {"inputs": ""})
    counted.post(CHAT, {**HI, "tools": [{}]})
    now = counted.metrics()
    grown = {name: now[name] - before.get(name, 0) for name in now}
    assert grown["tgi_request_count"] == 9
    assert grown["tgi_request_success"] == 6
    assert grown['tgi_request_failure{err="validation"}'] == 3
    assert grown["tgi_request_duration_count"] == 5
    assert grown["tgi_request_generated_tokens_count"] == 5
    assert grown["tgi_request_generated_tokens_sum"] == 4 + 4 + 4 + 12 + 4
    assert grown["tgi_request_input_length_count"] == 6
    assert grown["tgi_request_input_length_sum"] == 6 + 6 + 24 + 24 + 3 + 3
    assert grown["tgi_request_max_new_tokens_sum"] == 4 * 4 + 2 * 2
    assert grown["backplane_request_first_token_duration_count"] == 6
    assert grown["backplane_generated_tokens"] == 28
    assert now["tgi_batch_current_size"] == now["tgi_queue_size"] == 0
    assert now["backplane_workers_ready"] == 1
    assert now["tgi_batch_max_total_tokens"] > 0


def test_names_are_exact_and_the_text_is_prometheus(counted):
    response = counted.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "_created" not in response.text
    assert "count_total" not in response.text
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert families.keys() >= TGI_NAMES
    durations = [name for name in families if name.endswith("duration")]
    edges = [
        float(sample.labels["le"])
        for sample in families["tgi_request_duration"].samples
        if sample.name.endswith("_bucket")
    ]
    assert len(durations) == 6
    assert len(edges) == 36
    assert edges[0] == pytest.approx(0.00015)
    assert edges[34] == pytest.approx(0.00015 * 1.5**34)
    lengths = [
        float(sample.labels["le"])
        for sample in families["tgi_request_input_length"].samples
        if sample.name.endswith("_bucket")
    ]
    assert (len(lengths), lengths[0], lengths[99]) == (101, 40.95, pytest.approx(4095))


def test_no_label_comes_from_a_client(counted):
    before = len(counted.metrics())
    for number in range(20):
        counted.get(f"/nope/{number}")
        counted.post("/generate", {"inputs": "x", f"field{number}": 1})
    assert len(counted.metrics()) == before


def test_a_restarted_worker_lowers_no_counter(stack_module):
    with stack_module.Stack() as stack:
        body = {"inputs": "hello", "parameters": {"max_new_tokens": 4}}
        stack.post("/generate", body)
        before = stack.metrics()
        assert before["backplane_generated_tokens"] == 4
        stack.kill_worker()
        stack_module.wait_until(lambda: stack.get("/health").status_code == 503)
        assert stack.metrics()["backplane_workers_ready"] == 0
        assert stack.metrics()["backplane_generated_tokens"] == 4
        stack.start_worker()
        stack.post("/generate", body)
        after = stack.metrics()
        assert after["backplane_generated_tokens"] == 8
        falling = [
            name
            for name, value in after.items()
            if value < before[name] and name.startswith(("tgi_request", "backplane_gen"))
        ]
        assert not falling
