"""Broken in loading, waiting, shutting down and dying."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backplane_core.backend import ProgressSink, RunnerSpec
from backplane_core.messages import RunnerInfo, StepOutput, Submit
from backplane_core.runner import ModelRunner
from backplane_core.testing.echo import EchoBackend
from backplane_core.testing.echo_runner import EchoRunner

from broken_backends.breaking import breaks, changed


@breaks("test_ready_facts_are_sane")
class DeclaresUnknownParameters(EchoRunner):
    @property
    def info(self) -> RunnerInfo:
        info = super().info
        can = info.capabilities
        return changed(info, capabilities=changed(can, sampling=(*can.sampling, "temprature")))


@breaks("test_loading_progress_is_sane")
class ReportsPercent(EchoBackend):
    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        progress("warm-up", 50.0)
        return super().create_runner(spec, progress)


@breaks("test_wake_ends_an_idle_wait", apart=True)
class SleepsInsteadOfWaiting(EchoRunner):
    def poll(self, timeout: float) -> StepOutput:
        if not self._requests:
            time.sleep(0.25)
            return StepOutput()
        return super().poll(timeout)


@breaks("test_shutdown_finishes_what_runs")
class FailsToClose(EchoRunner):
    def close(self) -> None:
        raise RuntimeError("the device is busy")


@breaks("test_missing_model_is_a_setup_error")
class LetsFileErrorsThrough(EchoBackend):
    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        if spec.model.path is not None:
            Path(spec.model.path).read_bytes()
        return super().create_runner(spec, progress)


@breaks("test_unknown_setting_is_a_setup_error")
class SwallowsSettings(EchoBackend):
    @classmethod
    def parse_settings(cls, values: Mapping[str, Any]) -> Any:
        known = cls.settings.__dataclass_fields__
        return super().parse_settings({key: one for key, one in values.items() if key in known})


@breaks("test_death_ends_every_stream_at_once")
class LeavesAChildBehind(EchoRunner):
    """A forked child inherits the open sockets, and with them keeps its dead parent's streams."""

    forked = False

    def submit(self, request: Submit) -> None:
        super().submit(request)
        if not self.forked:
            self.forked = True
            if os.fork() == 0:
                time.sleep(30.0)
                os._exit(0)


@breaks("test_pause_is_survived")
class BreaksWhenLate(EchoRunner):
    """Takes a late step for a lost device."""

    last_step: float | None = None

    def poll(self, timeout: float) -> StepOutput:
        output = super().poll(timeout)
        now = time.monotonic()
        if self.last_step is not None and now - self.last_step > 1.0:
            raise RuntimeError("the device did not answer for a second")
        self.last_step = now if self._requests else None
        return output
