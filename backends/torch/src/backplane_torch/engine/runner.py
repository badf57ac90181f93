"""`TorchRunner`: core's batching over a model of transformers, on whichever device."""

import contextlib
import logging
import time
from typing import Final, NamedTuple

from backplane_core.backend import ProgressSink, RunnerSpec
from backplane_core.batching.executor import ScheduledBatch, ScheduledSequence
from backplane_core.batching.runner import BatchingRunner
from backplane_core.batching.scheduler_settings import PrefillPace, SchedulerSettings
from backplane_core.batching.sequence import Sequence
from backplane_core.capabilities import Limits
from backplane_core.chat_templates import find_chat_templates
from backplane_core.messages import RunnerInfo, Submit
from backplane_core.sampling import StoppingParams
from transformers import PreTrainedModel

from backplane_torch.engine import facts
from backplane_torch.engine.batch_model import BatchModel
from backplane_torch.engine.cached.model import create_cached_model
from backplane_torch.engine.checkpoint.checkpoint import local_folder
from backplane_torch.engine.checkpoint.config import read_config
from backplane_torch.engine.checkpoint.loading import LoadedModel, checkpoint_dtype, load_model
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.engine.engine_settings import (
    check_engine_settings,
    compute_dtype,
    stretch_positions,
)
from backplane_torch.engine.executor import TorchExecutor
from backplane_torch.engine.paged.attention_function import ATTENTION
from backplane_torch.engine.paged.layer_survey import NotPagedError, SurveyedLayer, survey
from backplane_torch.engine.paged.paged_model import PagedModel, shape_of
from backplane_torch.engine.paged.rotary import fix_frequencies
from backplane_torch.engine.sampling.batch_sampler import BatchSampler
from backplane_torch.engine.tokenizer.loading import ModelTokenizer, load_tokenizer
from backplane_torch.kv_plan import make_kv_plan
from backplane_torch.settings import BACKEND, TorchSettings

_logger = logging.getLogger("backplane_torch")

# A stream may wait so long for a chunk of others' prompts.
_CHUNK_S: Final = 0.12
_TIMED_TOKENS: Final = 64


class TorchRunner(BatchingRunner):
    """Owns the tokenizer's files; the executor owns the model."""

    def __init__(
        self,
        executor: TorchExecutor,
        info: RunnerInfo,
        settings: SchedulerSettings,
        tokenizer: ModelTokenizer,
    ) -> None:
        super().__init__(executor, info, settings=settings)
        self._tokenizer = tokenizer

    def close(self) -> None:
        """Free the model, and remove what was made of its tokenizer."""
        super().close()
        self._tokenizer.close()


def create_runner(
    spec: RunnerSpec,
    settings: TorchSettings,
    device: TorchDevice,
    progress: ProgressSink,
    *,
    backend: str = BACKEND,
) -> TorchRunner:
    """Load a model onto a device, sizes chosen by what is free there.

    Args:
        spec: what to serve, and the flags common to all backends.
        settings: the backend's own.
        device: where to compute.
        progress: told what is done.
        backend: the name of the backend, which may be another one that builds on this engine.

    Raises:
        ModelError: the files are missing, broken or not a model that continues text.
        BackendError: a setting or the memory stands in the way.
    """
    check_engine_settings(spec.engine, device)
    started_s = time.monotonic()
    with contextlib.ExitStack() as undo:
        loaded = _load(spec, settings, device, progress)
        for warning in loaded.warnings:
            _logger.warning("%s", warning)
        tokenizer = load_tokenizer(local_folder(spec.model), loaded.config)
        undo.callback(tokenizer.close)
        path = _choose_path(loaded.model)
        device.prepare_linears(
            loaded.model, spec.engine.quantize, lambda done: progress("prepare", done)
        )
        served = _open(loaded, path, spec, settings, device)
        undo.callback(served.model.close)
        progress("warm-up")
        tokens_per_s = _warm_up(served.model)
        _logger.info(
            "%s: %s; prompts at about %.0f tokens a second",
            spec.model.model_id,
            served.why,
            tokens_per_s,
        )
        vocabulary = tokenizer.vocabulary
        traits = served.model.traits
        info = RunnerInfo(
            model=facts.model_info(
                loaded,
                spec.model,
                device,
                backend=backend,
                quantization=spec.engine.quantize,
                path=path.told,
            ),
            limits=served.limits,
            capabilities=facts.capabilities(vocabulary, traits, device.quantizations),
            vocabulary=vocabulary,
            tokenizer=tokenizer.spec,
            chat_templates=find_chat_templates(local_folder(spec.model)),
        )
        sampler = BatchSampler(
            len(vocabulary.tokens), list(tokenizer.suppressed_token_ids), device.torch_device
        )
        pace = PrefillPace(chunk_s=_CHUNK_S, tokens_per_s=tokens_per_s)
        runner = TorchRunner(
            TorchExecutor(served.model, sampler),
            info,
            SchedulerSettings(prefill_pace=pace),
            tokenizer,
        )
        undo.pop_all()
    _logger.info("%s is loaded after %.1f s", spec.model.model_id, time.monotonic() - started_s)
    return runner


def _load(
    spec: RunnerSpec, settings: TorchSettings, device: TorchDevice, progress: ProgressSink
) -> LoadedModel:
    """The model with its weights, and the attention that its class takes by itself."""
    engine = spec.engine
    folder = local_folder(spec.model)
    config = read_config(folder, trust_remote_code=engine.trust_remote_code)
    stretch_positions(config, engine)
    own = checkpoint_dtype(spec.model, config, allow_pickle=settings.allow_pickle)
    return load_model(
        spec.model,
        config=config,
        dtype=compute_dtype(engine, own, device),
        device=device.torch_device,
        attention=None,  # classes of old refuse a name that they do not know
        trust_remote_code=engine.trust_remote_code,
        allow_pickle=settings.allow_pickle,
        report=lambda done, file: progress("load", done, file),
    )


class _Path(NamedTuple):
    """How a model keeps keys and values: in pages, where `layers` are known, or its own way."""

    layers: list[SurveyedLayer]
    told: str


def _choose_path(model: PreTrainedModel) -> _Path:
    """Paged, if the model can; else why not."""
    try:
        layers = survey(model)
    except NotPagedError as error:
        told = f"its own cache: {error}"
        layers = []
    else:
        model.set_attn_implementation(ATTENTION)
        told = "paged"
    _logger.info("%s runs on %s", type(model).__name__, told)
    return _Path(layers, told)


class _Served(NamedTuple):
    """A model over its memory."""

    model: BatchModel
    limits: Limits
    why: str


def _open(
    loaded: LoadedModel,
    path: _Path,
    spec: RunnerSpec,
    settings: TorchSettings,
    device: TorchDevice,
) -> _Served:
    """Make the memory of a model's sequences."""
    if not path.layers:
        cached = create_cached_model(loaded.model, device, spec.engine)
        return _Served(cached, cached.plan.limits, cached.plan.why)
    shape = shape_of(path.layers, loaded.config, loaded.dtype)
    plan = make_kv_plan(shape, device.free_bytes(), spec.engine, settings.block_size)
    if fix_frequencies(loaded.model, plan.max_total_tokens):
        _logger.info("positions turn as in a text of %d tokens", plan.max_total_tokens)
    return _Served(PagedModel(loaded.model, path.layers, device, plan), plan.limits, plan.why)


def _warm_up(model: BatchModel) -> float:
    """Compute a short prompt twice; tokens a second of the second time."""
    traits = model.traits
    num_tokens = min(_TIMED_TOKENS, traits.max_batch_tokens, traits.slot_tokens)
    request = Submit(request_id="warm-up", prompt=[], stopping=StoppingParams(max_new_tokens=1))
    blocks = list(range(-(-num_tokens // traits.block_size)))
    sequence = Sequence(
        request=request,
        index=0,
        token_ids=[0] * num_tokens,
        num_prompt_tokens=num_tokens,
        eos_token_ids=frozenset(),
    )
    scheduled = ScheduledSequence(
        seq_id=0,
        sequence=sequence,
        start=0,
        token_ids=sequence.token_ids,
        sample=True,
        block_tables=[blocks for _ in traits.block_groups],
    )
    duration_s = 1.0
    for _ in range(2):
        started_s = time.perf_counter()
        model.forward(ScheduledBatch(sequences=[scheduled]))
        duration_s = time.perf_counter() - started_s
        model.release(0)
    return num_tokens / max(duration_s, 1e-9)
