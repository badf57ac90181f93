"""The engine loop: the one thread that touches the runner. It never blocks on a socket."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from backplane_core.errors import BackplaneError, ErrorInfo
from backplane_core.messages import (
    Cancel,
    CommandFailed,
    Done,
    Failed,
    GetStats,
    LoadAdapter,
    Message,
    Stats,
    StepOutput,
    Submit,
    UnloadAdapter,
)
from backplane_core.runner import ModelRunner
from backplane_core.worker.pacing import Pacer

_log = logging.getLogger(__name__)

POLL_TIMEOUT_S: Final = 0.5

Command = Submit | Cancel | GetStats | LoadAdapter | UnloadAdapter


class EngineEvents(Protocol):
    """Where the engine's products go. Called on the engine thread; must not block."""

    def step(self, output: StepOutput) -> None:
        """Tokens and failures of one step."""
        ...

    def answer(self, request_id: str, message: Message) -> None:
        """The answer to a command."""
        ...


class EngineLoop:
    """Drives one runner until stopped. `post` and `stop` may be called from any thread."""

    def __init__(self, runner: ModelRunner, events: EngineEvents) -> None:
        self._runner = runner
        self._events = events
        self._pacer = Pacer(events.step)
        self._inbox: deque[Command] = deque()
        self._stopping = False
        self._runner_steps = 0
        self.num_steps = 0

    def post(self, *commands: Command) -> None:
        """Queue commands and end the runner's wait."""
        self._inbox.extend(commands)
        self._runner.wake()

    def stop(self) -> None:
        """Let `run` return after the current step."""
        self._stopping = True
        self._runner.wake()

    def run(self) -> None:
        """Step until stopped. An exception of `poll` leaves here: the engine is broken."""
        try:
            while not self._stopping:
                while self._inbox:
                    self._pacer.flush()
                    self._carry_out(self._inbox.popleft())
                output = self._runner.poll(POLL_TIMEOUT_S)
                self._pacer.take(output)
                self._count_progress(output)
        finally:
            self._pacer.flush()

    def _count_progress(self, output: StepOutput) -> None:
        # A poll that returns empty-handed is no progress: a runner that lost a request would
        # poll for ever. Prefill yields nothing either, but the runner's own steps advance.
        runner_steps = self._runner.num_steps
        if output.deltas or output.failures or runner_steps != self._runner_steps:
            self.num_steps += 1
        self._runner_steps = runner_steps

    def _carry_out(self, command: Command) -> None:
        runner = self._runner
        match command:
            case Submit():
                self._submit(command)
            case Cancel():
                runner.cancel(command.request_id, command.index)
            case GetStats(request_id=request_id):
                self._events.answer(request_id, Stats(request_id=request_id, stats=runner.stats()))
            case LoadAdapter(request_id=request_id, name=name, path=path):
                self._adapter(request_id, lambda: runner.load_adapter(name, path))
            case UnloadAdapter(request_id=request_id, name=name):
                self._adapter(request_id, lambda: runner.unload_adapter(name))

    def _submit(self, request: Submit) -> None:
        try:
            self._runner.submit(request)
        except BackplaneError as error:
            failed = Failed(request_id=request.request_id, error=ErrorInfo.of(error))
            self._events.step(StepOutput(failures=[failed]))

    def _adapter(self, request_id: str, action: Callable[[], None]) -> None:
        try:
            action()
        except BackplaneError as error:
            _log.warning("adapter command failed: %s", error)
            self._events.answer(
                request_id, CommandFailed(request_id=request_id, error=ErrorInfo.of(error))
            )
        else:
            self._events.answer(request_id, Done(request_id=request_id))
