"""One child process: started in a group of its own, its output passed on, its group killed.

Must be used from the main thread: the kernel ties a child's "die with the parent" to the
thread that started it.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

from backplane_core.process import JsonFormatter

_NUM_LAST_LINES: Final = 20
_OUTPUT_GRACE_S: Final = 2.0
_MAX_LINE_CHARACTERS: Final = 1 << 16
# The child's own label stands near the start of its log lines; other output gets it in front.
_LABEL_WITHIN: Final = 64

_output_lock = threading.Lock()


class Child:
    """A running process and its process group."""

    def __init__(
        self, label: str, process: asyncio.subprocess.Process, forwarders: Sequence["_Forwarder"]
    ) -> None:
        self.label = label
        self.pid = process.pid
        self._process = process
        self._forwarders = forwarders
        self._ended = asyncio.Event()

    @classmethod
    async def start(
        cls,
        label: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        pass_fds: Sequence[int] = (),
        as_json: bool = False,
    ) -> "Child":
        """Start `command`; its output goes line by line to ours, labelled.

        Raises:
            OSError: the program cannot be executed.
        """
        forwarders = [
            _Forwarder(label, sys.stdout, as_json=as_json),
            _Forwarder(label, sys.stderr, as_json=as_json),
        ]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=forwarders[0].write_fd,
                stderr=forwarders[1].write_fd,
                env=dict(environ),
                pass_fds=tuple(pass_fds),
                # Ctrl-C reaches the launcher alone. A group, not a session: when the launcher dies,
                # the kernel hangs up and continues a group of its session that stands stopped,
                # one too that was stopped before it could ask to die with its parent.
                process_group=0,
            )
        finally:
            for forwarder in forwarders:
                forwarder.start()
        return cls(label, process, forwarders)

    async def wait(self) -> str:
        """Wait for the end; kill what is left of its group. How it ended, for people."""
        status = await self._process.wait()
        self.kill()
        deadline = asyncio.get_running_loop().time() + _OUTPUT_GRACE_S
        while any(forwarder.is_alive() for forwarder in self._forwarders):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        self._ended.set()
        return _describe(status)

    @property
    def status(self) -> int | None:
        """The exit status; negative for a signal; None while it runs."""
        return self._process.returncode

    async def wait_ended(self, timeout_s: float) -> bool:
        """Whether someone's `wait` saw the end within `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def terminate(self) -> None:
        """Ask it to stop."""
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill its whole group, stopped processes and grandchildren included.

        Once its end was seen nothing happens: the number may be another group's by then.
        """
        if self._ended.is_set():
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody is left

    def last_line(self) -> str:
        """The last thing it wrote to standard error, to say why it ended."""
        lines = self._forwarders[1].last_lines
        return lines[-1] if lines else ""


class _Forwarder(threading.Thread):
    """Passes one stream on. A reader that blocks stalls this child's output, never the loop."""

    def __init__(self, label: str, target: TextIO, *, as_json: bool) -> None:
        super().__init__(name=f"output of {label}", daemon=True)
        self.last_lines: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        self._label = label
        self._target = target
        self._json_formatter = JsonFormatter(label) if as_json else None
        self._read_fd, self.write_fd = os.pipe()

    def start(self) -> None:
        os.close(self.write_fd)
        super().start()

    def run(self) -> None:
        with os.fdopen(self._read_fd, encoding="utf-8", errors="replace") as lines:
            # Bounded: a child that never ends its line must not fill our memory.
            while line := lines.readline(_MAX_LINE_CHARACTERS):
                text = line.rstrip("\n")
                if text.strip():
                    self.last_lines.append(text.strip())
                self._write(self._rendered(text))

    def _rendered(self, text: str) -> str:
        if self._json_formatter is not None:
            if text.startswith("{") and text.endswith("}"):
                return text
            return self._json_formatter.format(
                logging.LogRecord(self._label, logging.INFO, "", 0, text, None, None)
            )
        return text if self._label in text[:_LABEL_WITHIN] else f"{self._label}: {text}"

    def _write(self, text: str) -> None:
        try:
            with _output_lock:
                self._target.write(f"{text}\n")
                self._target.flush()
        except (OSError, ValueError):
            return  # our own output is closed; keep reading, so that the child never blocks on it


def _describe(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"
