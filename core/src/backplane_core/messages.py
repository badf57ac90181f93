"""Wire protocol 1: what server and worker say to each other, as tagged structs.

Fields are only ever added, with defaults. Fields that later features need are already here.
`wire` frames and encodes them; `control` has the launcher's messages.
"""

from typing import Literal

import msgspec

from backplane_core.capabilities import Capabilities, Limits
from backplane_core.errors import ErrorInfo
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.vocabulary import TokenizerSpec, Vocabulary


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of everything that is framed on a socket; the tag is the class's name."""


# ── handshake ────────────────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True):
    """First message on a connection, from the server.

    `server_id` prefixes every request id of that server: "<server_id>-<n>".
    """

    protocol: tuple[int, int]
    server_id: str


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is served and by what; `device` is one of the `num_devices` that the worker spans."""

    model_id: str
    backend: str
    backend_version: str
    device: str
    num_devices: int = 1
    revision: str | None = None
    sha: str | None = None
    architecture: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    num_parameters: int | None = None
    detail: dict[str, str] = {}


class RunnerInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a server must know of a runner to serve it.

    `chat_templates` maps a template's name ("default", "tool_use") to its Jinja source.
    """

    model: ModelInfo
    limits: Limits
    capabilities: Capabilities
    vocabulary: Vocabulary
    tokenizer: TokenizerSpec
    chat_templates: dict[str, str] = {}


class Ready(Message, frozen=True):
    """The worker's answer to `Hello`. `adapters` are the names of those loaded by then."""

    protocol: tuple[int, int]
    info: RunnerInfo
    worker_id: str
    adapters: tuple[str, ...] = ()


# ── server → worker ──────────────────────────────────────────────────────────────────────


class TokenSegment(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """A stretch of the prompt as token ids."""

    token_ids: list[int]


class MediaSegment(msgspec.Struct, frozen=True, kw_only=True, tag="media"):
    """A media item in the prompt. The server hashes the bytes; clients never supply the hash."""

    media_id: str
    modality: str
    content_hash: bytes


PromptSegment = TokenSegment | MediaSegment


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint on the output, already checked by the server."""

    kind: Literal["json_schema", "regex", "lark"]
    source: str


class Submit(Message, frozen=True):
    """Ask for `num_sequences` continuations (or an embedding) of one prompt.

    Attributes:
        request_id: "<server_id>-<n>", unique for the life of the server.
        top_logprobs: None is no logprobs; n is the chosen token's and the n highest.
        prompt_logprobs: likewise for the prompt's tokens.
        priority: lower runs first; equal priorities are first come, first served.
        deadline: Unix time in seconds after which the request fails.
        cache_salt: requests share cached prefixes only under equal salts.
    """

    request_id: str
    prompt: list[PromptSegment]
    stopping: StoppingParams
    sampling: SamplingParams = SamplingParams()
    kind: Literal["generate", "embed"] = "generate"
    num_sequences: int = 1
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    adapter: str | None = None
    priority: int = 0
    deadline: float | None = None
    cache_salt: str | None = None
    traceparent: str | None = None

    @property
    def prompt_token_ids(self) -> list[int]:
        """The prompt's token ids, where it holds no media; not to be written to."""
        if len(self.prompt) == 1 and isinstance(first := self.prompt[0], TokenSegment):
            return first.token_ids
        return [
            token_id
            for segment in self.prompt
            if isinstance(segment, TokenSegment)
            for token_id in segment.token_ids
        ]


class Cancel(Message, frozen=True):
    """Stop a request; `index` stops one of its sequences. Unknown ids are ignored."""

    request_id: str
    index: int | None = None


class Tokenize(Message, frozen=True):
    """Encode texts. `parse_special` turns a special token's literal text into its id."""

    request_id: str
    texts: list[str]
    add_special: bool = True
    parse_special: bool = False


class LoadAdapter(Message, frozen=True):
    """Make an adapter available under a name."""

    request_id: str
    name: str
    path: str


class UnloadAdapter(Message, frozen=True):
    """Forget an adapter."""

    request_id: str
    name: str


class GetStats(Message, frozen=True):
    """Ask for `Stats`."""

    request_id: str


class Drain(Message, frozen=True):
    """Take no new requests; `Drained` follows when the last one is done."""


ToWorker = Hello | Submit | Cancel | Tokenize | LoadAdapter | UnloadAdapter | GetStats | Drain

# ── worker → server ──────────────────────────────────────────────────────────────────────


class Accepted(Message, frozen=True):
    """The request is queued or running."""

    request_id: str


class Rejected(Message, frozen=True):
    """The request was not taken."""

    request_id: str
    error: ErrorInfo


FinishReason = Literal["length", "eos", "stop_token", "cancelled"]


class SequenceTiming(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Comes with a sequence's first token. Seconds and token counts."""

    queue_s: float
    prefill_s: float
    num_prompt_tokens: int
    num_cached_tokens: int


class SequenceDelta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One sequence's new tokens of one engine step.

    Attributes:
        token_ids: the new tokens, an end token included; may be empty at the end.
        logprobs: one per token, where asked for; natural logarithm.
        top_logprobs: per token the highest `(token id, logprob)` pairs, best first.
        finish_reason: set on the last delta of the sequence.
        timing: set on the first delta that carries a token.
    """

    request_id: str
    index: int
    token_ids: list[int]
    logprobs: list[float] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None
    finish_reason: FinishReason | None = None
    timing: SequenceTiming | None = None


class PromptLogprobs(Message, frozen=True):
    """Logprobs of prompt tokens `start…`, a chunk at a time; the first token's is None."""

    request_id: str
    start: int
    token_ids: list[int]
    logprobs: list[float | None]
    top_logprobs: list[list[tuple[int, float]]] = []


class Failed(Message, frozen=True):
    """A request ended by an error after it was accepted; all its sequences are gone."""

    request_id: str
    error: ErrorInfo


class StepOutput(Message, frozen=True):
    """What one engine step produced for one connection (or, inside a worker, for all)."""

    deltas: list[SequenceDelta] = []
    failures: list[Failed] = []
    prompt_logprobs: list[PromptLogprobs] = []


class Tokenized(Message, frozen=True):
    """Answer to `Tokenize`, text by text."""

    request_id: str
    token_ids: list[list[int]]


class Done(Message, frozen=True):
    """A command (`LoadAdapter`, `UnloadAdapter`) is carried out."""

    request_id: str


class CommandFailed(Message, frozen=True):
    """A command (`Tokenize`, `LoadAdapter`, `UnloadAdapter`, `GetStats`) failed."""

    request_id: str
    error: ErrorInfo


class Histogram(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Observations since start: how many lie in each bucket (not cumulated), and their sum.

    `counts` has one entry more than the metric has upper bounds: what lies above the last.
    """

    counts: tuple[int, ...]
    sum: float


class RunnerStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A runner's gauges and counters. Counters count from start and never fall.

    Attributes:
        running, waiting: sequences now running; requests now waiting.
        used_tokens: cache tokens owned by running sequences.
        cached_tokens: cache tokens kept for reuse and owned by nobody.
        free_tokens: the rest; the three sum to the cache's capacity.
        batch_tokens, batch_sequences: size of the last step.
        num_steps … num_skipped_tokens: counters since start; skipped are draft tokens accepted.
        batches: counters of steps by what happened: "prefill", "decode" (a step with any prefill
            chunk is a prefill), "prefill_failure", "decode_failure", and sequences that joined
            running ones, "concat_chunking" (mixed into a decode step), "concat_backpressure".
        histograms: by `backplane_core.telemetry`'s names and bounds.
    """

    running: int = 0
    waiting: int = 0
    used_tokens: int = 0
    cached_tokens: int = 0
    free_tokens: int = 0
    batch_tokens: int = 0
    batch_sequences: int = 0
    num_steps: int = 0
    num_prompt_tokens: int = 0
    num_prefilled_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_finished: int = 0
    num_cancelled: int = 0
    num_failed: int = 0
    num_preemptions: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    num_skipped_tokens: int = 0
    batches: dict[str, int] = {}
    histograms: dict[str, Histogram] = {}


class Stats(Message, frozen=True):
    """Answer to `GetStats`."""

    request_id: str
    stats: RunnerStats


class Drained(Message, frozen=True):
    """Nothing is in flight any more."""


FromWorker = (
    Ready
    | Accepted
    | Rejected
    | StepOutput
    | PromptLogprobs
    | Failed
    | Tokenized
    | Done
    | CommandFailed
    | Stats
    | Drained
)
