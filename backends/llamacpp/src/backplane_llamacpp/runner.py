"""`LlamaCppRunner`: core's batching over a llama.cpp context, and the model's own tokenizer."""

import contextlib
import functools
import logging
import time
from pathlib import Path

import msgspec
from backplane_core.backend import ProgressSink, RunnerSpec
from backplane_core.batching.executor import ExecutorTraits, MemoryLayout
from backplane_core.batching.runner import BatchingRunner
from backplane_core.batching.scheduler_settings import PrefillPace, SchedulerSettings
from backplane_core.messages import RunnerInfo, StepOutput, Submit
from backplane_core.vocabulary import RemoteTokenizer

from backplane_llamacpp import facts
from backplane_llamacpp.adapters import AdapterShelf
from backplane_llamacpp.engine_settings import (
    check_engine_settings,
    rope_factor,
    with_cache_dtype,
)
from backplane_llamacpp.executor import LlamaCppExecutor
from backplane_llamacpp.limits import CHUNK_S, Plan, make_plan, pace
from backplane_llamacpp.loading import free_bytes, load_model, open_context, shape_of, warm_up
from backplane_llamacpp.native.adapter import NativeAdapter
from backplane_llamacpp.native.model import NativeModel
from backplane_llamacpp.settings import LlamaCppSettings
from backplane_llamacpp.step_sampler import StepSampler
from backplane_llamacpp.tokenizer import LlamaCppTokenizer, read_vocabulary

_log = logging.getLogger("backplane_llamacpp")


class LlamaCppRunner(BatchingRunner):
    """Owns the model; the executor owns the context."""

    def __init__(
        self,
        model: NativeModel,
        executor: LlamaCppExecutor,
        info: RunnerInfo,
        settings: SchedulerSettings,
        adapters: AdapterShelf,
    ) -> None:
        super().__init__(executor, info, settings=settings)
        self._model = model
        self._tokenizer = LlamaCppTokenizer(model)
        self._adapters = adapters
        self._free_unused = executor.free_unused_adapters

    def tokenize(
        self, texts: list[str], *, add_special: bool, parse_special: bool
    ) -> list[list[int]]:
        """Encode texts with the model's own tokenizer. Any thread."""
        return self._tokenizer.encode_batch(
            texts, add_special=add_special, parse_special=parse_special
        )

    # ── adapters ─────────────────────────────────────────────────────────────────────────

    def submit(self, request: Submit) -> None:
        """Queue a request, its adapter's name replaced by the key of what now has that name."""
        if request.adapter is not None:
            key = self._adapters.key_of(request.adapter)
            request = msgspec.structs.replace(request, adapter=key)
        super().submit(request)

    def poll(self, timeout: float) -> StepOutput:
        """Run one step, or wait for work; free adapters that were waited for."""
        if self._adapters.has_unloaded:
            self._free_unused({group.request.adapter for group in self._groups.values()})
        return super().poll(timeout)

    def load_adapter(self, name: str, path: str) -> None:
        """Read a LoRA in GGUF form, for whichever requests come with its name."""
        self._adapters.load(name, Path(path))

    def unload_adapter(self, name: str) -> None:
        """Take no more requests with this name; those that run go on with it."""
        self._adapters.unload(name)

    def close(self) -> None:
        """Free the context, then the model."""
        super().close()
        self._model.close()


def create_runner(
    spec: RunnerSpec, path: Path, settings: LlamaCppSettings, progress: ProgressSink
) -> LlamaCppRunner:
    """Load the model at `path` and make its context, sizes chosen by `limits`.

    Raises:
        ModelError: the file is missing, broken or not a model that continues text.
        BackendError: a setting stands in the way.
    """
    check_engine_settings(spec.engine)
    settings = with_cache_dtype(settings, spec.engine)
    started = time.monotonic()
    with contextlib.ExitStack() as undo:
        model = load_model(path, settings, progress)
        undo.callback(model.close)
        metadata = model.metadata()
        shape = shape_of(model, metadata, rope_factor(spec.engine))
        plan = make_plan(shape, free_bytes(model, settings), settings, spec.engine)
        for sentence in plan.changed:
            _log.warning("%s", sentence)
        context = open_context(model, plan, settings)
        undo.callback(context.close)
        progress("warm-up")
        warm = warm_up(model, context, plan.batch_tokens)
        asked = (settings.batch_size, spec.engine.max_batch_prefill_tokens) != (None, None)
        plan = pace(plan, warm.tokens_per_s, batch_asked=asked)
        _log.info("%s: %s", path.name, plan.why)
        vocabulary = read_vocabulary(model, metadata)
        info = RunnerInfo(
            model=facts.model_info(model, metadata, settings, spec.model, path),
            limits=plan.limits,
            capabilities=facts.capabilities(model, vocabulary),
            vocabulary=vocabulary,
            tokenizer=RemoteTokenizer(),
            chat_templates=facts.chat_templates(metadata, spec.model),
        )
        shelf = AdapterShelf(functools.partial(NativeAdapter, model))
        sampler = StepSampler(model.n_vocab, model.suppressed_token_ids(), context.num_threads)
        executor = LlamaCppExecutor(
            context,
            traits=_traits(plan, trimmable=warm.trimmable, max_steps=sampler.max_steps),
            sampler=sampler,
            adapters=shelf,
        )
        tuning = _scheduler_settings(plan, warm.tokens_per_s)
        runner = LlamaCppRunner(model, executor, info, tuning, shelf)
        undo.pop_all()
    _log.info("%s is loaded after %.1f s", path.name, time.monotonic() - started)
    return runner


def _traits(plan: Plan, *, trimmable: bool, max_steps: int) -> ExecutorTraits:
    return ExecutorTraits(
        layout=MemoryLayout.CELLS,
        max_sequences=plan.num_sequences,
        cache_tokens=plan.cache_tokens,
        max_batch_tokens=plan.batch_tokens,
        slot_tokens=plan.max_total_tokens,
        # From 64 rows on a published llama.cpp takes queries in tiles, and a tile reads every cell
        # that one of them may see: 31 decodes beside a chunk of 125 tokens took twice as long as
        # one by one. Whether the one at hand has our attention (scripts/patches), it does not tell.
        mixed_prefill=False,
        trimmable=trimmable,
        adapters_per_batch=1,
        max_scored_tokens=plan.scored_tokens,
        max_steps=max_steps,
    )


def _scheduler_settings(plan: Plan, tokens_per_s: float) -> SchedulerSettings:
    return SchedulerSettings(
        max_prefill_chunk=plan.chunk_tokens,
        prefill_pace=PrefillPace(chunk_s=CHUNK_S, tokens_per_s=tokens_per_s),
        max_retained_tokens=plan.retained_tokens,
        max_retained_sequences=plan.retained_sequences,
    )
