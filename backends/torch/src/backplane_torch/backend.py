"""`TorchBackend`: Hugging Face models through PyTorch. Import-light until it is asked to run."""

from pathlib import Path
from typing import ClassVar

from backplane_core.backend import (
    Availability,
    Available,
    Backend,
    BestEffort,
    Device,
    ModelSource,
    Native,
    ProgressSink,
    RunnerSpec,
    Support,
    Unsupported,
)
from backplane_core.errors import BackendError
from backplane_core.runner import ModelRunner
from backplane_core.version import Protocol

from backplane_torch import architectures, installation, model_files
from backplane_torch.settings import BACKEND, TorchSettings
from backplane_torch.spinning import limit_spinning


class TorchBackend(Backend):
    """Runs on the CPU; backends of accelerators build on its engine."""

    name: ClassVar[str] = BACKEND
    summary: ClassVar[str] = "Hugging Face models (safetensors) through PyTorch, on the CPU"
    protocol: ClassVar[tuple[int, int]] = Protocol(1, 0)
    settings: ClassVar[type[TorchSettings]] = TorchSettings
    priority: ClassVar[int] = 5

    def probe(self) -> Availability:
        """Whether PyTorch and transformers are there and new enough; neither is imported."""
        versions = installation.installed_versions()
        if objection := installation.objection(versions):
            return objection
        version = f"torch {versions['torch']}, transformers {versions['transformers']}"
        return Available(devices=(Device(name="cpu"),), version=version)

    def supports(self, model: ModelSource) -> Support:
        """Whether it holds weights in Hugging Face's format, of an architecture that is known."""
        if reason := _objection(model):
            return Unsupported(reason=reason)
        if model_files.only_pickled(model.files):
            return BestEffort(
                reason=f"{model.model_id} holds .bin files and no safetensors, which are read with "
                "--torch.allow-pickle alone"
            )
        named: list[str] = model.config.get("architectures") or []
        if architectures.PAGED.intersection(named):
            return Native()
        if own := architectures.OWN_CACHE.intersection(named):
            return BestEffort(
                reason=f"{min(own)} keeps a cache of its own, which running sequences do not share"
            )
        told = ", ".join(named) or "a model that names no architecture"
        return BestEffort(reason=f"{told} is not among the tested architectures")

    def select_files(self, model: ModelSource) -> tuple[str, ...]:
        """Weights, configuration, tokenizer and templates; of a local file, itself.

        Raises:
            ModelError: there are no weights, or not all.
        """
        if model.path is not None and Path(model.path).is_file():
            return tuple(model.files) or (Path(model.path).name,)
        return model_files.select_files(model)

    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        """Load the model onto the CPU.

        Raises:
            ModelError: the files are missing, broken or not a model that continues text.
            BackendError: a library or a setting stands in the way.
        """
        if objection := installation.objection(installation.installed_versions()):
            raise BackendError(objection.reason, remedy=objection.remedy)
        limit_spinning()
        from backplane_torch.engine.devices.cpu import CpuDevice  # noqa: PLC0415 - loads torch
        from backplane_torch.engine.runner import create_runner  # noqa: PLC0415 - likewise

        settings: TorchSettings = self.parse_settings(spec.settings)
        return create_runner(spec, settings, CpuDevice(settings.threads), progress)


def _objection(model: ModelSource) -> str | None:
    """Why a model cannot be served, if that can be told from its names."""
    if not model_files.weights_exist(model.files):
        return f"{model.model_id} holds no safetensors"
    if wanted := model.variant or model.gguf_file:
        return f"{wanted} names a GGUF file, and PyTorch reads safetensors"
    for architecture in model.config.get("architectures") or []:
        if reason := architectures.UNSUPPORTED.get(architecture):
            return f"{architecture}: {reason}"
    return None
