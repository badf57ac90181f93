"""The contract between Backplane's server and its hardware backends.

A plugin author reads `backend`, `runner` and, for the batching toolkit, `batching`.
Nothing here imports an engine; hard dependencies are msgspec and pluggy alone.
"""

from backplane_core.version import PROTOCOL, Protocol, __version__

__all__ = ["PROTOCOL", "Protocol", "__version__"]
