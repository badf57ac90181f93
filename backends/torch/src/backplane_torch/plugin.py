"""Backplane's entry point into this package. Import-light: torch is loaded when it is asked."""

from backplane_core.hookspecs import RegisterBackend, hookimpl

from backplane_torch.backend import TorchBackend


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    """Register the one backend this package has."""
    register(TorchBackend)
