"""The server's end of the renderer process: a time limit, and a new process after a kill.

One request at a time. Knows nothing of chats.
"""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Mapping
from typing import Any, Final, Protocol

from backplane_core.errors import ProtocolError, TemplateError, UnavailableError
from backplane_core.wire import FrameDecoder, encode, read_messages

from backplane_server.templates.child import Render, Rendered

_TIME_LIMIT_S: Final = 3.0
_START_LIMIT_S: Final = 30.0
_RETRY_AFTER_S: Final = 1.0


class TemplateRenderer(Protocol):
    """What turns a template and its variables into text."""

    async def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The text.

        Raises:
            TemplateError: the template failed, or went over a limit.
        """
        ...


class RendererProcess:
    """A `TemplateRenderer` in a process of its own.

    A template that takes longer than `time_limit_s` is killed with its process; the next
    request gets a new one. Whatever else goes wrong between a question and its answer ends the
    process too: an answer that stays in the pipe would be the next request's. A process that
    goes away by itself has the same question asked of a new one, once.
    """

    def __init__(self, time_limit_s: float = _TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._lock = asyncio.Lock()
        self._ids = itertools.count()
        self._turn: asyncio.Task[Rendered] | None = None
        self._closed = False
        self._process: asyncio.subprocess.Process | None = None
        self._frames: FrameDecoder[Rendered] = FrameDecoder(Rendered)

    async def start(self) -> None:
        """Start the process now, so that the first request does not wait for it."""
        await self._take_turn(Render(id=next(self._ids), source="ready", variables={}))

    async def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """Render a template.

        Raises:
            TemplateError: the template failed, or went over a limit.
            UnavailableError: the renderer is closed, or no process lives to answer.
        """
        rendered = await self._take_turn(
            Render(id=next(self._ids), source=source, variables=dict(variables))
        )
        if rendered.error is not None:
            raise rendered.error.restore()
        return rendered.text

    async def close(self) -> None:
        """End the process, whatever it is doing."""
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()
        async with self._lock:
            await self._kill()

    async def _take_turn(self, request: Render) -> Rendered:
        """Ask when nobody else does. A caller that leaves meanwhile leaves the answer to be read.

        So a departure neither hands its answer to another nor costs the next one a new process.
        """
        await self._lock.acquire()
        if self._closed:
            self._lock.release()
            raise UnavailableError("the server is shutting down")
        self._turn = asyncio.create_task(self._answer(request))
        self._turn.add_done_callback(self._end_turn)
        return await asyncio.shield(self._turn)

    def _end_turn(self, _: asyncio.Task[Rendered]) -> None:
        self._turn = None
        self._lock.release()

    async def _answer(self, request: Render) -> Rendered:
        try:
            try:
                return await self._answer_once(request)
            except OSError:
                # It was killed from outside or crashed, which need not happen again.
                await self._kill()
                return await self._answer_once(request)
        except OSError as error:
            await self._kill()
            raise UnavailableError(
                "the template renderer was killed twice",
                remedy="try again; if it lasts, see whether the machine runs out of memory",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        except BaseException:
            await self._kill()
            raise

    async def _answer_once(self, request: Render) -> Rendered:
        """Ask within the time limit.

        Raises:
            OSError: the process went away under the request; what it ran out of, it would tell.
            TemplateError: the time limit.
            UnavailableError: no process starts.
        """
        process = await self._ensure_started()
        try:
            async with asyncio.timeout(self._time_limit_s):
                return await self._ask(process, request)
        except TimeoutError:
            raise TemplateError(
                f"the chat template took longer than {self._time_limit_s:g} s"
            ) from None

    async def _ensure_started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._frames = FrameDecoder(Rendered)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder the server was started in
                "-m",
                "backplane_server.templates.child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(_START_LIMIT_S):
                hello = Render(id=next(self._ids), source="ready", variables={})
                await self._ask(self._process, hello)
        except OSError as error:  # a TimeoutError is one
            raise UnavailableError(
                "the template renderer does not start",
                remedy="try again; if it lasts, see whether the machine has memory and processes",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        return self._process

    async def _ask(self, process: asyncio.subprocess.Process, request: Render) -> Rendered:
        """One question, one answer.

        Raises:
            OSError: the process is gone.
            ProtocolError: what it said is not the answer to this question.
        """
        if process.stdin is None or process.stdout is None:
            raise ProtocolError("the template renderer has no pipes")
        process.stdin.write(encode(request))
        await process.stdin.drain()
        messages = await read_messages(process.stdout, self._frames)
        if not messages:
            raise ConnectionResetError("the template renderer is gone")
        if [message.id for message in messages] != [request.id]:
            raise ProtocolError("the template renderer answered another question")
        return messages[0]

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
