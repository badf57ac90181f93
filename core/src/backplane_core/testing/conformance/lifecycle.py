"""Conformance: loading, what `Ready` says, the engine's pulse, shutting down."""

import statistics
import time

import pytest

from backplane_core.messages import RunnerInfo
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, lasting
from backplane_core.testing.conformance.shared_worker import SharedWorker
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_process import WorkerStartError
from backplane_core.vocabulary import Vocabulary

_MAX_ANSWER_S = 0.2
_SETUP_STATUS = 3


class LifecycleTests(ConformanceBase):
    """From start to exit."""

    def test_ready_facts_are_sane(self, backplane_client: WorkerClient) -> None:
        """Limits nest and honour what was asked; ids lie in the vocabulary; names are known."""
        info = backplane_client.info
        assert info.model.backend == self.backend
        assert info.model.model_id == self.model.model_id
        assert info.model.backend_version
        assert info.model.device
        self._check_limits(info)
        _check_vocabulary(info.vocabulary)
        can = info.capabilities
        assert set(can.sampling) <= set(SamplingParams.__struct_fields__)
        assert set(can.stopping) <= set(StoppingParams.__struct_fields__) - {"max_new_tokens"}
        assert "text" in can.modalities
        assert set(can.grammars) <= {"json_schema", "regex", "lark"}

    def _check_limits(self, info: RunnerInfo) -> None:
        limits, asked = info.limits, self.engine
        assert 0 < limits.max_input_tokens < limits.max_total_tokens <= limits.cache_tokens
        assert limits.max_batch_tokens > 0
        assert limits.max_sequences > 0
        assert limits.max_waiting_requests >= 0
        for name, value in (
            ("max_input_tokens", asked.max_input_tokens),
            ("max_total_tokens", asked.max_total_tokens),
            ("max_batch_tokens", asked.max_batch_prefill_tokens),
            ("cache_tokens", asked.max_batch_total_tokens),
            ("max_sequences", asked.max_batch_size),
        ):
            assert value is None or getattr(limits, name) <= value, name

    def test_loading_progress_is_sane(self, backplane_worker: SharedWorker) -> None:
        """Stages have names; fractions lie in 0…1 and do not fall within a stage."""
        reports = backplane_worker.process.progress
        assert reports, "not even the worker's own report arrived"
        reached: dict[str, float] = {}
        for report in reports:
            assert report.stage
            if report.fraction is not None:
                assert reached.get(report.stage, 0.0) <= report.fraction <= 1.0
                reached[report.stage] = report.fraction

    def test_wake_ends_an_idle_wait(self, backplane_client: WorkerClient) -> None:
        """A command to an idle engine is answered at once, not after `poll`'s time limit."""
        durations: list[float] = []
        for _ in range(5):
            # Each follows an answer closely, so it meets the beginning of a new wait.
            started = time.monotonic()
            backplane_client.stats()
            durations.append(time.monotonic() - started)
        assert statistics.median(durations) < _MAX_ANSWER_S

    def test_shutdown_finishes_what_runs(self) -> None:
        """Told to stop, the worker takes nothing new, finishes, and exits with status 0."""
        worker = self.start_worker()
        try:
            client = worker.connect()
            prompt = self.prompt(client)
            running = client.submit(
                prompt, sampling=GREEDY, stopping=lasting(client, self.room(client, prompt) // 2)
            )
            client.wait(lambda: running.accepted, "the request to be accepted")
            worker.shut_down(self.timeout_s)
            client.finish([running])
            assert running.error is None, "the running request was cut off"
            assert worker.wait() == 0, worker.log
            assert worker.down is not None
        finally:
            worker.close()

    def test_missing_model_is_a_setup_error(self) -> None:
        """A model that is not there ends the worker for good, with one line for a person."""
        self._assert_refused(model=self.missing_model())

    def test_unknown_setting_is_a_setup_error(self) -> None:
        """A setting nobody knows is not swallowed."""
        self._assert_refused(settings={**self.settings, "no_such_setting": 1})

    def _assert_refused(self, **changes: object) -> None:
        with pytest.raises(WorkerStartError) as caught:
            self.start_worker(**changes).close()
        error = caught.value
        assert error.status == _SETUP_STATUS, error
        assert error.down is not None
        assert error.down.final
        assert error.down.reason
        assert "\n" not in error.down.reason


def _check_vocabulary(vocabulary: Vocabulary) -> None:
    size = len(vocabulary.tokens)
    assert size > 1
    assert any(vocabulary.tokens)
    assert vocabulary.eos_token_ids, "without an end token nothing ever ends"
    named = {*vocabulary.special_token_ids, *vocabulary.eos_token_ids}
    if vocabulary.bos_token_id is not None:
        named.add(vocabulary.bos_token_id)
    assert all(0 <= token_id < size for token_id in named)
    assert set(vocabulary.eos_token_ids) <= set(vocabulary.special_token_ids), (
        "an end token that is not special shows in the text"
    )
