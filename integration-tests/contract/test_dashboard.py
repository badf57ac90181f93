"""The Grafana board that TGI's users have finds each series it asks for (section 5.1)."""

from typing import Any

import pytest
from contract.wire import CHAT, answered, get, post, streamed, user
from deployment import Deployment
from prometheus_client.parser import text_string_to_metric_families

DURATION_EDGES = [0.00015 * 1.5**step for step in range(35)]
NUM_STEPS = 100
# Series → type, and the labels that a query selects or groups by.
BOARD: dict[str, tuple[str, set[str]]] = {
    "tgi_request_count": ("counter", set()),
    "tgi_request_success": ("counter", set()),
    "tgi_request_failure": ("counter", {"err"}),
    "tgi_request_duration": ("histogram", set()),
    "tgi_request_queue_duration": ("histogram", set()),
    "tgi_request_validation_duration": ("histogram", set()),
    "tgi_request_inference_duration": ("histogram", set()),
    "tgi_request_mean_time_per_token_duration": ("histogram", set()),
    "tgi_request_generated_tokens": ("histogram", set()),
    "tgi_request_input_length": ("histogram", set()),
    "tgi_request_max_new_tokens": ("histogram", set()),
    "tgi_request_skipped_tokens": ("histogram", set()),
    "tgi_queue_size": ("gauge", set()),
    "tgi_batch_current_size": ("gauge", set()),
    "tgi_batch_current_max_tokens": ("gauge", set()),
    "tgi_batch_max_total_tokens": ("gauge", set()),
    "tgi_batch_next_size": ("histogram", set()),
    "tgi_batch_concat": ("counter", {"reason"}),
    "tgi_batch_inference_count": ("counter", {"method"}),
    "tgi_batch_inference_success": ("counter", {"method"}),
    "tgi_batch_inference_duration": ("histogram", {"method"}),
    "tgi_batch_forward_duration": ("histogram", {"method"}),
    "tgi_batch_decode_duration": ("histogram", {"method"}),
    "tgi_batch_filter_duration": ("histogram", {"method"}),
    "tgi_batch_concat_duration": ("histogram", {"method"}),
}
METHODS = {"prefill", "decode"}


class Scrape:
    """One reading of `/metrics`."""

    def __init__(self, deployment: Deployment) -> None:
        text = get(deployment, "/metrics").text
        self.types: dict[str, str] = {}
        self.samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.types[name] = kind
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples.setdefault(sample.name, []).append((sample.labels, sample.value))
        self.names = {
            line.partition("{")[0].partition(" ")[0]
            for line in text.splitlines()
            if line and not line.startswith("#")
        }
        self.lines = text.splitlines()

    def value(self, series: str) -> float:
        """The sum of the samples that begin with a series' name and labels."""
        found = [line for line in self.lines if line.startswith((f"{series} ", f"{series}{{"))]
        if "{" in series:
            found = [line for line in self.lines if line.startswith(series)]
        assert found, f"no {series}"
        return sum(float(line.rpartition(" ")[2]) for line in found)


@pytest.fixture(scope="module")
def requests_made(demo) -> dict[str, Any]:
    """A few requests of every kind, and what a client counted of them."""
    before = Scrape(demo)
    answers = [
        answered(demo, "/generate", {"inputs": "Backplane", "parameters": {"max_new_tokens": 9}}),
        answered(demo, CHAT, {"messages": user("What is Backplane?"), "max_tokens": 12}),
        streamed(
            demo,
            "/generate_stream",
            {"inputs": "A backend is", "parameters": {"max_new_tokens": 7, "details": True}},
        ),
    ]
    post(demo, "/generate", {"inputs": "", "parameters": {}})
    tokens = 9 + answers[1]["usage"]["completion_tokens"] + len(answers[2])
    prompt = answers[1]["usage"]["prompt_tokens"] + answers[2][-1]["details"]["input_length"]
    return {"before": before, "after": Scrape(demo), "generated": tokens, "prompt": prompt}


@pytest.mark.parametrize("name", BOARD)
def test_the_board_finds_the_series(requests_made, name):
    after = requests_made["after"]
    kind, labels = BOARD[name]
    assert after.types[name] == kind
    suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
    for suffix in suffixes:
        assert name + suffix in after.names
    series = [
        line for line in after.lines if line.startswith((f"{name}{suffixes[0]}{{", f"{name} "))
    ]
    for label in labels:
        assert all(f'{label}="' in line for line in series), series[:3]


def test_no_name_is_decorated(requests_made):
    """Prometheus' own libraries add `_total` and `_created`, which no board of TGI's asks for."""
    names = {name for name in requests_made["after"].names if name.startswith("tgi_")}
    assert not {name for name in names if name.endswith(("_total", "_created"))}


@pytest.mark.parametrize(
    "name", [name for name in BOARD if name.endswith("duration")]
)  # fmt: skip
def test_durations_have_tgis_edges(requests_made, name):
    edges = edges_of(requests_made["after"], name)
    assert edges == pytest.approx(DURATION_EDGES, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("tgi_request_generated_tokens", "max_total_tokens"),
        ("tgi_request_input_length", "max_input_tokens"),
        ("tgi_request_max_new_tokens", "max_total_tokens"),
    ],
)
def test_token_histograms_have_a_hundred_steps(demo, requests_made, name, limit):
    edges = edges_of(requests_made["after"], name)
    step = get(demo, "/info").json()[limit] / NUM_STEPS
    assert edges == pytest.approx([step * count for count in range(1, NUM_STEPS + 1)], rel=1e-6)


def edges_of(scrape: Scrape, name: str) -> list[float]:
    lines = [line for line in scrape.lines if line.startswith(f"{name}_bucket{{")]
    edges = {float(line.partition('le="')[2].partition('"')[0]) for line in lines}
    return sorted(edges - {float("inf")})


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize(
    "name",
    [
        "tgi_batch_inference_count",
        "tgi_batch_inference_success",
        "tgi_batch_inference_duration_count",
        "tgi_batch_forward_duration_count",
        "tgi_batch_decode_duration_count",
    ],
)
def test_both_methods_were_counted(requests_made, name, method):
    assert requests_made["after"].value(f'{name}{{method="{method}"') > 0


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ("tgi_request_count", 4),
        ("tgi_request_success", 3),
        ('tgi_request_failure{err="validation"', 1),
        ("tgi_request_duration_count", 3),
        ("tgi_request_queue_duration_count", 3),
        ("tgi_request_input_length_count", 3),
        ("tgi_request_generated_tokens_count", 3),
    ],
)
def test_a_request_counts_once(requests_made, series, expected):
    """TGI counts a chat twice and a completion once more than it has prompts."""
    before, after = requests_made["before"], requests_made["after"]
    assert after.value(series) - before.value(series) == expected


def test_the_sums_are_what_a_client_counts(requests_made):
    before, after = requests_made["before"], requests_made["after"]

    def grown(series: str) -> float:
        return after.value(series) - before.value(series)

    assert grown("tgi_request_generated_tokens_sum") == requests_made["generated"]
    assert grown("tgi_request_input_length_sum") >= requests_made["prompt"]
    assert grown("tgi_request_duration_sum") >= grown("tgi_request_inference_duration_sum") > 0


def test_what_tgi_lacks_is_there_too(requests_made):
    names = requests_made["after"].names
    assert "backplane_request_first_token_duration_bucket" in names
    assert "backplane_inter_token_duration_bucket" in names
    assert "backplane_cached_tokens" in names
    assert "backplane_worker_restarts" in names
