"""A backend that spans devices and writes down what it was told; it answers as echo does.

Environment: RECORDING_FILE, where each runner's RunnerSpec and adapters go as JSON lines;
RECORDING_NO_ADAPTERS takes away what echo can do with them.
"""

import os
from pathlib import Path

import msgspec
from backplane_core.backend import Available, Device, EngineSettings, Native
from backplane_core.hookspecs import hookimpl
from backplane_core.testing.echo import EchoBackend
from backplane_core.testing.echo_runner import EchoRunner


def note(**fields) -> None:
    with Path(os.environ["RECORDING_FILE"]).open("ab") as file:
        file.write(msgspec.json.encode(fields) + b"\n")


class RecordingRunner(EchoRunner):
    def __init__(self, info, settings) -> None:
        if os.environ.get("RECORDING_NO_ADAPTERS"):
            without = msgspec.structs.replace(info.capabilities, adapters=False)
            info = msgspec.structs.replace(info, capabilities=without)
        super().__init__(info, settings)

    def load_adapter(self, name: str, path: str) -> None:
        note(
            event="adapter",
            name=name,
            path=path,
            files=sorted(file.name for file in Path(path).iterdir()),
        )


class RecordingBackend(EchoBackend):
    name = "recording"
    summary = "Writes down what it is told."
    runner_class = RecordingRunner
    spans_devices = True
    quantizations = ("upper", "broken")

    def probe(self):
        return Available(devices=(Device(name="one"), Device(name="two")), version="1")

    def supports(self, model):
        return Native()

    def select_files(self, model):
        return tuple(name for name in model.files if name.endswith((".weights", ".json")))

    def create_runner(self, spec, progress):
        note(event="spec", spec=msgspec.to_builtins(spec), pid=os.getpid())
        bare = EngineSettings(
            max_concurrent_requests=spec.engine.max_concurrent_requests,
            max_input_tokens=spec.engine.max_input_tokens,
            max_total_tokens=spec.engine.max_total_tokens,
        )
        return super().create_runner(msgspec.structs.replace(spec, engine=bare), progress)

    def quantize(self, source, target, quantization, progress):
        progress("quantize", 0.0, source.model_id)
        print("an engine's own words", flush=True)
        if quantization == "broken":
            target.write_text("half")
            os._exit(9)
        if quantization not in self.quantizations:
            super().quantize(source, target, quantization, progress)
        (weights,) = [name for name in source.files if name.endswith(".weights")]
        text = (Path(source.path) / weights).read_text()
        target.write_text(text.upper())
        progress("quantize", 1.0, "done")


@hookimpl
def backplane_register_backends(register):
    register(RecordingBackend)
