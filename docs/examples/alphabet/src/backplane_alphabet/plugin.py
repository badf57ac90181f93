"""The plugin: what the launcher reads. Light to import; the engine is loaded in the worker."""

from dataclasses import dataclass

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
    Unsupported,
    setting,
)
from backplane_core.hookspecs import RegisterBackend, hookimpl
from backplane_core.runner import ModelRunner


@dataclass(frozen=True, kw_only=True)
class AlphabetSettings:
    """Mounted on the command line as `--alphabet.*`."""

    stride: int = setting(1, "How many letters on the next one is.")
    step_seconds: float = setting(0.0, "Time to think before each letter.")


class AlphabetBackend(Backend):
    """Serves the models called "alphabet:…", on any machine."""

    name = "alphabet"
    summary = "Recites the alphabet. An example of a plugin."
    settings = AlphabetSettings

    def probe(self) -> Availability:
        """It needs nothing."""
        return Available(devices=(Device(name="cpu"),), version="0.1.0")

    def supports(self, model: ModelSource) -> Support:
        """Judged by the name alone; a real backend looks at `config` and `files`."""
        if model.model_id.startswith("alphabet:"):
            return Native()
        return Unsupported(reason="it serves only models called alphabet:…")

    def select_files(self, model: ModelSource) -> tuple[str, ...]:
        """There is nothing to download."""
        del model
        return ()

    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        """Runs in the worker: heavy imports belong here."""
        from backplane_alphabet.runner import load  # noqa: PLC0415 -- the launcher never needs it

        progress("load", 0.0)
        settings: AlphabetSettings = self.parse_settings(spec.settings)
        return load(spec, settings.stride, settings.step_seconds)


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    """Called once, at discovery."""
    register(AlphabetBackend)
