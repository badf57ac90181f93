"""What the benchmarks' commands have in common, against servers that answer at once."""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from backplane_launcher.settings.bench import BenchSettings

from benchmarks import rounds
from benchmarks.contenders import OURS, Server
from benchmarks.rounds import Task, Turn, Turns, contest

STARTABLE = Path(__file__).parents[1] / "launcher" / "bench" / "startable.py"


@pytest.fixture(autouse=True)
def _takes_interrupts():
    """A process that was started in the background ignores them, as do those it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Ceiling:
    """In the engine's place. Told so, it sends this process a signal at its second turn."""

    name = "ceiling"

    def __init__(self, number=None):
        self._number = number
        self._num_turns = 0

    async def measure(self):
        self._num_turns += 1
        if self._number is not None and self._num_turns == 2:
            os.kill(os.getpid(), self._number)
            await asyncio.sleep(60)
        return {"output tok/s": 50.0}


def server(name, pace="0.001"):
    return Server(name=name, command=(sys.executable, str(STARTABLE), "{port}", pace))


def task(name, **more):
    return Task(name=name, settings=BenchSettings(concurrency=(1,), requests=2), **more)


def test_all_take_turns_at_every_task(capsys, tmp_path):
    tasks = [task("first", ceiling=Ceiling()), task("second", among=frozenset({OURS}))]
    turns = contest([server(OURS), server("slow", "0.05")], tasks, 2)
    assert [(turn.round, turn.task, turn.name) for turn in turns] == [
        (0, "first", "ceiling"),
        (0, "first", OURS),
        (0, "first", "slow"),
        (0, "second", OURS),
        (1, "first", "slow"),
        (1, "first", OURS),
        (1, "first", "ceiling"),
        (1, "second", OURS),
    ]
    assert {turn.figures["new"] for turn in turns if turn.name != "ceiling"} == {4.0}
    assert all(turn.figures["peak MiB"] > 1 for turn in turns if turn.name != "ceiling")
    asked = argparse.Namespace(json=tmp_path / "turns.json")
    rounds.report(asked, turns, shown=("output tok/s", "new"), compared=("output tok/s",))
    printed, told = capsys.readouterr()
    medians, ratios = printed.split("\n\n")[1:]
    assert "ceiling |         50.0 |      |" in medians
    assert f"{OURS} to" in ratios
    assert len(ratios.splitlines()) == 4  # two lines of head, the ceiling, the slow one
    assert f"{OURS} was ready after" in told
    kept = json.loads(asked.json.read_text())
    assert [turn["name"] for turn in kept] == [turn.name for turn in turns]


def test_each_of_several_is_compared_with_all_others(capsys):
    rates = {"small": 1.0, "large": 2.0, "other": 4.0}
    turns = Turns(
        Turn(round=round_, task="one", name=name, figures={"output tok/s": rate})
        for round_ in range(2)
        for name, rate in rates.items()
    )
    shown = ("output tok/s",)
    asked = argparse.Namespace(json=None)
    rounds.report(asked, turns, shown=shown, compared=shown, firsts=("small", "large"))
    _, _, small, large = capsys.readouterr().out.split("\n\n")
    assert small.splitlines()[0].startswith("|     | small to |")
    assert [line.split("|")[2:4] for line in small.splitlines()[2:]] == [
        ["    large ", " 0.50 (0.50 to 0.50) "],
        ["    other ", " 0.25 (0.25 to 0.25) "],
    ]
    assert [line.split("|")[2:4] for line in large.splitlines()[2:]] == [
        ["    small ", " 2.00 (2.00 to 2.00) "],
        ["    other ", " 0.50 (0.50 to 0.50) "],
    ]


def test_what_conversations_add_is_what_no_turn_or_answer_before_had():
    talk = BenchSettings(
        concurrency=(2,), requests=2, turns=3, prompts="words", output_length="2", per_request=True
    )
    tasks = [Task(name="cold", settings=talk), Task(name="warm", settings=talk, repeats="cold")]
    cold, warm = contest([server(OURS)], tasks, 1)
    # The server counts 5 tokens of each prompt and 2 of each answer.
    assert cold.figures["prompt"] == warm.figures["prompt"] == 2 * 3 * 5
    assert cold.figures["added"] == 2 * (5 - 2 - 2)
    assert warm.figures["added"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_whole_rounds_are_kept_and_shown(capsys, tmp_path, number):
    turns = contest([server(OURS)], [task("one", ceiling=Ceiling(number))], 5)
    assert [(turn.round, turn.name) for turn in turns] == [(0, "ceiling"), (0, OURS)]
    assert "told to end after 1 rounds" in capsys.readouterr().err
    asked = argparse.Namespace(json=tmp_path / "turns.json")
    with pytest.raises(SystemExit) as ended:
        rounds.report(asked, turns, shown=("output tok/s",), compared=("output tok/s",))
    assert ended.value.code == 130
    assert "; 1 rounds" in capsys.readouterr().out
    assert len(json.loads(asked.json.read_text())) == 2


def test_told_to_end_at_the_first_turn_of_a_round_the_one_before_is_whole(capsys):
    alone = task("one", ceiling=Ceiling(signal.SIGINT), among=frozenset())
    turns = contest([server(OURS)], [alone, task("two")], 5)
    assert [(turn.round, turn.task) for turn in turns] == [(0, "one"), (0, "two")]
    assert "told to end after 1 rounds" in capsys.readouterr().err


def test_told_to_end_in_the_first_round_there_is_nothing_to_show():
    ceiling = Ceiling(signal.SIGINT)
    tasks = [task("one", ceiling=ceiling), task("two", ceiling=ceiling)]
    with pytest.raises(SystemExit) as ended:
        contest([server(OURS)], tasks, 5)
    assert ended.value.code == 130
