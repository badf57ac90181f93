"""Backend "echo": deterministic, without a model, for tests and front-end benchmarks.

It repeats the prompt, or a chat's last turn. It serves only models named "echo:…".
"""

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from backplane_core.backend import (
    Availability,
    Available,
    Backend,
    Device,
    ModelSource,
    Native,
    ProgressSink,
    RunnerSpec,
    Support,
    Unsupported,
)
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.errors import BackendError, ModelError
from backplane_core.guidance.kinds import supported_kinds
from backplane_core.hookspecs import RegisterBackend, hookimpl
from backplane_core.messages import ModelInfo, RunnerInfo
from backplane_core.runner import ModelRunner
from backplane_core.testing import echo_model
from backplane_core.testing.echo_settings import EchoSettings
from backplane_core.version import __version__
from backplane_core.vocabulary import RemoteTokenizer

if TYPE_CHECKING:
    from backplane_core.testing.echo_runner import EchoRunner

MODEL_PREFIX = "echo:"

CAPABILITIES = Capabilities(
    sampling=(
        "watermark",
        "logit_bias",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "seed",
    ),
    stopping=("min_new_tokens", "stop_token_ids", "ignore_eos"),
    max_top_logprobs=len(echo_model.WINDOW_LOGITS),
    prompt_logprobs=True,
    multiple_sequences=True,
    adapters=True,
    prefix_cache=True,
    deterministic_seeds=True,
)

_NOT_OURS = (
    *("num_shard", "dtype", "quantize", "kv_cache_dtype", "memory_fraction"),
    *("rope_scaling", "rope_factor", "speculate", "cuda_graphs"),
)


class EchoBackend(Backend):
    """Output token i is prompt[i % len(prompt)]; an end token follows each round."""

    name = "echo"
    summary = "Repeats the prompt; no model. For tests and front-end benchmarks."
    settings = EchoSettings
    priority = -100
    runner_class: ClassVar["type[EchoRunner] | None"] = None

    def probe(self) -> Availability:
        """Always there."""
        return Available(devices=(Device(name=platform.machine() or "cpu"),), version=__version__)

    def supports(self, model: ModelSource) -> Support:
        """Models named "echo:…" and no other."""
        if model.model_id.startswith(MODEL_PREFIX):
            return Native()
        return Unsupported(reason=f"echo serves only models named {MODEL_PREFIX}…")

    def select_files(self, model: ModelSource) -> tuple[str, ...]:
        """None are needed."""
        if not model.model_id.startswith(MODEL_PREFIX):
            raise ModelError(f"echo serves only models named {MODEL_PREFIX}…, not {model.model_id}")
        return ()

    def create_runner(self, spec: RunnerSpec, progress: ProgressSink) -> ModelRunner:
        """Pretend to load for `load_seconds`."""
        settings: EchoSettings = self.parse_settings(spec.settings)
        if spec.model.path is not None and not Path(spec.model.path).exists():
            raise ModelError(f"there is no model at {spec.model.path}")
        limits = _limits(spec, settings)
        _pretend_to_load(settings, progress)
        vocabulary = echo_model.vocabulary(settings.vocabulary_size)
        info = RunnerInfo(
            model=ModelInfo(
                model_id=spec.model.model_id,
                backend=self.name,
                backend_version=__version__,
                device=platform.machine() or "cpu",
                revision=spec.model.revision,
                architecture="echo",
                dtype="bytes",
                num_parameters=0,
            ),
            limits=limits,
            capabilities=msgspec.structs.replace(
                CAPABILITIES, grammars=supported_kinds(vocabulary)
            ),
            vocabulary=vocabulary,
            tokenizer=RemoteTokenizer(),
            chat_templates={"default": echo_model.CHAT_TEMPLATE},
        )
        from backplane_core.testing.echo_runner import EchoRunner  # noqa: PLC0415 - plugins import lightly

        return (self.runner_class or EchoRunner)(info, settings)


@hookimpl
def backplane_register_backends(register: RegisterBackend) -> None:
    """Register the echo backend."""
    register(EchoBackend)


def _asks(value: object) -> bool:
    """Whether a flag asks for anything: 0 draft tokens and graphs of size 0 do not."""
    return value not in {None, 0, (), (0,)}


def _limits(spec: RunnerSpec, settings: EchoSettings) -> Limits:
    engine = spec.engine
    for name in _NOT_OURS:
        if _asks(getattr(engine, name)):
            raise BackendError(
                f"backend echo has no {name}", remedy=f"leave out --{name.replace('_', '-')}"
            )
    if settings.vocabulary_size < echo_model.MIN_VOCABULARY:
        raise BackendError(
            f"echo.vocabulary_size {settings.vocabulary_size} has no room for bytes and specials",
            remedy=f"at least {echo_model.MIN_VOCABULARY}",
        )
    max_total = engine.max_total_tokens or 4096
    max_input = engine.max_input_tokens or max_total - 1
    if max_input >= max_total:
        raise BackendError(
            f"max_input_tokens {max_input} leaves no room for output in {max_total} tokens",
            remedy="--max-total-tokens must be higher than --max-input-tokens",
        )
    max_sequences = engine.max_batch_size or settings.max_sequences
    cache_tokens = settings.cache_tokens or engine.max_batch_total_tokens
    cache_tokens = cache_tokens or max_sequences * max_total
    if cache_tokens < max_total:
        raise BackendError(
            f"a cache of {cache_tokens} tokens cannot hold one sequence of {max_total}",
            remedy="lower --max-total-tokens or raise --max-batch-total-tokens",
        )
    return Limits(
        max_total_tokens=max_total,
        max_input_tokens=max_input,
        max_batch_tokens=engine.max_batch_prefill_tokens or max_total,
        max_sequences=max_sequences,
        max_waiting_requests=settings.max_waiting_requests,
        cache_tokens=cache_tokens,
    )


def _pretend_to_load(settings: EchoSettings, progress: ProgressSink) -> None:
    if settings.load_error:
        raise ModelError(settings.load_error)
    num_stages = 20 if settings.load_seconds else 1
    for stage in range(num_stages):
        progress("load", stage / num_stages)
        time.sleep(settings.load_seconds / num_stages)
    progress("load", 1.0)
