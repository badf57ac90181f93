"""A backend that knows its models and lacks its device."""

from backplane_core.backend import Backend, Native, Unavailable, Unsupported
from backplane_core.hookspecs import hookimpl


class WithoutDevice(Backend):
    name = "without_device"
    summary = "Has no device here."

    def probe(self):
        return Unavailable(reason="there is no device", remedy="buy one")

    def supports(self, model):
        found = any(name.endswith(".weights") for name in model.files)
        return Native() if found else Unsupported(reason="it holds no weights")

    def select_files(self, model):
        return tuple(name for name in model.files if name.endswith((".weights", ".json")))

    def create_runner(self, spec, progress):
        raise AssertionError("it cannot run")


@hookimpl
def backplane_register_backends(register):
    register(WithoutDevice)
