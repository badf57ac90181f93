"""`GET /health`, `/health/live`, `/health/ready` and `/metrics`: for probes and scrapers."""

import asyncio

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.metrics.exposition import CONTENT_TYPE
from backplane_server.metrics.telling import tell
from backplane_server.services.readiness import ReadinessReport
from backplane_server.services.services import Services
from backplane_server.web.responses import Answer


class Unhealthy(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a 503 of `/health`."""

    error: str
    error_type: str = "healthcheck"
    progress: ReadinessReport


class NotReady(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a 503 of `/health/ready`, which needs no key: how far, but not why."""

    error: str = "not ready"
    error_type: str = "healthcheck"
    stage: str
    fraction: float | None


def health_answer(services: Services) -> Answer:
    """200 without a body, or 503 with how far each worker is."""
    report = services.generation.readiness.report()
    if report.ready:
        return Answer(b"")
    body = Unhealthy(error=f"unhealthy: {report.sentence}", progress=report)
    return Answer(msgspec.json.encode(body), status=503, headers={"retry-after": "1"})


class HealthController(Controller):
    """Whether the process lives, and whether it can answer."""

    @get("/health")
    async def health(self, services: NamedDependency[Services]) -> ASGIApp:
        """Whether requests can be answered; if not, the loading progress."""
        return health_answer(services)

    @get("/health/live")
    async def live(self) -> ASGIApp:
        """The process answers."""
        return Answer(b"")

    @get("/health/ready")
    async def ready(self, services: NamedDependency[Services]) -> ASGIApp:
        """Whether requests can be answered, for probes without a key."""
        report = services.generation.readiness.report()
        if report.ready:
            return Answer(b"")
        body = NotReady(stage=report.stage, fraction=report.fraction)
        return Answer(msgspec.json.encode(body), status=503, headers={"retry-after": "1"})

    @get("/metrics")
    async def metrics(self, services: NamedDependency[Services]) -> ASGIApp:
        """Counters and gauges, the workers' among them, as Prometheus text."""
        pool = services.generation.pool
        stats = await pool.stats()
        await services.metrics.settle()
        text = await asyncio.to_thread(tell, services.metrics, pool.connections, stats)
        return Answer(text, content_type=CONTENT_TYPE)
