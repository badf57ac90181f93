from array import array

import pytest
from backplane_launcher.bench.comparison import Comparison, Turn, order_of, ratios_of
from backplane_launcher.bench.comparison_table import comparison_tables
from backplane_launcher.bench.figures import figures_of, parse_limits
from backplane_launcher.bench.load import Level
from backplane_launcher.bench.processes import ProcessState
from backplane_launcher.bench.reply import Reply
from backplane_launcher.bench.report import LevelResult, this_machine
from backplane_launcher.bench.started_server import Readiness
from backplane_launcher.bench.table import number, tables


def reply(started, *arrivals, ended=None, num_output=None, failure="", num_cached=None):
    return Reply(
        started=started,
        ended=ended or arrivals[-1],
        arrivals=array("d", arrivals),
        num_prompt=10,
        num_cached=num_cached,
        num_output=num_output,
        failure=failure,
        message="the reason" if failure else "",
    )


def figures(replies, *, limits="", before=None, after=None, generator_cpu=0.1):
    return figures_of(
        Level(concurrency=2, num=len(replies)),
        replies,
        limits=parse_limits(limits),
        before=before or {},
        after=after or {},
        generator_cpu=generator_cpu,
        max_lateness_s=0.0,
    )


# One answer of 5 tokens in 3 events, one of 2 tokens, one that broke.
REPLIES = [
    reply(0.0, 0.1, 0.2, 0.5, num_output=5, num_cached=4),
    reply(1.0, 1.3, 1.4, ended=2.0),
    reply(1.0, 1.1, 1.2, 1.9, failure="cut"),
]


def test_what_a_level_comes_to():
    found = figures(REPLIES)
    assert (found.num_requests, found.num_ok, found.wall_s) == (3, 2, 2.0)
    assert (found.num_output_tokens, found.num_prompt_tokens, found.num_cached_tokens) == (7, 20, 4)
    assert found.num_counted_by_events == 1
    assert found.tokens_per_event == pytest.approx(7 / 5)
    assert found.output_tokens_per_s == pytest.approx(3.5)
    assert found.total_tokens_per_s == pytest.approx(13.5)
    assert found.requests_per_s == pytest.approx(1.0)
    assert (found.ttft_ms.min, found.ttft_ms.max) == pytest.approx((100, 300))
    assert (found.tpot_ms.min, found.tpot_ms.max) == pytest.approx((100, 100))
    # Gaps between events, of answers that came whole.
    assert (found.itl_ms.num, found.itl_ms.max) == (3, pytest.approx(300))
    assert (found.e2e_ms.min, found.e2e_ms.max) == pytest.approx((500, 1000))
    (failure,) = found.failures
    assert (failure.kind, failure.num, failure.message) == ("cut", 1, "the reason")


@pytest.mark.parametrize(
    ("limits", "per_second"),
    [
        ("ttft:150", 0.5),
        ("ttft:300.5,tpot:101", 1.0),
        ("itl:150ms", 0.5),
        ("e2e:400", 0.0),
        ("tpot:99", 0.0),
        ("", None),
    ],
)
def test_goodput_counts_who_keeps_to_every_limit(limits, per_second):
    assert figures(REPLIES, limits=limits).goodput == per_second


def test_processor_time_is_told_by_process_and_by_token():
    def state(pid, name, cpu_s):
        return ProcessState(pid=pid, name=name, cpu_s=cpu_s, rss=2**20, pss=0)

    found = figures(
        REPLIES,
        before={1: state(1, "server", 3.0)},
        after={1: state(1, "server", 3.7), 2: state(2, "worker", 1.4)},
    )
    uses = [(use.name, use.cpu_s, use.cpu_us_per_token) for use in found.processes]
    assert uses == [
        ("server", pytest.approx(0.7), pytest.approx(1e5)),
        ("worker", pytest.approx(1.4), pytest.approx(2e5)),
    ]
    assert found.cpu_us_per_token == pytest.approx(3e5)
    (together,) = [line for line in tables([found]).splitlines() if " all |" in line]
    assert [cell.strip() for cell in together.split("|")[3:6]] == ["", "2.10", "300,000"]


def test_nothing_but_failures():
    found = figures([reply(0.0, 0.5, failure="connect")], generator_cpu=0.93)
    assert (found.num_ok, found.ttft_ms, found.tokens_per_event) == (0, None, None)
    page = tables([found])
    assert "1 failed, connect: the reason" in page
    # Neither a table without a row nor a word on figures that are none.
    assert "p50" not in page
    assert "this program took" not in page


def test_prompt_tokens_that_nobody_told_are_no_zero():
    answers = [reply(0.0, 0.1, 0.2, num_output=3)]
    answers[0].num_prompt = None
    found = figures(answers)
    assert (found.num_prompt_tokens, found.total_tokens_per_s) == (None, None)
    assert "|          - |" in tables([found])


def test_a_table_says_what_weakens_it():
    page = tables([figures(REPLIES, limits="ttft:150", generator_cpu=0.93)])
    assert "this program took 93% of a core" in page
    assert "of 1 answers the server did not say how many tokens" in page
    assert "goodput/s" in page
    assert "this program took" not in tables([figures(REPLIES)])


def test_numbers_for_people():
    shown = [number(value) for value in (None, 0.1234, 12.34, 123.4, 12345.6)]
    assert shown == ["-", "0.12", "12.3", "123", "12,346"]


# ── comparisons ──────────────────────────────────────────────────────────────────────────────


def turn(name, round_, speed, ready=None):
    """A server that makes one token a request, `speed` of them a second."""
    level = figures([reply(0.0, 1 / speed, num_output=1)])
    return Turn(
        name=name,
        round=round_,
        url="",
        model=None,
        server="",
        levels=[LevelResult(figures=level)],
        readiness=ready and Readiness(ready_s=ready, first_answer_s=2 * ready),
    )


def test_ratios_are_taken_within_rounds():
    # The machine halves its speed from round to round; the ratio does not notice.
    turns = [
        turn(name, round_, speed / 2**round_)
        for round_ in range(4)
        for name, speed in (("a", 30.0), ("b", 20.0))
    ]
    found = {ratio.figure: ratio for ratio in ratios_of(turns, "a")}
    speed = found["output tok/s"]
    assert (speed.load, speed.first, speed.other) == ("2", "a", "b")
    assert (speed.ratio.low, speed.ratio.median, speed.ratio.high) == pytest.approx((1.5,) * 3)
    assert len(speed.ratio.values) == 4
    assert found["TTFT p50 ms"].ratio.median == pytest.approx(1 / 1.5)
    # One event has no gap, and nobody was started.
    assert not {"ITL p50 ms", "goodput/s", "ready s"} & set(found)


def test_times_to_ready_are_compared_where_there_are_any():
    turns = [turn("a", 0, 1.0, ready=2.0), turn("b", 0, 1.0, ready=4.0), turn("c", 0, 1.0)]
    found = [each for each in ratios_of(turns, "a") if each.load == "start"]
    told = [(each.other, each.figure, each.ratio.median) for each in found]
    assert told == [("b", "ready s", 0.5), ("b", "first answer s", 0.5)]


@pytest.mark.parametrize(("num_rounds", "too_few"), [(5, True), (6, False)])
def test_intervals_of_few_rounds_are_called_what_they_are(num_rounds, too_few):
    turns = [turn(name, round_, 1.0) for round_ in range(num_rounds) for name in "ab"]
    comparison = Comparison(
        seed=1, settings={}, machine=this_machine(), turns=turns, ratios=ratios_of(turns, "a")
    )
    assert ("too few for 95 %" in comparison_tables(comparison)) == too_few


def test_turns_go_to_and_fro():
    assert [order_of(["a", "b", "c"], round_) for round_ in range(3)] == [
        ["a", "b", "c"],
        ["c", "b", "a"],
        ["a", "b", "c"],
    ]
