"""What a client counts of its own requests, and what it reads of a server's metrics."""

from bisect import bisect_left
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HI = {"messages": [{"role": "user", "content": "hello"}]}
MAX_TOTAL = 4096
SETTINGS = {"fail_on": "please fail", "max_sequences": 2, "max_waiting_requests": 1}
# Lasts long: for ever, to a test, where steps take time.
LONG = {"prompt": "a", "max_tokens": 4000, "ignore_eos": True, "stream": True}

REQUEST_DURATIONS = [
    "tgi_request_duration",
    "tgi_request_validation_duration",
    "tgi_request_queue_duration",
    "tgi_request_inference_duration",
    "tgi_request_mean_time_per_token_duration",
]
LINEAR = [
    "tgi_request_generated_tokens",
    "tgi_request_input_length",
    "tgi_request_max_new_tokens",
]
BATCH_DURATIONS = [
    f"tgi_batch_{part}_duration" for part in ("inference", "forward", "decode", "filter", "concat")
]
# TGI's metrics with the label values that each has.
TGI = {
    "tgi_request_count": {},
    "tgi_request_success": {},
    "tgi_request_failure": {
        "err": {
            "overloaded",
            "validation",
            "generation",
            "incomplete",
            "dropped",
            "template",
            "unavailable",
        }
    },
    **{name: {} for name in [*REQUEST_DURATIONS, *LINEAR]},
    "tgi_request_skipped_tokens": {},
    "tgi_queue_size": {},
    "tgi_batch_current_size": {},
    "tgi_batch_current_max_tokens": {},
    "tgi_batch_max_total_tokens": {},
    "tgi_batch_next_size": {},
    "tgi_batch_concat": {"reason": {"backpressure", "wait_exceeded", "chunking"}},
    **{
        f"tgi_batch_inference_{what}": {"method": {"prefill", "decode"}}
        for what in ("count", "success", "failure")
    },
    **{name: {"method": {"prefill", "decode"}} for name in BATCH_DURATIONS},
    "tgi_batch_concat_duration": {"method": {"decode"}},
}
OURS = {
    "backplane_request_first_token_duration",
    "backplane_inter_token_duration",
    "backplane_requests_in_flight",
    "backplane_worker_restarts",
    "backplane_workers_ready",
    "backplane_cached_tokens",
    "backplane_prompt_tokens",
    "backplane_generated_tokens",
    "backplane_batch_tokens",
    "backplane_batch_sequences",
}


class Tally:
    """A client's own account of what it asked for and was given."""

    def __init__(self, *stacks):
        self.stacks = stacks
        self.before = stacks[0].metrics()
        self.requests = 0
        self.answered = 0
        self.failures = Counter()
        self.prompts = []  # token counts, one for each prompt a worker took
        self.limits = []  # the tokens each of them might make
        self.generated = []  # tokens of each answered request
        self.first_tokens = 0
        self.gaps = 0
        self.tokens = 0
        self.seconds = 0.0

    @property
    def next(self):
        """The servers take turns."""
        return self.stacks[self.requests % len(self.stacks)]

    def generate(self, path, body, *, prompts, new_tokens, sequences=1):
        """A request that is answered: its prompts' lengths, and the tokens of each sequence."""
        stack = self.next
        self.requests += 1
        response = stack.post(path, body)
        assert response.status_code == 200, response.text
        self.answered += 1
        self.prompts += prompts
        self.limits += [new_tokens] * len(prompts)
        each = len(prompts) * sequences
        self.generated.append(each * new_tokens)
        self.first_tokens += len(prompts)
        self.gaps += each * (new_tokens - 1)
        self.tokens += each * new_tokens
        self.seconds += response.elapsed.total_seconds()

    def refuse(self, path, body, *, status, kind, raw=False):
        """A request that is refused before a worker takes it."""
        stack = self.next
        self.requests += 1
        response = stack.post_raw(path, body) if raw else stack.post(path, body)
        assert response.status_code == status, response.text
        self.failures[kind] += 1

    def check(self, metrics):
        grown = Counter({name: metrics[name] - self.before.get(name, 0) for name in metrics})
        assert grown["tgi_request_count"] == self.requests
        assert grown["tgi_request_success"] == self.answered
        for kind in TGI["tgi_request_failure"]["err"]:
            assert grown[f'tgi_request_failure{{err="{kind}"}}'] == self.failures[kind], kind
        assert self.requests == self.answered + self.failures.total(), "each once"
        for name in REQUEST_DURATIONS:
            assert grown[f"{name}_count"] == len(self.generated)
        assert 0 < grown["tgi_request_duration_sum"] <= self.seconds
        parts = ("validation", "queue", "inference")
        whole = sum(grown[f"tgi_request_{part}_duration_sum"] for part in parts)
        assert whole == pytest.approx(grown["tgi_request_duration_sum"], rel=0.05)
        for name, values, limit in (
            (LINEAR[0], self.generated, MAX_TOTAL),
            (LINEAR[1], self.prompts, MAX_TOTAL - 1),
            (LINEAR[2], self.limits, MAX_TOTAL),
        ):
            assert grown[f"{name}_count"] == len(values)
            assert grown[f"{name}_sum"] == sum(values)
            edges = [limit / 100 * step for step in range(1, 101)]
            for place, edge in enumerate(edges):
                cumulated = sum(bisect_left(edges, value) <= place for value in values)
                assert grown[f'{name}_bucket{{le="{edge!r}"}}'] == cumulated, (name, edge)
        assert grown["backplane_request_first_token_duration_count"] == self.first_tokens
        assert grown["backplane_inter_token_duration_count"] == self.gaps
        assert grown["backplane_generated_tokens"] == self.tokens


def work(tally):
    """Some of everything. Echo answers with the prompt's own tokens, one more than characters."""
    few = {"max_new_tokens": 4}
    native = {"inputs": "hello", "parameters": few}
    tally.generate("/generate", native, prompts=[6], new_tokens=4)
    tally.generate("/generate_stream", native, prompts=[6], new_tokens=4)
    tally.generate("/", {**native, "stream": True}, prompts=[6], new_tokens=4)
    tally.generate("/", native, prompts=[6], new_tokens=4)
    tally.generate(
        "/generate", {"inputs": "x" * 200, "parameters": few}, prompts=[201], new_tokens=4
    )
    options = {"max_tokens": 3, "temperature": 0}
    tally.generate(CHAT, {**HI, **options}, prompts=[24], new_tokens=3)
    tally.generate(CHAT, {**HI, **options, "stream": True}, prompts=[24], new_tokens=3)
    tally.generate(CHAT, {**HI, **options, "n": 2}, prompts=[24], new_tokens=3, sequences=2)
    tally.generate(TEXT, {**options, "prompt": ["ab", "cd"]}, prompts=[3, 3], new_tokens=3)
    tally.refuse("/generate", b"{", status=400, kind="validation", raw=True)
    tally.refuse("/generate", b" " * 2_000_001, status=413, kind="validation", raw=True)
    tally.refuse("/generate_stream", {"inputs": ""}, status=422, kind="validation")
    tally.refuse(CHAT, {**HI, "temperature": -1}, status=422, kind="validation")
    tally.refuse(TEXT, {"prompt": 5}, status=422, kind="validation")


def names_of(stack):
    """The text of `/metrics` without the values."""
    lines = stack.get("/metrics").text.splitlines()
    return [line if line.startswith("#") else line.rpartition(" ")[0] for line in lines]


def families_of(stack):
    families = text_string_to_metric_families(stack.get("/metrics").text)
    return {family.name: family for family in families}


def edges_of(family):
    edges = {}
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            labels = tuple(sorted(set(sample.labels.items()) - {("le", sample.labels["le"])}))
            edges.setdefault(labels, []).append(float(sample.labels["le"]))
    found = list(edges.values())
    assert all(each == found[0] for each in found)
    return found[0]


def fallen(before, after):
    """Series that are lower than they were, gauges aside."""
    gauges = ("tgi_queue", "tgi_batch_current", "tgi_batch_max", "backplane_cache", "backplane_b")
    return [
        name
        for name, value in before.items()
        if after[name] < value
        and not name.startswith((*gauges, "backplane_workers_ready", "backplane_requests_in"))
    ]
