"""From loaded weights to a `BatchModel`: which path a model takes, how much it may hold, how fast.

Knows nothing of files, requests or sampling.
"""

import logging
import time
from typing import Final, NamedTuple

from backplane_core.backend import EngineSettings
from backplane_core.batching.executor import ScheduledBatch, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.capabilities import Limits
from backplane_core.errors import ModelError
from backplane_core.messages import Submit
from backplane_core.sampling import StoppingParams
from transformers import PreTrainedModel

from backplane_torch.engine.batch_model import BatchModel
from backplane_torch.engine.cached.model import create_cached_model
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.engine.paged.attention_function import ATTENTION
from backplane_torch.engine.paged.layer_survey import SurveyedLayer, survey
from backplane_torch.engine.paged.not_paged import LooksAheadError, NotPagedError
from backplane_torch.engine.paged.paged_model import PagedModel, shape_of
from backplane_torch.engine.paged.rotary import fix_frequencies
from backplane_torch.kv_plan import make_kv_plan

_log = logging.getLogger("backplane_torch")

_TIMED_TOKENS: Final = 64


class CachePath(NamedTuple):
    """How a model keeps keys and values: in pages, layer by layer, or (None) in its own way."""

    layers: list[SurveyedLayer] | None
    told: str


def choose_path(model: PreTrainedModel) -> CachePath:
    """Paged, if the model can; else why not.

    Raises:
        ModelError: it does not continue text.
    """
    try:
        layers = survey(model)
    except LooksAheadError as error:
        raise ModelError(
            f"{type(model).__name__} does not continue text: {error}",
            remedy="choose a model that does",
        ) from error
    except NotPagedError as error:
        path = CachePath(None, f"own cache: {error}")
    else:
        model.set_attn_implementation(ATTENTION)
        path = CachePath(layers, "paged")
    _log.info("%s keeps keys and values so: %s", type(model).__name__, path.told)
    return path


class OpenModel(NamedTuple):
    """A model over its memory; `why` tells what was chosen and from what."""

    model: BatchModel
    limits: Limits
    why: str


def open_model(
    model: PreTrainedModel,
    path: CachePath,
    device: TorchDevice,
    engine: EngineSettings,
    block_size: int,
) -> OpenModel:
    """Make the memory of a model's sequences.

    Raises:
        ModelError: it has no cache that sequences can be told apart in.
        BackendError: a flag contradicts another, the model or the memory.
    """
    if path.layers is None:
        cached = create_cached_model(model, device, engine)
        return OpenModel(cached, cached.plan.limits, cached.plan.why)
    shape = shape_of(path.layers, model.config, model.dtype)
    plan = make_kv_plan(shape, device.free_bytes(), engine, block_size)
    if fix_frequencies(model, plan.max_total_tokens):
        _log.info("positions turn as in a text of %d tokens", plan.max_total_tokens)
    return OpenModel(PagedModel(model, path.layers, device, plan), plan.limits, plan.why)


def warm_up(model: BatchModel) -> float:
    """Compute a short prompt twice; tokens a second of the second time."""
    traits = model.traits
    capacity = min(
        [traits.cache_tokens, *(one.num_blocks * traits.block_size for one in traits.block_groups)]
    )
    num_tokens = min(_TIMED_TOKENS, traits.max_batch_tokens, traits.slot_tokens, capacity)
    request = Submit(request_id="warm-up", prompt=[], stopping=StoppingParams(max_new_tokens=1))
    sequence = Sequence(
        request=request,
        index=0,
        token_ids=[0] * num_tokens,
        num_prompt_tokens=num_tokens,
        eos_token_ids=frozenset(),
    )
    blocks = list(range(-(-num_tokens // traits.block_size)))
    scheduled = ScheduledSequence(
        seq_id=0,
        sequence=sequence,
        start=0,
        token_ids=sequence.token_ids,
        sample=True,
        block_tables=[blocks for _ in traits.block_groups],
    )
    duration_s = 1.0
    for _ in range(2):
        started_s = time.perf_counter()
        model.forward(ScheduledBatch(sequences=[scheduled]))
        duration_s = time.perf_counter() - started_s
        model.release(0)
    return num_tokens / max(duration_s, 1e-9)
