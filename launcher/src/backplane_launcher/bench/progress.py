"""What is going on, while it goes on: one line that rewrites itself, or now and then a new one."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from time import perf_counter
from typing import Final, TextIO

from backplane_launcher.bench.load import Tally

_DRAW_EVERY_S: Final = 0.5
_SAY_EVERY_S: Final = 5.0
_USUAL_WIDTH: Final = 80


@contextlib.asynccontextmanager
async def shown(stream: TextIO, label: str, tally: Tally) -> AsyncGenerator[None]:
    """Show a tally for as long as the body runs."""
    task = asyncio.create_task(_show(stream, label, tally))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if stream.isatty():
            stream.write("\r\x1b[K")
            stream.flush()


async def _show(stream: TextIO, label: str, tally: Tally) -> None:
    draws = stream.isatty()
    began = before = perf_counter()
    tokens_before = 0
    while True:
        await asyncio.sleep(_DRAW_EVERY_S if draws else _SAY_EVERY_S)
        now, tokens = perf_counter(), tally.num_tokens_now
        speed = max(0, tokens - tokens_before) / (now - before)
        line = (
            f"{label}: {now - began:.0f} s, {len(tally.replies)} answered, "
            f"{len(tally.under_way)} under way, {tally.num_failed} failed, {speed:,.0f} tok/s"
        )
        stream.write(f"\r\x1b[K{line[: _width(stream) - 1]}" if draws else f"{line}\n")
        stream.flush()
        before, tokens_before = now, tokens


def _width(terminal: TextIO) -> int:
    """Columns; a longer line would leave its first rows behind when it is rewritten."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or _USUAL_WIDTH
    except OSError:
        return _USUAL_WIDTH
