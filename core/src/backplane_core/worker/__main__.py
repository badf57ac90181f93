"""`python -m backplane_core.worker DOCUMENT`: load one model and serve it on a Unix socket.

The main thread is the engine's; the I/O thread starts first, so heartbeats and progress flow
while the model loads. Exit status: 0 after a shutdown, 3 if a person must change something,
1 for a crash, 4 if the launcher died.
"""

import asyncio
import contextlib
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from backplane_core.capabilities import Limits
from backplane_core.control import WorkerDown, WorkerLaunch, WorkerUp
from backplane_core.errors import BackplaneError, SetupError
from backplane_core.process import configure_logging, die_with_parent, leave_stopping_to_parent
from backplane_core.registry import discover
from backplane_core.runner import ModelRunner
from backplane_core.worker.adapters import load_adapters
from backplane_core.worker.control import LauncherLine
from backplane_core.worker.service import WorkerService

_log = logging.getLogger("backplane_core.worker")

SETUP_STATUS: Final = 3
_PROGRESS_EVERY_S: Final = 0.5
# The collector's 700 are made in three steps of 256 streams, and hardly any are ever garbage.
_YOUNG_OBJECTS: Final = 20_000


class Worker:
    """The process: both threads, from start to exit status."""

    def __init__(self, launch: WorkerLaunch) -> None:
        self._launch = launch
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="io", daemon=True)
        self._line: LauncherLine | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_stage = ""
        self._last_progress_s = 0.0

    def run(self) -> int:
        """Load, serve, drain. The process's exit status."""
        self._thread.start()
        try:
            self._on_io(self._join())
            runner = self._load()
            try:
                service = self._on_io(self._serve(runner))
                service.engine.run()
                self._on_io(service.close())
            finally:
                runner.close()
        except SetupError as error:
            if self._line is None:  # with a launcher, the launcher says it
                _log.error("%s", error)
            self._report_down(str(error), "the model cannot be loaded", final=True)
            return SETUP_STATUS
        except Exception as error:  # noqa: BLE001 - an engine can raise anything; it is logged whole
            _log.exception("the worker failed")
            reason = f"{type(error).__name__}: {error}"
            self._report_down(reason, "the engine failed", final=False)
            return 1
        self._report_down("stopped", "stopped", final=True)
        return 0

    def _on_io(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self) -> None:
        if not self._launch.control_path:
            return
        self._line = await LauncherLine.connect(self._launch.control_path, self._launch.worker_id)
        self._spawn(self._line.beat())
        self._spawn(self._line.listen())

    def _progress(self, stage: str, fraction: float | None = None, detail: str = "") -> None:
        # Engines report every tensor; people and servers want to see that it moves.
        now = time.monotonic()
        changed = stage != self._last_stage or fraction == 1.0
        if not changed and now - self._last_progress_s < _PROGRESS_EVERY_S:
            return
        self._last_stage, self._last_progress_s = stage, now
        share = "" if fraction is None else f"{fraction:.0%}"
        _log.info(" ".join(part for part in (stage, share, detail) if part))
        if self._line is not None:
            self._loop.call_soon_threadsafe(self._line.progress, stage, fraction, detail)

    def _load(self) -> ModelRunner:
        gc.disable()  # until all is loaded: nothing of that is garbage
        backend = discover().create(self._launch.backend)
        self._progress("load", None, self._launch.spec.model.model_id)
        runner = backend.create_runner(self._launch.spec, self._progress)
        try:
            load_adapters(runner, self._launch.spec.engine.adapters, self._progress)
        except BaseException:
            runner.close()
            raise
        # What is alive now lives as long as the process: keep the collector off it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
        gc.enable()
        return runner

    async def _serve(self, runner: ModelRunner) -> WorkerService:
        launch = self._launch
        engine = launch.spec.engine
        service = WorkerService(
            launch.worker_id,
            runner,
            engine.max_concurrent_requests,
            adapters=[adapter.name for adapter in engine.adapters],
        )
        _log.info("sizes: %s", _sizes(runner.info.limits))
        await service.start(launch.socket_path)
        if self._line is not None:
            self._line.pulse = lambda: (service.engine.num_steps, service.busy)
            self._line.send(WorkerUp(worker_id=launch.worker_id, socket_path=launch.socket_path))
            self._spawn(self._stop_when_told(service, self._line))
        _log.info("serving %s at %s", launch.spec.model.model_id, launch.socket_path)
        return service

    async def _stop_when_told(self, service: WorkerService, line: LauncherLine) -> None:
        grace_s = await line.shutdown
        if service.busy:
            _log.info("stopping; what is in flight has %g s to finish", grace_s)
        else:
            _log.info("stopping")
        await service.drain(grace_s)
        service.engine.stop()

    def _report_down(self, reason: str, summary: str, *, final: bool) -> None:
        if (line := self._line) is None:
            return
        worker_id = self._launch.worker_id
        down = WorkerDown(worker_id=worker_id, reason=reason, summary=summary, final=final)

        async def say_goodbye() -> None:
            line.send(down)
            await line.close()

        for task in list(self._tasks):
            self._loop.call_soon_threadsafe(task.cancel)
        with contextlib.suppress(OSError, TimeoutError):  # the launcher may be gone already
            asyncio.run_coroutine_threadsafe(say_goodbye(), self._loop).result(timeout=2.0)


def _sizes(limits: Limits) -> str:
    """What was given or chosen, by the names of the flags."""
    sizes = {
        "max_input_tokens": limits.max_input_tokens,
        "max_total_tokens": limits.max_total_tokens,
        "max_batch_prefill_tokens": limits.max_batch_tokens,
        "max_batch_total_tokens": limits.cache_tokens,
        "max_batch_size": limits.max_sequences,
    }
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def main(arguments: list[str]) -> int:
    """Read the launch document named by the only argument and run the worker."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m backplane_core.worker DOCUMENT.json\n")
        return 2
    launch = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=WorkerLaunch)
    if launch.control_path:
        die_with_parent()
        leave_stopping_to_parent()
    configure_logging(launch.log_level, as_json=launch.log_json, label=launch.worker_id)
    try:
        return Worker(launch).run()
    except BackplaneError as error:
        sys.stderr.write(f"{launch.worker_id}: {error}\n")
        return 1


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    # Native libraries may keep threads that would hold up a normal exit.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
