"""The echo backend passes the suite that every backend has to pass."""

from pathlib import Path

from backplane_core.backend import ModelSource
from backplane_core.testing import echo_model
from backplane_core.testing.conformance import BackendConformance


class TestEcho(BackendConformance):
    backend = "echo"
    model = ModelSource(model_id="echo:conformance")
    settings = {"step_seconds": 0.001}  # noqa: RUF012 -- the suite never writes it
    timeout_s = 20.0
    golden = (((*b"golden",), (*b"goldengol",)), ((echo_model.IM_START, *b"x\nab"), (*b"x\nab",)))

    def adapters(self, folder: Path) -> dict[str, Path]:
        paths = {"one on": folder / "one", "two on": folder / "two"}
        for places, path in enumerate(paths.values(), start=1):
            path.write_text(str(places))
        return paths
