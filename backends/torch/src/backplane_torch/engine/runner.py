"""`TorchRunner`: core's batching over a model of transformers, on whichever device."""

import contextlib
import logging
import time
from typing import Final

from backplane_core.backend import ProgressSink, RunnerSpec
from backplane_core.batching.runner import BatchingRunner
from backplane_core.batching.scheduler_settings import PrefillPace, SchedulerSettings
from backplane_core.chat_templates import find_chat_templates
from backplane_core.messages import RunnerInfo

from backplane_torch.engine import facts
from backplane_torch.engine.checkpoint.checkpoint import local_folder
from backplane_torch.engine.checkpoint.config import max_positions, read_config
from backplane_torch.engine.checkpoint.loading import FoundModel, find_model, load_model
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.engine.engine_settings import (
    check_engine_settings,
    check_limits,
    compute_dtype,
    stretch_positions,
)
from backplane_torch.engine.executor import TorchExecutor
from backplane_torch.engine.opening import choose_path, open_model, warm_up
from backplane_torch.engine.sampling.batch_sampler import BatchSampler
from backplane_torch.engine.tokenizer.loading import ModelTokenizer, load_tokenizer
from backplane_torch.settings import BACKEND, TorchSettings

_log = logging.getLogger("backplane_torch")

# A stream may wait so long for a chunk of others' prompts.
_CHUNK_S: Final = 0.12


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
    started_s = time.monotonic()
    found = _find(spec, settings, device)
    dtype = compute_dtype(spec.engine, found.dtype, device)
    with contextlib.ExitStack() as undo:
        tokenizer = load_tokenizer(local_folder(spec.model), found.config)
        undo.callback(tokenizer.close)
        _warn(tokenizer.warnings)
        loaded = load_model(
            found,
            dtype=dtype,
            device=device.torch_device,
            report=lambda done, file: progress("load", done, file),
        )
        _warn(loaded.warnings)
        path = choose_path(loaded.model)
        device.prepare_layers(
            loaded.model, spec.engine.quantize, lambda done: progress("prepare", done)
        )
        opened = open_model(loaded.model, path, device, spec.engine, settings.block_size)
        undo.callback(opened.model.close)
        progress("warm-up")
        tokens_per_s = warm_up(opened.model)
        name = spec.model.model_id
        _log.info("%s: %s; %.0f prompt tokens a second", name, opened.why, tokens_per_s)
        vocabulary = tokenizer.vocabulary
        info = RunnerInfo(
            model=facts.model_info(loaded, spec, device, backend=backend, path=path.told),
            limits=opened.limits,
            capabilities=facts.capabilities(vocabulary, opened.model.traits, device.quantizations),
            vocabulary=vocabulary,
            tokenizer=tokenizer.spec,
            chat_templates=find_chat_templates(local_folder(spec.model)),
        )
        suppressed = list(tokenizer.suppressed_token_ids)
        sampler = BatchSampler(len(vocabulary.tokens), suppressed, device.torch_device)
        pace = PrefillPace(chunk_s=_CHUNK_S, tokens_per_s=tokens_per_s)
        executor = TorchExecutor(opened.model, sampler, device)
        runner = TorchRunner(executor, info, SchedulerSettings(prefill_pace=pace), tokenizer)
        undo.pop_all()
    _log.info("%s is loaded after %.1f s", spec.model.model_id, time.monotonic() - started_s)
    return runner


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        _log.warning("%s", warning)


def _find(spec: RunnerSpec, settings: TorchSettings, device: TorchDevice) -> FoundModel:
    """What to load, after all that can be wrong about it and the flags without its weights."""
    engine = spec.engine
    check_engine_settings(engine, device)
    config = read_config(local_folder(spec.model), trust_remote_code=engine.trust_remote_code)
    stretch_positions(config, engine)
    found = find_model(
        spec.model,
        config,
        trust_remote_code=engine.trust_remote_code,
        allow_pickle=settings.allow_pickle,
    )
    check_limits(engine, settings.block_size, max_positions(found.config))
    return found
