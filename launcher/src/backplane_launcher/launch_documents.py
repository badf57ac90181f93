"""From the command line's settings to what a server and a worker are told."""

from collections.abc import Mapping
from typing import Any, Final

from backplane_core.backend import AdapterSource, EngineSettings, ModelSource, RunnerSpec
from backplane_core.control import ServerLaunch, WorkerLaunch

from backplane_launcher.local_path import local_path
from backplane_launcher.settings import LaunchSettings

# Children need none of these: keys travel in the document, downloads are the launcher's.
_SECRET_VARIABLES: Final = frozenset(
    {
        "API_KEY",
        "BACKPLANE_API_KEY",
        "HF_TOKEN",
        "HF_API_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
    }
)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The launcher's environment without its secrets."""
    kept = {name: value for name, value in environ.items() if name not in _SECRET_VARIABLES}
    # A child's output goes through a pipe, where Python would hold lines back.
    return kept | {"PYTHONUNBUFFERED": "1"}


def engine_settings(
    settings: LaunchSettings,
    *,
    num_shard: int | None = None,
    adapters: tuple[AdapterSource, ...] = (),
) -> EngineSettings:
    """The limits and choices that are common to all backends.

    Args:
        settings: the command line's.
        num_shard: what `--sharded`, `--num-shard` and the visible devices come to.
        adapters: those of `--lora-adapters`, their files here.
    """
    scaling, factor = settings.rope_scaling, settings.rope_factor
    if factor is not None:
        scaling = scaling or "linear"
    elif scaling is not None:
        factor = 1.0
    graphs = settings.cuda_graphs
    return EngineSettings(
        max_concurrent_requests=settings.max_concurrent_requests,
        max_input_tokens=settings.max_input_tokens,
        max_total_tokens=settings.max_total_tokens,
        max_batch_prefill_tokens=settings.max_batch_prefill_tokens,
        max_batch_total_tokens=settings.max_batch_total_tokens,
        max_batch_size=settings.max_batch_size,
        num_shard=num_shard,
        dtype=settings.dtype,
        quantize=settings.quantize,
        kv_cache_dtype=settings.kv_cache_dtype,
        trust_remote_code=settings.trust_remote_code,
        memory_fraction=settings.cuda_memory_fraction,
        rope_scaling=scaling,
        rope_factor=factor,
        speculate=settings.speculate,
        cuda_graphs=None if graphs is None else tuple(size for size in graphs if size),
        adapters=adapters,
    )


def runner_spec(
    model: ModelSource, engine: EngineSettings, backend_settings: Mapping[str, Any]
) -> RunnerSpec:
    """What a worker loads."""
    return RunnerSpec(model=model, engine=engine, settings=dict(backend_settings))


def worker_document(
    settings: LaunchSettings,
    spec: RunnerSpec,
    *,
    worker_id: str,
    backend: str,
    socket_path: str,
    control_path: str,
) -> WorkerLaunch:
    """One worker's launch document."""
    return WorkerLaunch(
        worker_id=worker_id,
        socket_path=socket_path,
        backend=backend,
        spec=spec,
        control_path=control_path,
        log_level=settings.log_level,
        log_json=settings.json_output,
    )


def server_document(
    settings: LaunchSettings,
    *,
    server_id: str,
    model_id: str,
    control_path: str,
    port: int,
    listen_fd: int,
    metrics_dir: str,
) -> ServerLaunch:
    """One server's launch document; `port` is the one that was bound.

    `metrics_dir` is where the servers of this launch keep their counts together.
    """
    return ServerLaunch(
        server_id=server_id,
        control_path=control_path,
        model_id=model_id,
        hostname=settings.hostname,
        port=port,
        listen_fd=listen_fd,
        served_model_name=settings.served_model_name,
        api_keys=settings.api_key,
        max_concurrent_requests=settings.max_concurrent_requests,
        max_best_of=settings.max_best_of,
        max_stop_sequences=settings.max_stop_sequences,
        max_top_n_tokens=settings.max_top_n_tokens,
        max_client_batch_size=settings.max_client_batch_size,
        validation_workers=settings.validation_workers,
        payload_limit=settings.payload_limit,
        allowed_hosts=settings.allowed_host,
        cors_allow_origin=settings.cors_allow_origin,
        tokenizer_config_path=settings.tokenizer_config_path,
        chat_template=settings.chat_template,
        write_timeout_s=settings.write_timeout,
        graceful_timeout_s=settings.graceful_termination_timeout,
        request_timeout_s=settings.request_timeout,
        tls_cert_file=_absolute(settings.tls_cert_file),
        tls_key_file=_absolute(settings.tls_key_file),
        open_routes=settings.open_routes,
        tgi_strict=settings.tgi_strict,
        strict_model_name=settings.strict_model_name,
        tool_call_parser=settings.tool_call_parser,
        reasoning_parser=settings.reasoning_parser,
        disable_grammar_support=settings.disable_grammar_support,
        enable_prefill_logprobs=settings.enable_prefill_logprobs,
        watermark_gamma=settings.watermark_gamma,
        watermark_delta=settings.watermark_delta,
        compute_type=settings.compute_type,
        docker_label=settings.docker_label,
        metrics_dir=metrics_dir,
        log_level=settings.log_level,
        log_json=settings.json_output,
    )


def _absolute(path: str | None) -> str | None:
    # Not resolved: where certificates are renewed by turning a link, the link must be followed.
    return None if path is None else str(local_path(path).absolute())
