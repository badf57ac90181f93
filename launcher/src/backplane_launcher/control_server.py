"""The launcher's end of the control socket: who joined, what they say, what servers must know."""

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from backplane_core.control import (
    FromChild,
    Join,
    Progress,
    Shutdown,
    ToChild,
    WorkerDown,
    WorkerUp,
)
from backplane_core.errors import ProtocolError
from backplane_core.version import PROTOCOL
from backplane_core.version import Protocol as ProtocolVersion
from backplane_core.wire import FrameDecoder, encode, read_messages

_log = logging.getLogger(__name__)

# A server that reads nothing for so long is stuck; cut, it ends and is started again.
_MAX_UNREAD_BYTES: Final = 1 << 20


class ControlEvents(Protocol):
    """Who hears what children say. Called on the event loop."""

    def joined(self, join: Join) -> bool:
        """A process introduced itself; False refuses it (nobody started that process)."""
        ...

    def said(self, join: Join, message: FromChild) -> None:
        """A member that joined sent a message."""
        ...


class _Member:
    def __init__(self, join: Join, writer: asyncio.StreamWriter) -> None:
        self.join = join
        self._writer = writer

    def send(self, message: ToChild) -> None:
        if self._writer.transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            _log.error("%s reads nothing from its control socket; cutting it", self.join.member_id)
            self._writer.transport.abort()
            return
        self._writer.write(encode(message))


class ControlServer:
    """Relays workers' states to servers; one that joins late is told the present state first."""

    def __init__(self, events: ControlEvents) -> None:
        self._events = events
        self._members: dict[str, _Member] = {}
        self._state: dict[str, Progress | WorkerUp | WorkerDown] = {}
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen at `path`."""
        self._server = await asyncio.start_unix_server(self._serve, path)

    def close(self) -> None:
        """Stop listening; members see end-of-file when the process ends."""
        if self._server is not None:
            self._server.close()

    def tell_servers(self, message: Progress | WorkerUp | WorkerDown) -> None:
        """Make this the state of its worker and tell every server."""
        self._state[message.worker_id] = message
        for member in list(self._members.values()):
            if member.join.role == "server":
                member.send(message)

    def shut_down(self, member_id: str, grace_s: float) -> bool:
        """Tell a member to stop; False where it has not joined, so cannot hear."""
        member = self._members.get(member_id)
        if member is None:
            return False
        member.send(Shutdown(grace_s=grace_s))
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames: FrameDecoder[FromChild] = FrameDecoder(FromChild)
        member: _Member | None = None
        try:
            while (messages := await read_messages(reader, frames)) is not None:
                for message in messages:
                    if member is None:
                        member = self._welcome(message, writer)
                    else:
                        self._events.said(member.join, message)
        except ProtocolError as error:
            _log.warning("closing a control connection: %s", error)
        except ConnectionError as error:
            _log.debug("a control connection broke: %s", error)
        finally:
            if member is not None and self._members.get(member.join.member_id) is member:
                del self._members[member.join.member_id]
            writer.close()

    def _welcome(self, message: FromChild, writer: asyncio.StreamWriter) -> _Member:
        if not isinstance(message, Join):
            raise ProtocolError(f"{type(message).__name__} before Join")
        theirs = ProtocolVersion(*message.protocol)
        if not PROTOCOL.accepts(theirs):
            raise ProtocolError(
                f"{message.member_id} speaks protocol {theirs}, this launcher {PROTOCOL}"
            )
        if not self._events.joined(message):
            raise ProtocolError(f"no process {message.pid} was started as {message.member_id}")
        member = _Member(message, writer)
        self._members[message.member_id] = member
        if message.role == "server":
            for state in self._state.values():
                member.send(state)
        return member
