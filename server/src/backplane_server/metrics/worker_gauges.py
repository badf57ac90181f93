"""What workers say of themselves, as metrics. A worker that is restarted lowers no counter."""

import weakref
from collections.abc import Iterable, Mapping
from typing import Final

from backplane_core.client import WorkerConnection
from backplane_core.messages import RunnerStats
from prometheus_client import CollectorRegistry, Counter, Gauge

# Metric, its help, and the counter of `RunnerStats` it follows.
_COUNTERS: Final = (
    ("backplane_engine_steps", "Engine steps.", "num_steps"),
    ("backplane_prompt_tokens", "Prompt tokens of all requests.", "num_prompt_tokens"),
    ("backplane_prefilled_tokens", "Prompt tokens computed.", "num_prefilled_tokens"),
    ("backplane_cached_tokens", "Prompt tokens found in the cache.", "num_cached_tokens"),
    ("backplane_generated_tokens", "Tokens generated.", "num_generated_tokens"),
    ("backplane_cancelled_sequences", "Sequences cancelled.", "num_cancelled"),
    ("backplane_failed_sequences", "Sequences failed in the engine.", "num_failed"),
    ("backplane_preemptions", "Sequences set back to make room.", "num_preemptions"),
)


class WorkerGauges:
    """Sums over the connected workers. Gauges are of now, counters of all workers ever."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=registry)

        self._queue = gauge("tgi_queue_size", "Requests waiting in the workers.")
        self._running = gauge("tgi_batch_current_size", "Sequences running.")
        self._used = gauge(
            "tgi_batch_current_max_tokens", "Cache tokens owned by running sequences."
        )
        self._capacity = gauge("tgi_batch_max_total_tokens", "Cache tokens there are.")
        self._cached = gauge("backplane_cache_idle_tokens", "Cache tokens kept for reuse.")
        self._free = gauge("backplane_cache_free_tokens", "Cache tokens not in use.")
        self._ready = gauge("backplane_workers_ready", "Workers that answer.")
        self._counters = {
            field: Counter(name, text, registry=registry) for name, text, field in _COUNTERS
        }
        # A restarted worker is a new connection, whose counters begin at zero.
        self._seen: weakref.WeakKeyDictionary[WorkerConnection, RunnerStats] = (
            weakref.WeakKeyDictionary()
        )

    def update(
        self, connected: Iterable[WorkerConnection], stats: Mapping[WorkerConnection, RunnerStats]
    ) -> None:
        """Take over what the workers just said."""
        connections = list(connected)
        self._ready.set(len(connections))
        self._capacity.set(sum(link.info.limits.cache_tokens for link in connections))
        self._queue.set(sum(now.waiting for now in stats.values()))
        self._running.set(sum(now.running for now in stats.values()))
        self._used.set(sum(now.used_tokens for now in stats.values()))
        self._cached.set(sum(now.cached_tokens for now in stats.values()))
        self._free.set(sum(now.free_tokens for now in stats.values()))
        for connection, now in stats.items():
            before = self._seen.get(connection, RunnerStats())
            for field, counter in self._counters.items():
                counter.inc(max(0, getattr(now, field) - getattr(before, field)))
            self._seen[connection] = now
