"""Faults on demand: what a broken engine does to its worker, for tests of those around it."""

import os
import signal
import time
from collections.abc import Iterable
from typing import NoReturn

from backplane_core.errors import GenerationError
from backplane_core.testing.echo_model import NUM_BYTES
from backplane_core.testing.echo_settings import EchoSettings
from backplane_core.testing.echo_stream import EchoRequest, EchoSequence


def strike(
    settings: EchoSettings, decoding: Iterable[EchoSequence]
) -> list[tuple[EchoRequest, GenerationError]]:
    """Carry out the armed faults on requests that have their first token.

    Returns:
        Requests that are to fail alone, with their error.

    Raises:
        RuntimeError: the engine is told to break.
    """
    if not settings.has_faults:
        return []
    failures: list[tuple[EchoRequest, GenerationError]] = []
    for request in {one.owner: None for one in decoding if one.num_output}:
        text = bytes(one for one in request.prompt if one < NUM_BYTES).decode(errors="replace")
        if settings.crash_on and settings.crash_on in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.hang_on and settings.hang_on in text:
            _hang()
        if settings.raise_on and settings.raise_on in text:
            raise RuntimeError(f"told to break by {settings.raise_on!r} in a prompt")
        if settings.fail_on and settings.fail_on in text:
            error = GenerationError(f"told to fail by {settings.fail_on!r} in the prompt")
            failures.append((request, error))
    return failures


def _hang() -> NoReturn:
    while True:
        time.sleep(3600.0)
