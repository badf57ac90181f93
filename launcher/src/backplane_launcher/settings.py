"""What the command line says, as one frozen dataclass: flag, help and default in one place.

Knows nothing of backends' own settings (`backend_flags`) or of where a value came from
(`environment`).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

MODEL = Group("Model", sort_key=1)
BACKEND = Group("Backend", sort_key=2)
SERVER = Group("Server", sort_key=3)
LIMITS = Group("Limits", sort_key=4)
SUPERVISION = Group("Supervision and logs", sort_key=5)

POSITIVE = Number(gte=1)
NOT_NEGATIVE = Number(gte=0)

Quantization = Literal[
    "awq",
    "compressed-tensors",
    "eetq",
    "exl2",
    "gptq",
    "marlin",
    "bitsandbytes",
    "bitsandbytes-nf4",
    "bitsandbytes-fp4",
    "fp8",
]


def _flag(
    group: Group,
    *names: str,
    help: str,  # noqa: A002 - cyclopts' word
    validator: Number | None = None,
) -> Parameter:
    return Parameter(
        name=names,
        group=group,
        help=help,
        validator=validator,
        negative=(),
    )


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """Everything that `backplane` takes, but the backends' own settings. None is automatic."""

    model_id: Annotated[
        str | None,
        _flag(
            MODEL,
            "--model-id",
            help="A Hub id (owner/name, owner/name:quant), a local folder or file; "
            "without it the bundled demo model is served.",
        ),
    ] = None
    revision: Annotated[
        str | None, _flag(MODEL, "--revision", help="Branch, tag or commit on the Hub.")
    ] = None
    gguf_file: Annotated[
        str | None,
        _flag(MODEL, "--gguf-file", help="Which GGUF file of the repository or folder to load."),
    ] = None
    served_model_name: Annotated[
        str | None,
        _flag(MODEL, "--served-model-name", help="The name the APIs give the model."),
    ] = None
    trust_remote_code: Annotated[
        bool,
        _flag(MODEL, "--trust-remote-code", help="Let the backend run the repository's code."),
    ] = False
    huggingface_hub_cache: Annotated[
        str | None,
        _flag(MODEL, "--huggingface-hub-cache", help="Folder for what is downloaded."),
    ] = None
    tokenizer_config_path: Annotated[
        str | None,
        _flag(
            MODEL,
            "--tokenizer-config-path",
            help="A tokenizer_config.json in place of the model's.",
        ),
    ] = None
    chat_template: Annotated[
        str | None,
        _flag(
            MODEL,
            "--chat-template",
            help="A Jinja chat template in place of the model's: its file, or itself.",
        ),
    ] = None

    backend: Annotated[
        str,
        _flag(
            BACKEND,
            "--backend",
            help="A backend's name (see `backplane backends`); auto takes the best that can run.",
        ),
    ] = "auto"
    backend_python: Annotated[
        tuple[str, ...],
        _flag(
            BACKEND,
            "--backend-python",
            help="NAME=PATH: the Python in whose environment backend NAME lives; repeatable.",
        ),
    ] = ()
    num_replicas: Annotated[
        int,
        _flag(
            BACKEND,
            "--num-replicas",
            help="Workers, each with the whole model.",
            validator=POSITIVE,
        ),
    ] = 1
    num_shard: Annotated[
        int | None,
        _flag(BACKEND, "--num-shard", help="Devices one worker spans.", validator=POSITIVE),
    ] = None
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None,
        _flag(BACKEND, "--dtype", help="Number format to compute in."),
    ] = None
    quantize: Annotated[
        Quantization | None, _flag(BACKEND, "--quantize", help="Quantization of the weights.")
    ] = None
    kv_cache_dtype: Annotated[
        Literal["fp8_e4m3fn", "fp8_e5m2"] | None,
        _flag(BACKEND, "--kv-cache-dtype", help="Number format of the key-value cache."),
    ] = None

    hostname: Annotated[str, _flag(SERVER, "--hostname", help="Address or name to listen on.")] = (
        "0.0.0.0"  # noqa: S104 - TGI's default; containers need it
    )
    port: Annotated[
        int,
        _flag(
            SERVER,
            "--port",
            "-p",
            help="Port to listen on; 0 takes a free one.",
            validator=Number(gte=0, lte=65535),
        ),
    ] = 3000
    num_servers: Annotated[
        int,
        _flag(SERVER, "--num-servers", help="HTTP server processes.", validator=POSITIVE),
    ] = 1
    api_key: Annotated[
        tuple[str, ...],
        _flag(
            SERVER,
            "--api-key",
            help="Key that clients must send; repeatable. The variable keeps it out of `ps`.",
        ),
    ] = ()
    cors_allow_origin: Annotated[
        tuple[str, ...],
        _flag(
            SERVER, "--cors-allow-origin", help="Origin that browsers may call from; repeatable."
        ),
    ] = ()
    allowed_host: Annotated[
        tuple[str, ...],
        _flag(
            SERVER,
            "--allowed-host",
            help="Name that requests may reach this server by, beside its own, localhost and IP "
            "addresses; repeatable. Counts where no --api-key is set; on loopback names must be "
            "known even without this.",
        ),
    ] = ()
    payload_limit: Annotated[
        int,
        _flag(SERVER, "--payload-limit", help="Largest request body, bytes.", validator=POSITIVE),
    ] = 2_000_000
    validation_workers: Annotated[
        int,
        _flag(
            SERVER, "--validation-workers", help="Tokenizer threads a server.", validator=POSITIVE
        ),
    ] = 2
    write_timeout: Annotated[
        float,
        _flag(
            SERVER,
            "--write-timeout",
            help="Seconds after which a client that reads nothing is cut.",
            validator=Number(gt=0),
        ),
    ] = 30.0

    max_concurrent_requests: Annotated[
        int,
        _flag(
            LIMITS,
            "--max-concurrent-requests",
            help="Requests running and waiting; more are answered 429.",
            validator=POSITIVE,
        ),
    ] = 128
    max_client_batch_size: Annotated[
        int,
        _flag(LIMITS, "--max-client-batch-size", help="Inputs in one request.", validator=POSITIVE),
    ] = 4
    max_best_of: Annotated[
        int, _flag(LIMITS, "--max-best-of", help="Largest best_of.", validator=POSITIVE)
    ] = 2
    max_stop_sequences: Annotated[
        int,
        _flag(
            LIMITS, "--max-stop-sequences", help="Stop strings a request.", validator=NOT_NEGATIVE
        ),
    ] = 4
    max_top_n_tokens: Annotated[
        int,
        _flag(LIMITS, "--max-top-n-tokens", help="Largest top_n_tokens.", validator=NOT_NEGATIVE),
    ] = 5
    max_input_tokens: Annotated[
        int | None,
        _flag(
            LIMITS,
            "--max-input-tokens",
            "--max-input-length",
            help="Longest prompt, tokens.",
            validator=POSITIVE,
        ),
    ] = None
    max_total_tokens: Annotated[
        int | None,
        _flag(
            LIMITS,
            "--max-total-tokens",
            "--max-model-len",
            help="Longest prompt and answer together, tokens.",
            validator=Number(gte=2),
        ),
    ] = None
    max_batch_prefill_tokens: Annotated[
        int | None,
        _flag(
            LIMITS,
            "--max-batch-prefill-tokens",
            help="Prompt tokens computed in one step.",
            validator=POSITIVE,
        ),
    ] = None
    max_batch_total_tokens: Annotated[
        int | None,
        _flag(
            LIMITS,
            "--max-batch-total-tokens",
            help="Tokens of all running requests together.",
            validator=POSITIVE,
        ),
    ] = None
    max_batch_size: Annotated[
        int | None,
        _flag(LIMITS, "--max-batch-size", help="Sequences in one step.", validator=POSITIVE),
    ] = None

    worker_stall_timeout: Annotated[
        float,
        _flag(
            SUPERVISION,
            "--worker-stall-timeout",
            help="Seconds without a sign of life or a step after which a worker is replaced.",
            validator=Number(gt=0),
        ),
    ] = 120.0
    graceful_termination_timeout: Annotated[
        float,
        _flag(
            SUPERVISION,
            "--graceful-termination-timeout",
            "-g",
            help="Seconds that running requests get after SIGTERM.",
            validator=NOT_NEGATIVE,
        ),
    ] = 90.0
    json_output: Annotated[
        bool, _flag(SUPERVISION, "--json-output", help="Logs as JSON lines.")
    ] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        _flag(SUPERVISION, "--log-level", help="How much to log."),
    ] = "info"
