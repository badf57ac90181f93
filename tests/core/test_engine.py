"""The engine loop over a runner made of plain values: what counts as progress."""

import threading

import pytest
from backplane_core.messages import RunnerStats, SequenceDelta, StepOutput
from backplane_core.worker.engine import EngineLoop


class ScriptedRunner:
    """Polls what it is given, then stops the loop."""

    def __init__(self, polls: list[tuple[StepOutput, int]]) -> None:
        self.polls = polls
        self.num_steps = 0
        self.engine: EngineLoop

    def poll(self, timeout: float) -> StepOutput:
        output, self.num_steps = self.polls.pop(0)
        if not self.polls:
            self.engine.stop()
        return output

    def stats(self) -> RunnerStats:
        return RunnerStats(num_steps=self.num_steps)

    def wake(self) -> None:
        pass


class Events:
    def __init__(self) -> None:
        self.outputs: list[StepOutput] = []

    def step(self, output: StepOutput) -> None:
        self.outputs.append(output)


TOKEN = StepOutput(deltas=[SequenceDelta("s0-0", 0, [1])])
NOTHING = StepOutput()


@pytest.mark.parametrize(
    ("polls", "progress"),
    [
        ([(NOTHING, 0)] * 5, 0),  # it lost the request: a hung engine to the launcher
        ([(NOTHING, 1), (NOTHING, 2), (NOTHING, 2)], 2),  # prefill chunks yield no token
        ([(TOKEN, 0), (TOKEN, 0), (NOTHING, 0)], 2),  # a runner that counts no steps
    ],
)
def test_only_progress_counts_as_a_step(polls, progress):
    runner, events = ScriptedRunner(list(polls)), Events()
    engine = runner.engine = EngineLoop(runner, events)
    thread = threading.Thread(target=engine.run)
    thread.start()
    thread.join(5)
    assert engine.num_steps == progress
    assert events.outputs == [output for output, _ in polls if output.deltas]
