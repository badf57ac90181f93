"""Asks the server itself whether it answers, so that "Connected" is never said too early."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Final

import msgspec
from backplane_core.errors import SetupError

_ASK_EVERY_S: Final = 0.05
_TIMEOUT_S: Final = 5.0
# From a worker that serves to a server that answers, there is only a vocabulary to transfer and a
# tokenizer to build.
_LIMIT_S: Final = 120.0


class _NotReady(msgspec.Struct):
    stage: str = ""
    error: str = ""


async def wait_until_ready(
    host: str,
    port: int,
    *,
    api_key: str | None,
    is_up: Callable[[], bool],
    tls: bool = False,
    limit_s: float = _LIMIT_S,
) -> None:
    """Return once `GET /health/ready` answers 200.

    Args:
        host: where a server listens.
        port: likewise.
        api_key: opens `/health`, which says why it is not ready.
        tls: it speaks HTTPS. Its certificate is not looked at: the socket asked is our own.
        is_up: whether a worker and a server are up. Time in which they are not does not count.
        limit_s: how long a server may take to answer, both being up.

    Raises:
        SetupError: the server says that it will never be ready, or the limit has passed.
    """
    asking = _Asking(host, port, _unverified() if tls else None)
    loop = asyncio.get_running_loop()
    since = loop.time()
    while True:
        status, body = await asking.get("/health/ready")
        if status == 200:  # noqa: PLR2004 - HTTP's OK
            return
        if not is_up():
            since = loop.time()
        elif _decoded(body).stage == "failed":
            raise SetupError(
                f"the server cannot use the worker: {await asking.why(api_key)}",
                remedy="its output above says more",
            )
        elif loop.time() - since > limit_s:
            raise SetupError(
                f"the worker is up, but the server is not ready after {limit_s:g} s: "
                f"{await asking.why(api_key)}",
                remedy="its output above says more",
            )
        await asyncio.sleep(_ASK_EVERY_S)


class _Asking:
    """Asks one server, a connection each time."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._context = context

    async def why(self, api_key: str | None) -> str:
        """What it says is the matter."""
        _, body = await self.get("/health", api_key)
        return _decoded(body).error or "it does not say why"

    async def get(self, path: str, api_key: str | None = None) -> tuple[int, bytes]:
        """Status and body; 0 where there is no answer."""
        shown = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"GET {path} HTTP/1.1", f"Host: {shown}:{self._port}", "Connection: close"]
        if api_key is not None:
            lines.append(f"Authorization: Bearer {api_key}")
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await self._exchange("\r\n".join([*lines, "", ""]).encode())
        except (OSError, TimeoutError):
            return 0, b""
        head, _, body = answer.partition(b"\r\n\r\n")
        words = head.split(maxsplit=2)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body

    async def _exchange(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._context)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):  # it has answered; how it hangs up is its affair
                await writer.wait_closed()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _decoded(body: bytes) -> _NotReady:
    try:
        return msgspec.json.decode(body, type=_NotReady)
    except msgspec.DecodeError:
        return _NotReady()  # no answer, or not from a server of ours
