"""Backplane's entry point into this package. Import-light: llama.cpp is loaded when it is asked."""

from backplane_core.hookspecs import RegisterBackend, hookimpl

from backplane_llamacpp.backend import LlamaCppBackend


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    """Register the one backend this package has."""
    register(LlamaCppBackend)
