"""A plugin module of broken backends: echo with one fault each, one for every standard test."""

from backplane_core.hookspecs import RegisterBackend, hookimpl

from broken_backends import features, lifecycle, memory, outputs, requests
from broken_backends.breaking import BROKEN

__all__ = ["BROKEN", "features", "lifecycle", "memory", "outputs", "requests"]


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    for backend in BROKEN.values():
        register(backend)
