"""What launcher, servers and workers say on the control socket, and what a child is told.

Children connect, say `Join`, and treat end-of-file as the launcher's death. Nothing secret is
ever on a command line: a child gets the path of a launch document in a 0700 directory.
"""

import msgspec

from backplane_core.backend import RunnerSpec
from backplane_core.messages import Message

# ── child → launcher ─────────────────────────────────────────────────────────────────────


class Join(Message, frozen=True):
    """First message of a child: who it is. `role` is "server" or "worker"."""

    role: str
    member_id: str
    pid: int
    protocol: tuple[int, int]


class ServerUp(Message, frozen=True):
    """The server accepts connections at `address` ("http://127.0.0.1:3000")."""

    server_id: str
    address: str


class Heartbeat(Message, frozen=True):
    """A worker lives. Sent every second by its I/O thread.

    A worker whose heartbeats stop, or whose `num_steps` stands still while `busy`, is hung.
    """

    worker_id: str
    num_steps: int
    busy: bool


# ── both ways: from a worker to the launcher, from there to every server ─────────────────


class Progress(Message, frozen=True):
    """What a worker is doing before it is up. `fraction` is 0…1 where known."""

    worker_id: str
    stage: str
    fraction: float | None = None
    detail: str = ""


class WorkerUp(Message, frozen=True):
    """A worker serves at `socket_path`."""

    worker_id: str
    socket_path: str


class WorkerDown(Message, frozen=True):
    """A worker is gone or could not start.

    `reason` is for the log and the terminal: it may quote an engine, or name a file. `summary`
    says as much as a client may read. `final` says that the launcher will not try again.
    """

    worker_id: str
    reason: str
    summary: str = "the worker stopped"
    final: bool = False


# ── launcher → child ─────────────────────────────────────────────────────────────────────


class Shutdown(Message, frozen=True):
    """Take nothing new, finish what is in flight within `grace_s` seconds, then exit 0."""

    grace_s: float


FromChild = Join | ServerUp | Heartbeat | Progress | WorkerUp | WorkerDown
ToChild = Progress | WorkerUp | WorkerDown | Shutdown

# ── launch documents (JSON files) ────────────────────────────────────────────────────────


class WorkerLaunch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `python -m backplane_core.worker DOCUMENT` is to do.

    `control_path` empty runs without a launcher (tests, debugging).
    """

    worker_id: str
    socket_path: str
    backend: str
    spec: RunnerSpec
    control_path: str = ""
    log_level: str = "info"
    log_json: bool = False


class ServerLaunch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `python -m backplane_server DOCUMENT` is to do. Names are the command line's.

    `listen_fd` is the listening socket the launcher bound and passes on, so that a restarted
    server refuses nobody; None lets the server bind `hostname`:`port` itself. `metrics_dir` is
    where all servers of one launch keep their counts, so that any of them can tell the sums and a
    restart lowers none; None keeps them in the process. `open_routes` names routes that need no
    key ("metrics", "info", "/v1/models"). `tgi_strict`
    restores what docs/tgi-compatibility.md lists.
    """

    server_id: str
    control_path: str
    model_id: str
    hostname: str = "0.0.0.0"  # noqa: S104 - TGI's default; the launcher warns
    port: int = 3000
    listen_fd: int | None = None
    served_model_name: str | None = None
    api_keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 4
    validation_workers: int = 2
    payload_limit: int = 2_000_000
    cors_allow_origin: tuple[str, ...] = ()
    tokenizer_config_path: str | None = None
    chat_template: str | None = None
    write_timeout_s: float = 30.0
    graceful_timeout_s: float = 90.0
    request_timeout_s: float | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    open_routes: tuple[str, ...] = ()
    tgi_strict: bool = False
    strict_model_name: bool = False
    tool_call_parser: str = "auto"
    reasoning_parser: str | None = None
    disable_grammar_support: bool = False
    enable_prefill_logprobs: bool = False
    watermark_gamma: float = 0.5
    watermark_delta: float = 2.0
    compute_type: str | None = None
    docker_label: str | None = None
    metrics_dir: str | None = None
    log_level: str = "info"
    log_json: bool = False
