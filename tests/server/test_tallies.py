"""Plain numbers handed on to Prometheus's: what is told is what telling each would have told."""

import asyncio

from backplane_server.metrics.metrics import Metrics
from backplane_server.metrics.tallies import TalliedCounter, TalliedHistogram
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BOUNDS = (0.1, 0.5, 2.0)
AMOUNTS = st.lists(st.one_of(st.floats(0, 10), st.sampled_from(BOUNDS)))


def samples(registry):
    return {
        (sample.name, sample.labels.get("le")): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(AMOUNTS, max_size=5))
def test_a_histogram_tells_what_observing_each_would_tell(batches):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallied = TalliedHistogram("h", "text", registry=ours, buckets=BOUNDS)
    plain = Histogram("h", "text", registry=theirs, buckets=BOUNDS)
    for batch in batches:
        for amount in batch[:1]:
            tallied.take(amount)
        tallied.take_all(batch[1:])
        for amount in batch:
            plain.observe(amount)
        tallied.hand_on()
    found, expected = samples(ours), samples(theirs)
    assert abs(found.pop(("h_sum", None)) - expected.pop(("h_sum", None))) < 1e-9
    assert found == expected


def test_nothing_is_told_before_it_is_handed_on_nor_twice():
    registry = CollectorRegistry()
    counter = TalliedCounter(Counter("c", "text", registry=registry))
    gauge = TalliedCounter(Gauge("g", "text", registry=registry))
    for tally in (counter, gauge):
        tally.add(2)
    gauge.add(-3)
    assert samples(registry) == {("c_total", None): 0.0, ("g", None): 0.0}
    for _ in range(2):
        counter.hand_on()
        gauge.hand_on()
        assert samples(registry) == {("c_total", None): 2.0, ("g", None): -1.0}


async def soon(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


def value(metrics, name):
    families = {family.name: family for family in metrics.request_series()}
    return families[name].samples[0].value


async def test_what_happens_is_told_soon_though_nobody_asks():
    metrics = Metrics()
    metrics.arrived()
    assert value(metrics, "tgi_request_count") == 0
    await soon(lambda: value(metrics, "tgi_request_count") == 1)
    metrics.left()
    await soon(lambda: value(metrics, "backplane_requests_in_flight") == 0)


async def test_who_asks_is_told_everything_at_once():
    metrics = Metrics()
    metrics.arrived()
    metrics.failed("overloaded")
    metrics.left()
    await metrics.settle()
    assert value(metrics, "tgi_request_count") == 1
    told = {
        sample.labels["err"]: sample.value
        for family in metrics.request_series()
        if family.name == "tgi_request_failure"
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    assert told["overloaded"] == 1
    assert sum(told.values()) == 1
