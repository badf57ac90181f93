"""From what the workers just said to the text of `/metrics`.

Reads and writes files, so it is nothing for the event loop.
"""

from collections.abc import Mapping, Sequence

from backplane_core.client import WorkerConnection
from backplane_core.messages import RunnerStats

from backplane_server.metrics.exposition import expose
from backplane_server.metrics.metrics import Metrics
from backplane_server.metrics.worker_records import Records
from backplane_server.metrics.worker_series import name_of_life, worker_series


def note(
    metrics: Metrics,
    connected: Sequence[WorkerConnection],
    stats: Mapping[WorkerConnection, RunnerStats],
) -> Records:
    """Keep what the workers said, so that it outlives them; what all workers ever said."""
    return metrics.note_workers(
        {
            name_of_life(link.worker_id, link.socket_path): stats.get(link, RunnerStats())
            for link in connected
        }
    )


def tell(
    metrics: Metrics,
    connected: Sequence[WorkerConnection],
    stats: Mapping[WorkerConnection, RunnerStats],
) -> bytes:
    """Every series there is, as Prometheus reads it."""
    workers = worker_series(
        note(metrics, connected, stats),
        stats.values(),
        capacity=sum(link.info.limits.cache_tokens for link in connected),
        num_ready=len(connected),
    )
    return expose([*metrics.request_series(), *workers])
