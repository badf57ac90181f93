"""A place that one child process fills, again and again: start, watch, restart with back-off."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from backplane_core.control import FromChild, Join
from backplane_core.errors import SetupError

from backplane_launcher.backoff import Backoff
from backplane_launcher.child import Child
from backplane_launcher.control_server import ControlServer
from backplane_launcher.run_directory import RunDirectory
from backplane_launcher.settings import LaunchSettings

_log = logging.getLogger(__name__)

MAX_START_FAILURES: Final = 3
# Workers and servers end so when a person must change something.
SETUP_STATUS: Final = 3


@dataclass(frozen=True, kw_only=True)
class House:
    """What all slots share."""

    settings: LaunchSettings
    control: ControlServer
    run: RunDirectory
    environ: Mapping[str, str]

    @property
    def control_path(self) -> Path:
        """The control socket."""
        return self.run.path / "control.sock"


class Slot(ABC):
    """Keeps one child alive. `member_id` is the present child's name on the control socket."""

    def __init__(self, name: str, house: House) -> None:
        self.name = name
        self.member_id = name
        self.house = house
        self.child: Child | None = None
        self.attempt = 0
        self.is_up = asyncio.Event()
        self._stopping = False
        self._dismissed = False
        self.was_ever_up = False
        self._up_since: float | None = None
        self._backoff = Backoff()
        self._document: Path | None = None

    # ── what a kind of child provides ────────────────────────────────────────────────────

    @abstractmethod
    def document(self) -> msgspec.Struct:
        """The launch document for this attempt."""

    @abstractmethod
    def command(self, document: Path) -> Sequence[str]:
        """The command line that runs `document`, with `-P`: no module is taken from the cwd."""

    @abstractmethod
    def said(self, message: FromChild) -> None:
        """The present child sent a message."""

    def pass_fds(self) -> Sequence[int]:
        """File descriptors the child inherits."""
        return ()

    def reason(self, ending: str) -> str:
        """Why the child is gone, given how its process ended."""
        child = self.child
        # A signal says all there is; what was printed last has nothing to do with it.
        if child is None or (child.status or 0) < 0 or not child.last_line():
            return ending
        return f"{ending}: {child.last_line()}"

    def died(self, reason: str, pause_s: float) -> None:
        """The child is gone and another follows in `pause_s` seconds."""
        _log.error("%s %s; starting it again in %g s", self.name, reason, pause_s)

    def lost(self, reason: str) -> None:
        """The child is gone before it was told to stop, and no other follows: all stops."""
        _log.error("%s %s while all was stopping", self.name, reason)

    def give_up_if_hopeless(self, reason: str) -> None:
        """Raise where another start cannot help, `reason` being why the last child is gone.

        Raises:
            SetupError: it failed so often without having been up once.
        """
        if not self.was_ever_up and self._backoff.num_failures + 1 >= MAX_START_FAILURES:
            raise SetupError(
                f"{self.name} could not start, {MAX_START_FAILURES} times: {reason}",
                remedy="its output above says more",
            )

    @abstractmethod
    def began(self) -> None:
        """A child was started."""

    # ── the loop ─────────────────────────────────────────────────────────────────────────

    async def keep_running(self) -> None:
        """Start the child and start it again until `stop`.

        Raises:
            SetupError: it cannot start at all, so a person must change something.
        """
        while not self._stopping:
            await self._start()
            ending = await self._wait()
            if self._stopping:
                if not self._dismissed and self._up_since is not None and self._failed():
                    self.lost(self.reason(ending))
                return
            healthy_s = self._healthy_s()
            reason = self.reason(ending)
            self.give_up_if_hopeless(reason)
            self.child = None
            pause_s = self._backoff.after_failure(healthy_s)
            self.died(reason, pause_s)
            await asyncio.sleep(pause_s)

    def came_up(self) -> None:
        """The child said that it serves."""
        self.was_ever_up = True
        self._up_since = asyncio.get_running_loop().time()
        self.is_up.set()

    def owns(self, join: Join) -> bool:
        """Whether `join` is the present child's."""
        if join.member_id != self.member_id:
            return False
        # It may introduce itself before the call that started it has returned.
        return join.pid == self.child.pid if self.child else not self._stopping

    def joined(self) -> None:
        """The child has read its document, which may hold keys: remove it."""
        if self._document is not None:
            self._document.unlink(missing_ok=True)

    def start_no_more(self) -> None:
        """Let the child go on, and start no other when it ends."""
        self._stopping = True

    async def stop(self, grace_s: float, margin_s: float) -> None:
        """Let the child finish within `grace_s`, then kill it."""
        self._stopping = self._dismissed = True
        child = self.child
        if child is None:
            return
        if not self.house.control.shut_down(self.member_id, grace_s):
            child.terminate()
        if not await child.wait_ended(grace_s + margin_s):
            _log.warning("%s did not stop within %g s; killing it", self.name, grace_s + margin_s)
            self.kill()
            await child.wait_ended(margin_s)

    def kill(self) -> None:
        """Kill the child at once."""
        self._stopping = self._dismissed = True
        if self.child is not None:
            self.child.kill()

    def next_member_id(self) -> str:
        """The name of the attempt that begins."""
        return self.name

    async def _start(self) -> None:
        self.attempt += 1
        self.member_id = self.next_member_id()
        self._up_since = None
        self.is_up.clear()
        settings = self.house.settings
        self._document = self.house.run.write_document(
            f"{self.name}-{self.attempt}", self.document()
        )
        command = self.command(self._document)
        try:
            self.child = await Child.start(
                self.name,
                command,
                self.house.environ,
                pass_fds=self.pass_fds(),
                as_json=settings.json_output,
            )
        except OSError as error:
            raise SetupError(
                f"{command[0]} cannot be executed: {error.strerror}",
                remedy="check the path and its permissions",
            ) from error
        self.began()
        if self._stopping:
            self.child.kill()

    async def _wait(self) -> str:
        if self.child is None:
            raise AssertionError("a child is waited for after it was started")
        ending = await self.child.wait()
        self.is_up.clear()
        self.joined()
        return ending

    def _failed(self) -> bool:
        return self.child is not None and self.child.status != 0

    def _healthy_s(self) -> float:
        if self._up_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._up_since
