"""Everything the controllers are given, and the count of requests that a shutdown waits for."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable
from itertools import islice
from typing import Final
from urllib.parse import quote

from backplane_core.control import ServerLaunch

from backplane_server.errors import NotReadyError
from backplane_server.metrics.metrics import Metrics
from backplane_server.services.admission import Admission
from backplane_server.services.generation_service import GenerationService
from backplane_server.templates.renderer import RendererProcess, TemplateRenderer

_log = logging.getLogger(__name__)

_MAX_LOGGED_NAMES: Final = 256
_MAX_NAMED: Final = 20
_MAX_NAME_CHARS: Final = 64


class Services:
    """One per server process."""

    def __init__(self, settings: ServerLaunch, renderer: TemplateRenderer | None = None) -> None:
        self.settings: Final = settings
        self.metrics: Final = Metrics(settings.metrics_dir)
        self.renderer: Final = renderer or RendererProcess()
        self.generation: Final = GenerationService(settings, self.renderer, self.metrics)
        self.admission: Final = Admission(settings)
        self._logged_names: set[str] = set()
        self._reading: set[asyncio.Timeout] = set()
        self._num_open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # ── requests in flight ───────────────────────────────────────────────────────────────

    def enter(self) -> None:
        """A request begins."""
        self._num_open += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request has ended."""
        self._num_open -= 1
        if not self._num_open:
            self._idle.set()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncGenerator[None, None]:
        """While a body is read: it is cut when the server stops, as its answer would be a 503.

        Raises:
            NotReadyError: the server is shutting down.
        """
        try:
            async with asyncio.timeout(
                0 if self.generation.readiness.draining else None
            ) as timeout:
                self._reading.add(timeout)
                try:
                    yield
                finally:
                    self._reading.discard(timeout)
        except TimeoutError:
            raise NotReadyError(self.generation.readiness.report()) from None

    async def drain(self, grace_s: float) -> bool:
        """Refuse what is new and wait for what is in flight; whether all of it ended in time."""
        self.generation.readiness.draining = True
        for timeout in self._reading:
            timeout.reschedule(0)
        if self._num_open:
            _log.info("stopping; %d requests have %g s to finish", self._num_open, grace_s)
        else:
            _log.info("stopping")
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("%d requests were cut short", self._num_open)
            return False
        return True

    # ── parameters nobody knows ──────────────────────────────────────────────────────────

    def note_ignored(self, names: Iterable[str]) -> str:
        """Log each name the first time it is seen; the value of `x-ignored-parameters`.

        Names come from clients: they are escaped, cut and counted.
        """
        shown = [quote(name[:_MAX_NAME_CHARS], safe="._-[]") for name in islice(names, _MAX_NAMED)]
        for name in shown:
            if name not in self._logged_names and len(self._logged_names) < _MAX_LOGGED_NAMES:
                self._logged_names.add(name)
                _log.warning("requests hold the parameter %s, which has no meaning here", name)
        return ", ".join(shown)

    async def close(self) -> None:
        """Drop the workers and end the renderer."""
        await self.generation.close()
        self.metrics.hand_on()
        if isinstance(self.renderer, RendererProcess):
            await self.renderer.close()
