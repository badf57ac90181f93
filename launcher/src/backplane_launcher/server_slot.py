"""Keeping one HTTP server alive."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from backplane_core.control import FromChild, ServerLaunch, ServerUp

from backplane_launcher.launch_documents import server_document
from backplane_launcher.slot import House, Slot

_log = logging.getLogger(__name__)


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

    def began(self) -> None:
        """Nothing to prepare: a server is told the workers' states when it joins."""

    def said(self, message: FromChild) -> None:
        """Note that it serves."""
        if isinstance(message, ServerUp):
            self.came_up()
            self._on_up()
        else:
            _log.warning("%s sent a %s, which is a worker's", self.name, type(message).__name__)
