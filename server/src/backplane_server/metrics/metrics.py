"""What happens to requests, as numbers. Each request is counted once, whatever its route.

Names and buckets are TGI's; what TGI lacks begins with `backplane_`.
"""

from typing import Final, Literal, get_args

from backplane_core.capabilities import Limits
from prometheus_client import CollectorRegistry, Counter, Histogram

from backplane_server.metrics.worker_gauges import WorkerGauges

# TGI's, and "unavailable", which TGI does not have as it refuses connections while it loads.
FailureLabel = Literal[
    "overloaded", "validation", "generation", "incomplete", "dropped", "template", "unavailable"
]

DURATION_BUCKETS: Final = tuple(0.00015 * 1.5**step for step in range(35))
_NUM_LINEAR: Final = 100


class Metrics:
    """One per server, with a registry of its own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.workers: Final = WorkerGauges(self.registry)
        self._requests = Counter(
            "tgi_request_count", "Requests that arrived.", registry=self.registry
        )
        self._successes = Counter(
            "tgi_request_success", "Requests answered in full.", registry=self.registry
        )
        self._failures = Counter(
            "tgi_request_failure", "Requests that failed.", ["err"], registry=self.registry
        )
        for label in get_args(FailureLabel):
            self._failures.labels(label)
        self._duration = self._seconds("tgi_request_duration", "Arrival to end.")
        self._validation = self._seconds(
            "tgi_request_validation_duration", "Arrival to acceptance."
        )
        self._queue = self._seconds("tgi_request_queue_duration", "Acceptance to first step.")
        self._inference = self._seconds("tgi_request_inference_duration", "First step to end.")
        self._per_token = self._seconds(
            "tgi_request_mean_time_per_token_duration", "Inference over generated tokens."
        )
        self._first_token = self._seconds(
            "backplane_request_first_token_duration", "Arrival to first token."
        )
        self._generated: Histogram | None = None
        self._input: Histogram | None = None
        self._max_new: Histogram | None = None

    def set_limits(self, limits: Limits) -> None:
        """Make the histograms whose buckets depend on the model; the first model decides."""
        if self._generated is not None:
            return
        total, inputs = limits.max_total_tokens, limits.max_input_tokens
        self._generated = self._tokens("tgi_request_generated_tokens", "Tokens generated.", total)
        self._input = self._tokens("tgi_request_input_length", "Tokens of the prompt.", inputs)
        self._max_new = self._tokens(
            "tgi_request_max_new_tokens", "Tokens allowed to generate.", total
        )

    def arrived(self) -> None:
        """A request came in."""
        self._requests.inc()

    def accepted(self, num_prompt_tokens: int, max_new_tokens: int) -> None:
        """A worker took a request, or one prompt of several."""
        if self._input is not None and self._max_new is not None:
            self._input.observe(num_prompt_tokens)
            self._max_new.observe(max_new_tokens)

    def first_token(self, seconds: float) -> None:
        """A request's first token is there."""
        self._first_token.observe(seconds)

    def answered(self) -> None:
        """A request that generates nothing was answered."""
        self._successes.inc()

    def succeeded(
        self,
        *,
        total_s: float,
        validation_s: float,
        queue_s: float,
        inference_s: float,
        num_tokens: int,
    ) -> None:
        """A request was answered in full."""
        self._successes.inc()
        self._duration.observe(total_s)
        self._validation.observe(validation_s)
        self._queue.observe(queue_s)
        self._inference.observe(inference_s)
        self._per_token.observe(inference_s / max(1, num_tokens))
        if self._generated is not None:
            self._generated.observe(num_tokens)

    def failed(self, label: FailureLabel) -> None:
        """A request was refused, failed, or lost its client."""
        self._failures.labels(label).inc()

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=DURATION_BUCKETS, registry=self.registry)

    def _tokens(self, name: str, text: str, limit: int) -> Histogram:
        buckets = [limit / _NUM_LINEAR * step for step in range(1, _NUM_LINEAR + 1)]
        return Histogram(name, text, buckets=buckets, registry=self.registry)
