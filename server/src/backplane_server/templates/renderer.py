"""The server's end of the renderer process: a time limit, and a new process after a kill.

One request at a time. Knows nothing of chats.
"""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Any, Final, Protocol

from backplane_core.errors import BackplaneError, ProtocolError, TemplateError
from backplane_core.wire import FrameDecoder, encode, read_messages

from backplane_server.templates.child import Render, Rendered

_TIME_LIMIT_S: Final = 3.0
_START_LIMIT_S: Final = 30.0


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
    request gets a new one.
    """

    def __init__(self, time_limit_s: float = _TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._frames: FrameDecoder[Rendered] = FrameDecoder(Rendered)

    async def start(self) -> None:
        """Start the process now, so that the first request does not wait for it."""
        async with self._lock:
            await self._ensure_started()

    async def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """Render a template.

        Raises:
            TemplateError: the template failed, or went over a limit.
        """
        async with self._lock:
            process = await self._ensure_started()
            try:
                async with asyncio.timeout(self._time_limit_s):
                    rendered = await self._ask(
                        process, Render(source=source, variables=dict(variables))
                    )
            except TimeoutError:
                await self._kill()
                raise TemplateError(
                    f"the chat template took longer than {self._time_limit_s:g} s"
                ) from None
            except (OSError, ProtocolError):
                await self._kill()
                raise TemplateError("the chat template needs too much memory") from None
            except asyncio.CancelledError:
                await self._kill()  # an answer nobody waits for would meet the next request
                raise
        if rendered.error is not None:
            raise rendered.error.restore()
        return rendered.text

    async def close(self) -> None:
        """End the process."""
        async with self._lock:
            await self._kill()

    async def _ensure_started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._frames = FrameDecoder(Rendered)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder the server was started in
                "-m",
                "backplane_server.templates.child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(_START_LIMIT_S):
                    await self._ask(self._process, Render(source="ready", variables={}))
            except (OSError, TimeoutError, ProtocolError) as error:
                await self._kill()
                raise BackplaneError("the template renderer does not start") from error
        return self._process

    async def _ask(self, process: asyncio.subprocess.Process, request: Render) -> Rendered:
        if process.stdin is None or process.stdout is None:
            raise ProtocolError("the template renderer has no pipes")
        process.stdin.write(encode(request))
        await process.stdin.drain()
        messages = await read_messages(process.stdout, self._frames)
        if not messages:
            raise ProtocolError("the template renderer is gone")
        return messages[0]

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
