"""Asks the server itself whether it answers, so that "Connected" is never said too early."""

import asyncio
import contextlib
from typing import Final

_ASK_EVERY_S: Final = 0.05
_TIMEOUT_S: Final = 5.0


async def wait_until_ready(host: str, port: int) -> None:
    """Return once `GET /health/ready` answers 200."""
    while True:
        if await _is_ready(host, port):
            return
        await asyncio.sleep(_ASK_EVERY_S)


async def _is_ready(host: str, port: int) -> bool:
    shown = f"[{host}]" if ":" in host else host
    request = f"GET /health/ready HTTP/1.1\r\nHost: {shown}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request.encode())
                status = (await reader.readline()).split()
            finally:
                writer.close()
                with contextlib.suppress(OSError):  # it has answered; how it hangs up is its affair
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return len(status) > 1 and status[1] == b"200"
