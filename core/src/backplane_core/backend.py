"""What a plugin author implements: `Backend`, a hardware family and its engine.

Static facts are class attributes, read by the launcher, so a plugin's module must import
lightly. The methods may load drivers and libraries: they run in the backend's own interpreter.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from backplane_core.errors import BackendError
from backplane_core.runner import ModelRunner
from backplane_core.version import PROTOCOL

# ── answers to the launcher's questions ──────────────────────────────────────────────────


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One accelerator (or the CPU), as a person would name it."""

    name: str
    memory_bytes: int | None = None


class Available(msgspec.Struct, frozen=True, kw_only=True, tag="available"):
    """The backend can run here. `version` is its engine's."""

    devices: tuple[Device, ...]
    version: str


class Unavailable(msgspec.Struct, frozen=True, kw_only=True, tag="unavailable"):
    """The backend cannot run here: why, and what a person can do about it."""

    reason: str
    remedy: str


Availability = Available | Unavailable


class Native(msgspec.Struct, frozen=True, kw_only=True, tag="native"):
    """The backend is made for this model."""


class BestEffort(msgspec.Struct, frozen=True, kw_only=True, tag="best_effort"):
    """The backend can serve this model, but another may do it better."""

    reason: str


class Unsupported(msgspec.Struct, frozen=True, kw_only=True, tag="unsupported"):
    """The backend cannot serve this model."""

    reason: str


Support = Native | BestEffort | Unsupported


class ModelSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as the user named it, before or after its files are here.

    Attributes:
        model_id: as given: a Hub id ("owner/name", "owner/name:quant") or a local path.
        files: names (relative, "/"-separated) of all files of the repository or folder; for
            a single local file, that one name.
        path: the local folder or file once its files are here; None while on the Hub.
        revision: branch, tag or commit on the Hub.
        variant: what follows the colon in the id (a quantization such as "Q4_K_M"), if any.
        gguf_file: the value of `--gguf-file`, if given.
        config: the parsed `config.json`, where there is one.
    """

    model_id: str
    files: tuple[str, ...] = ()
    path: str | None = None
    revision: str | None = None
    variant: str | None = None
    gguf_file: str | None = None
    config: dict[str, Any] = {}


class AdapterSource(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter to load at start: the name requests select it by, and its local folder or file."""

    name: str
    path: str


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits and choices common to all backends, from the command line. None is automatic.

    The names are the command line's; `docs/launcher.md` says what each means. A backend that
    cannot honour one that is set raises `BackendError` naming it. `adapters` are not the
    backend's to look at: the worker has the runner load each before it says that it is ready.
    """

    max_concurrent_requests: int = 128
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    max_batch_total_tokens: int | None = None
    max_batch_size: int | None = None
    num_shard: int | None = None
    dtype: str | None = None
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    trust_remote_code: bool = False
    memory_fraction: float | None = None
    rope_scaling: str | None = None
    rope_factor: float | None = None
    speculate: int | None = None
    cuda_graphs: tuple[int, ...] | None = None
    adapters: tuple[AdapterSource, ...] = ()


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker is told to load. `model.path` is local; `settings` is the backend's own."""

    model: ModelSource
    engine: EngineSettings = EngineSettings()
    settings: dict[str, Any] = {}


class ProgressSink(Protocol):
    """Receives what a long step is doing, for `/health` and the terminal."""

    def __call__(self, stage: str, fraction: float | None = None, detail: str = "") -> None:
        """Report `stage` ("load", "compile", "warm-up"), `fraction` 0…1 where known."""
        ...


# ── settings ─────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoSettings:
    """For a backend with no settings of its own."""


class SettingField(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field of a backend's settings, as data, so that a launcher can mount it.

    Attributes:
        name: the dataclass field's name; the flag is `--<backend>.<name-with-dashes>`.
        type: "bool", "int", "float", "str" or, with `choices`, one of those strings.
        flags: further flags ("--ctx-size"), taken where no other backend claims them.
        default: None where the default is automatic.
    """

    name: str
    type: str
    help: str
    default: bool | int | float | str | None = None
    choices: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def setting(
    default: Any,
    help: str,  # noqa: A002 - the word users of argparse and click know
    *,
    flags: tuple[str, ...] = (),
) -> Any:
    """A dataclass field of a backend's settings: its default, help text and further flags."""
    return dataclasses.field(default=default, metadata={"help": help, "flags": flags})


def setting_fields(settings: type[Any]) -> tuple[SettingField, ...]:
    """Describe a settings dataclass whose fields were made by `setting`.

    Field types may be bool, int, float, str, a `Literal` of strings, or one of those or None.

    Raises:
        BackendError: a field's type is none of these.
    """
    fields: list[SettingField] = []
    info = msgspec.inspect.type_info(settings)
    if not isinstance(info, msgspec.inspect.DataclassType):
        raise BackendError(f"{settings.__name__} is not a dataclass")
    metadata = {field.name: field.metadata for field in dataclasses.fields(settings)}
    for field in info.fields:
        kind, choices = _kind_of(settings, field.name, field.type)
        fields.append(
            SettingField(
                name=field.name,
                type=kind,
                choices=choices,
                help=metadata[field.name].get("help", ""),
                flags=tuple(metadata[field.name].get("flags", ())),
                default=None if field.default is msgspec.NODEFAULT else field.default,
            )
        )
    return tuple(fields)


def _kind_of(
    settings: type[Any], name: str, annotation: msgspec.inspect.Type
) -> tuple[str, tuple[str, ...]]:
    members = annotation.types if isinstance(annotation, msgspec.inspect.UnionType) else ()
    plain = [member for member in members if not isinstance(member, msgspec.inspect.NoneType)]
    if len(plain) == 1:
        return _kind_of(settings, name, plain[0])
    match annotation:
        case msgspec.inspect.BoolType():
            return "bool", ()
        case msgspec.inspect.IntType():
            return "int", ()
        case msgspec.inspect.FloatType():
            return "float", ()
        case msgspec.inspect.StrType():
            return "str", ()
        case msgspec.inspect.LiteralType(values=values):
            return "str", tuple(str(value) for value in values)
        case _:
            raise BackendError(f"{settings.__name__}.{name} has a type that is no setting's")


class BackendFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A backend's static facts as data; what `describe` prints and the launcher reads.

    `error` is set, and the rest empty, for a plugin that failed to import.
    """

    name: str
    protocol: tuple[int, int] = (0, 0)
    distribution: str | None = None
    version: str | None = None
    summary: str = ""
    settings: tuple[SettingField, ...] = ()
    quantizations: tuple[str, ...] = ()
    spans_devices: bool = False
    priority: int = 0
    error: str | None = None


# ── the class a plugin registers ─────────────────────────────────────────────────────────


class Backend(ABC):
    """A hardware family and the engine that serves models on it.

    Attributes:
        name: what `--backend` takes; lower case, a Python identifier.
        summary: one line for `backplane backends`.
        protocol: the contract version it is written for.
        settings: a frozen dataclass of `setting` fields, mounted as `--<name>.*`.
        quantizations: the types that `quantize` can make ("q4_k_m"), lower case; none by default.
        spans_devices: one worker can be spread over `--num-shard` devices.
        priority: `--backend auto` prefers the higher among equally able backends.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    protocol: ClassVar[tuple[int, int]] = PROTOCOL
    settings: ClassVar[type[Any]] = NoSettings
    quantizations: ClassVar[tuple[str, ...]] = ()
    spans_devices: ClassVar[bool] = False
    priority: ClassVar[int] = 0

    @abstractmethod
    def probe(self) -> Availability:
        """Whether it can run on this machine. May load drivers; must not raise for absence."""

    @abstractmethod
    def supports(self, model: ModelSource) -> Support:
        """Whether it can serve this model, judged from file names and `config.json`."""

    @abstractmethod
    def select_files(self, model: ModelSource) -> tuple[str, ...]:
        """Which of `model.files` it needs, for the launcher to download.

        Raises:
            ModelError: the choice is ambiguous or nothing fits; the message lists what there is.
        """

    @abstractmethod
    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        """Load the model. Runs in the worker process; may take minutes, reporting `progress`.

        Raises:
            ModelError: the files are missing, broken or not a model of this backend.
            BackendError: the device, a library or a setting stands in the way.
        """

    def quantize(
        self, source: ModelSource, target: Path, quantization: str, progress: ProgressSink
    ) -> None:
        """Write a local model to the new file `target`, its weights as one of `quantizations`.

        Runs in a process of its own, which may be killed: a partial file must not stay under the
        target's name.

        Raises:
            ModelError: the source is missing, broken or not a model of this backend.
            BackendError: the backend makes no such type, or a library or the disk stands in the
                way.
        """
        del target, progress
        raise BackendError(
            f"backend {self.name} cannot write {source.model_id} as {quantization}",
            remedy=f"it makes: {', '.join(self.quantizations) or 'none'}",
        )

    @classmethod
    def parse_settings(cls, values: Mapping[str, Any]) -> Any:
        """The backend's settings dataclass from plain values (strings are converted).

        Raises:
            BackendError: an unknown name or a value of the wrong type.
        """
        known = {field.name for field in dataclasses.fields(cls.settings)}
        if unknown := sorted(set(values) - known):
            raise BackendError(
                f"backend {cls.name} has no setting {', '.join(unknown)}",
                remedy=f"it has: {', '.join(sorted(known)) or 'none'}",
            )
        try:
            return msgspec.convert(dict(values), cls.settings, strict=False)
        except msgspec.ValidationError as error:
            raise BackendError(f"setting of backend {cls.name}: {error}") from error
