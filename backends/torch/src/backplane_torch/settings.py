"""The flags of the torch backend. Import-light; the plan and the loading give each its effect."""

import dataclasses

from backplane_core.backend import setting

BACKEND = "torch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchSettings:
    """None and 0 threads are automatic."""

    block_size: int = setting(
        32, "tokens of a block of the key-value cache; prompts share whole blocks"
    )
    threads: int = setting(0, "threads that compute; 0 is one for every CPU this process may use")
    allow_pickle: bool = setting(
        False,
        "read weights from PyTorch's .bin files where a model has no safetensors; only tensors are "
        "unpickled, but a file from someone you trust is still the better one",
    )
