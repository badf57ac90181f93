"""`LlamaCppBackend`: GGUF models through llama.cpp. Import-light until it is asked to run."""

from pathlib import Path
from typing import ClassVar

from backplane_core.backend import (
    Availability,
    Available,
    Backend,
    Device,
    ModelSource,
    Native,
    ProgressSink,
    RunnerSpec,
    Support,
    Unavailable,
    Unsupported,
)
from backplane_core.chat_templates import TEMPLATE_FILES
from backplane_core.errors import BackendError, ModelError
from backplane_core.runner import ModelRunner
from backplane_core.version import Protocol

from backplane_llamacpp import installation, model_files
from backplane_llamacpp.gguf_file import check_file
from backplane_llamacpp.quantization import QUANTIZATIONS
from backplane_llamacpp.quantization import quantize as write_quantized
from backplane_llamacpp.settings import BACKEND, LlamaCppSettings


class LlamaCppBackend(Backend):
    """Runs on any CPU, and on GPUs where the installed llama.cpp is built for them."""

    name: ClassVar[str] = BACKEND
    summary: ClassVar[str] = "GGUF models through llama.cpp, on the CPU or a GPU; needs no torch"
    protocol: ClassVar[tuple[int, int]] = Protocol(1, 0)
    settings: ClassVar[type[LlamaCppSettings]] = LlamaCppSettings
    quantizations: ClassVar[tuple[str, ...]] = QUANTIZATIONS
    priority: ClassVar[int] = 10

    def probe(self) -> Availability:
        """Whether the bindings are there, new enough, and load."""
        version = installation.bindings_version()
        if objection := installation.objection(version):
            return objection
        try:
            from backplane_llamacpp.native.devices import native_devices  # noqa: PLC0415 - loads the engine
        except (ImportError, OSError, RuntimeError) as error:
            return Unavailable(
                reason=f"{installation.DISTRIBUTION} {version} does not load: {error}",
                remedy="install it again for this machine: "
                f"pip install --force-reinstall --no-cache-dir {installation.DISTRIBUTION}",
            )
        devices = tuple(
            Device(name=device.name, memory_bytes=device.total_bytes or None)
            for device in native_devices()
        )
        return Available(devices=devices, version=version or "")

    def supports(self, model: ModelSource) -> Support:
        """Whether there is a GGUF file among the model's files."""
        if model_files.candidates_exist(model.files):
            return Native()
        if any(name.endswith((".safetensors", ".bin", ".pt")) for name in model.files):
            return Unsupported(
                reason=f"{model.model_id} holds safetensors or PyTorch weights and no GGUF file; "
                "llama.cpp reads GGUF"
            )
        return Unsupported(reason=f"{model.model_id} holds no GGUF file")

    def select_files(self, model: ModelSource) -> tuple[str, ...]:
        """The one file, or all parts of a split one, and what files of chat templates there are.

        Raises:
            ModelError: nothing fits, or several do equally; the message lists what there is.
        """
        if model.path is not None and Path(model.path).is_file():
            return tuple(model.files) or (Path(model.path).name,)
        templates = tuple(name for name in TEMPLATE_FILES if name in model.files)
        return model_files.choose(model).files + templates

    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        """Load the model and make its context.

        Raises:
            ModelError: the file is missing, broken or not a model that continues text.
            BackendError: the bindings or a setting stand in the way.
        """
        if objection := installation.objection(installation.bindings_version()):
            raise BackendError(objection.reason, remedy=objection.remedy)
        from backplane_llamacpp.runner import create_runner  # noqa: PLC0415 - loads the engine

        settings = self.parse_settings(spec.settings)
        return create_runner(spec, local_path(spec.model), settings, progress)

    def quantize(
        self, source: ModelSource, target: Path, quantization: str, progress: ProgressSink
    ) -> None:
        """Write a GGUF model, split or not, as one file of another type.

        Raises:
            ModelError: the source is missing, broken or quantized already.
            BackendError: the type is unknown, or the bindings or the disk stand in the way.
        """
        if objection := installation.objection(installation.bindings_version()):
            raise BackendError(objection.reason, remedy=objection.remedy)
        path = local_path(source)
        check_file(path)
        write_quantized(path, target, quantization, progress)


def local_path(model: ModelSource) -> Path:
    """The file to hand to llama.cpp: of a split model the first part, all parts being there.

    Raises:
        ModelError: nothing is there, or not all of it.
    """
    if model.path is None:
        raise ModelError(f"{model.model_id} has not been downloaded")
    path = Path(model.path)
    if path.is_file():
        folder = path.parent
        if not model_files.is_part(path.name):
            return path
        chosen = model_files.choose(
            ModelSource(
                model_id=model.model_id,
                files=tuple(entry.name for entry in folder.iterdir()),
                gguf_file=path.name,
            )
        )
    elif path.is_dir():
        folder = path
        names = (entry.relative_to(path).as_posix() for entry in path.rglob("*"))
        local = ModelSource(
            model_id=model.model_id,
            files=tuple(sorted(names)),
            variant=model.variant,
            gguf_file=model.gguf_file,
        )
        chosen = model_files.choose(local)
    else:
        raise ModelError(f"there is no file or folder {path}")
    return folder / chosen.files[0]
