"""The adapters that a worker loads before it says that it is ready."""

import logging
from collections.abc import Sequence

from backplane_core.backend import AdapterSource, ProgressSink
from backplane_core.errors import AdapterError, BackendError, ModelError
from backplane_core.runner import ModelRunner

_log = logging.getLogger(__name__)


def load_adapters(
    runner: ModelRunner, adapters: Sequence[AdapterSource], progress: ProgressSink
) -> None:
    """Have the runner load each, in their order.

    Raises:
        BackendError: the runner has no adapters at all.
        ModelError: one of them cannot be loaded.
    """
    if not adapters:
        return
    info = runner.info
    if not info.capabilities.adapters:
        names = ", ".join(adapter.name for adapter in adapters)
        raise BackendError(
            f"backend {info.model.backend} serves no adapters with {info.model.model_id}: {names}",
            remedy="start without --lora-adapters, or choose another --backend",
        )
    for index, adapter in enumerate(adapters):
        progress("adapters", index / len(adapters), adapter.name)
        try:
            runner.load_adapter(adapter.name, adapter.path)
        except AdapterError as error:
            raise ModelError(
                f"adapter {adapter.name} cannot be loaded: {error.message}",
                remedy=error.remedy or "check --lora-adapters, or start without this one",
            ) from error
        _log.info("adapter %s is loaded", adapter.name)
    progress("adapters", 1.0)
