"""Keeping one HTTP server alive."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from backplane_core.control import FromChild, ServerLaunch, ServerUp
from backplane_core.errors import SetupError

from backplane_launcher.launch_documents import server_document
from backplane_launcher.slot import SETUP_STATUS, House, Slot

_log = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    """A line of a log in JSON."""

    message: str


class ServerSlot(Slot):
    """One server, which inherits the listening socket."""

    def __init__(
        self,
        name: str,
        house: House,
        *,
        model_id: str,
        listen_fd: int,
        port: int,
        on_up: Callable[[], None],
    ) -> None:
        super().__init__(name, house)
        self._model_id = model_id
        self._listen_fd = listen_fd
        self._port = port
        self._on_up = on_up

    def next_member_id(self) -> str:
        """A new id for each attempt: request ids carry it and must never come twice."""
        return self.name if self.attempt == 1 else f"{self.name}.{self.attempt}"

    def document(self) -> ServerLaunch:
        """A server's document."""
        return server_document(
            self.house.settings,
            server_id=self.member_id,
            model_id=self._model_id,
            control_path=str(self.house.control_path),
            port=self._port,
            listen_fd=self._listen_fd,
            metrics_dir=str(self.house.run.metrics),
        )

    def command(self, document: Path) -> Sequence[str]:
        """Servers run in the launcher's own interpreter."""
        return [sys.executable, "-P", "-m", "backplane_server", str(document)]

    def pass_fds(self) -> Sequence[int]:
        """The listening socket."""
        return (self._listen_fd,)

    def reason(self, ending: str) -> str:
        """Where it says that a person must see to it, in its own words."""
        if self.child is not None and self.child.status == SETUP_STATUS:
            return _sentence(self.child.last_line()) or ending
        return super().reason(ending)

    def give_up_if_hopeless(self, reason: str) -> None:
        """What a person must see to is not better the second time."""
        if not self.was_ever_up and self.child and self.child.status == SETUP_STATUS:
            raise SetupError(reason)
        super().give_up_if_hopeless(reason)

    def began(self) -> None:
        """Nothing to prepare: a server is told the workers' states when it joins."""

    def said(self, message: FromChild) -> None:
        """Note that it serves."""
        if isinstance(message, ServerUp):
            self.came_up()
            self._on_up()
        else:
            _log.warning("%s sent a %s, which is a worker's", self.name, type(message).__name__)


def _sentence(line: str) -> str:
    """What a line of a child's log says, without what stands before it."""
    try:
        return msgspec.json.decode(line, type=_Line).message
    except msgspec.DecodeError:
        head, _, message = line.partition(": ")
        return message if f" {logging.getLevelName(logging.ERROR)} " in head else line
