"""How many devices one worker spans: TGI's rules for `--sharded` and `--num-shard`."""

from collections.abc import Mapping, Sequence
from typing import Final

from backplane_core.backend import Device
from backplane_core.errors import SetupError

from backplane_launcher.settings import LaunchSettings

# In TGI's order: the first that is set counts.
_VARIABLES: Final = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
# Words of the container runtime that name no device: which there are must be looked at.
_ALL: Final = frozenset({"all", "void"})
_NONE: Final = frozenset({"", "none", "nodevfiles"})


def visible_devices(environ: Mapping[str, str], found: Sequence[Device]) -> int | None:
    """How many devices the environment shows; None where it says nothing.

    `found` are those that the backend sees, for words such as `all`.
    """
    for name in _VARIABLES:
        if name not in environ:
            continue
        value = environ[name].strip().lower()
        if value in _ALL:
            return len(found)
        return 0 if value in _NONE else len(value.split(","))
    return None


def num_shard(
    settings: LaunchSettings,
    environ: Mapping[str, str],
    *,
    found: Sequence[Device],
    spans_devices: bool,
) -> int | None:
    """What the backend is told; None leaves it to the backend.

    Args:
        settings: `--sharded` and `--num-shard`, which do not contradict each other.
        environ: says which devices are visible.
        found: the devices that the backend sees.
        spans_devices: whether the backend can spread one worker over several.

    Raises:
        SetupError: `--sharded true`, and there are no two devices.
    """
    wanted = 1 if settings.sharded == "false" else None
    if (wanted := settings.num_shard or wanted) is not None:
        # One device is all that a backend has which does not span several.
        return wanted if wanted > 1 or spans_devices else None
    if settings.sharded is None and not spans_devices:
        return None
    visible = visible_devices(environ, found)
    if settings.sharded is None:
        return visible or None
    count = len(found) if visible is None else visible
    if count <= 1:
        raise SetupError(
            f"--sharded true wants two devices at least, and {count or 'none'} can be seen",
            remedy="look at CUDA_VISIBLE_DEVICES, or leave out --sharded",
        )
    return count
