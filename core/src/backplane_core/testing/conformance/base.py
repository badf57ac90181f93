"""What all conformance tests stand on: the subclass's facts, prompts, and how outputs compare."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.messages import RunnerInfo
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_process import WorkerProcess
from backplane_core.testing.worker_stream import Continuation, Stream
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary

GREEDY = SamplingParams(temperature=0.0)

_TEXT = (
    "a server answers many requests while the model computes one step after another and "
    "memory holds what was read before so that no prompt is computed twice today blue seven "
    "house river paper light over under between north question answer list number"
)


class ConformanceBase:
    """A backend under test. A subclass sets `backend` and `model`, and the rest where it differs.

    Attributes:
        backend: its name, as `--backend` takes it.
        model: a small model of its kind, with `path` where it has files.
        engine: limits to load it under. Small, so that the tests can reach them.
        settings: the backend's own settings.
        allowed_skips: names of tests it may skip; any other skip is a failure.
        near_tie_gap: 0 demands equal outputs. On real kernels the batch's shape changes
            rounding; outputs may then part where the lone run's logprobs of the two tokens
            lie at most this far apart (about 0.02 in float32, 0.2 in bfloat16), in at most
            1 % of sequences.
        shares_prompts: whether the sequences of a request compute its prompt once; if not, each
            does.
        num_compared: sequences compared between lone and batched runs.
        timeout_s: the most that loading, or one wait, may take.
        golden: prompts with their known greedy continuation, both as token ids.
        python: the interpreter of the backend's environment; empty is this one.
        environment: environment variables for the worker.
    """

    backend: ClassVar[str]
    model: ClassVar[ModelSource]
    engine: ClassVar[EngineSettings] = EngineSettings(
        max_concurrent_requests=48,
        max_input_tokens=480,
        max_total_tokens=512,
        max_batch_prefill_tokens=512,
        max_batch_total_tokens=8192,
        max_batch_size=32,
    )
    settings: ClassVar[Mapping[str, Any]] = {}
    allowed_skips: ClassVar[frozenset[str]] = frozenset()
    near_tie_gap: ClassVar[float] = 0.0
    shares_prompts: ClassVar[bool] = True
    num_compared: ClassVar[int] = 24
    timeout_s: ClassVar[float] = 120.0
    golden: ClassVar[tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = ()
    python: ClassVar[str] = ""
    environment: ClassVar[Mapping[str, str]] = {}

    # ── hooks a subclass may override ────────────────────────────────────────────────────

    def adapters(self, folder: Path) -> dict[str, Path]:
        """At least two adapters that change the output: name → path. May write to `folder`."""
        del folder
        return {}

    def missing_model(self) -> ModelSource:
        """A model that is not there."""
        return ModelSource(model_id=self.model.model_id, path="missing/model", files=("missing",))

    def start_worker(self, **changes: Any) -> WorkerProcess:
        """A worker of this backend; `changes` replace fields of its `RunnerSpec`."""
        fields: dict[str, Any] = {
            "model": self.model,
            "engine": self.engine,
            "settings": dict(self.settings),
        }
        interpreter = {"python": self.python} if self.python else {}
        return WorkerProcess(
            self.backend,
            RunnerSpec(**(fields | changes)),
            timeout_s=self.timeout_s,
            environment=self.environment,
            **interpreter,
        )

    # ── skips ────────────────────────────────────────────────────────────────────────────

    def require(self, has: bool, what: str) -> None:
        """Skip the test unless the backend declares what it is about."""
        if not has:
            pytest.skip(f"the backend does not declare {what}")

    def require_sampling(self, info: RunnerInfo, *names: str) -> None:
        """Skip unless all these `SamplingParams` are honoured."""
        for name in names:
            self.require(name in info.capabilities.sampling, f"sampling parameter {name}")

    def require_stopping(self, info: RunnerInfo, *names: str) -> None:
        """Skip unless all these `StoppingParams` are honoured."""
        for name in names:
            self.require(name in info.capabilities.stopping, f"stopping parameter {name}")

    # ── prompts ──────────────────────────────────────────────────────────────────────────

    def prompts(self, client: WorkerClient, count: int, *, seed: int = 0) -> list[list[int]]:
        """`count` different prompts of 5 to 30 words, the same on every run."""
        rng = random.Random(seed)  # noqa: S311 -- the same prompts every time
        texts = [
            f"{number + 1}. {' '.join(rng.choices(_TEXT.split(), k=rng.randint(5, 30)))}."
            for number in range(count)
        ]
        limit = client.info.limits.max_input_tokens // 2
        return [ids[:limit] for ids in encode(client, texts)]

    def prompt(self, client: WorkerClient, *, seed: int = 0) -> list[int]:
        """One prompt."""
        return self.prompts(client, 1, seed=seed)[0]

    def long_prompt(self, client: WorkerClient, num_tokens: int, *, seed: int = 0) -> list[int]:
        """A prompt of exactly `num_tokens`, made of several."""
        joined: list[int] = []
        while len(joined) < num_tokens:
            joined += self.prompt(client, seed=seed + 1000 * len(joined))
        return joined[:num_tokens]

    def room(self, client: WorkerClient, prompt: list[int]) -> int:
        """The most new tokens that go after a prompt."""
        return client.info.limits.max_total_tokens - len(prompt)

    def submit_longest(self, client: WorkerClient, prompt: list[int], **fields: Any) -> Stream:
        """The greedy request that runs the longest."""
        stopping = lasting(client, client.info.limits.max_total_tokens - len(prompt))
        return client.submit(prompt, sampling=GREEDY, stopping=stopping, **fields)


def lasting(client: WorkerClient, num_tokens: int, **fields: Any) -> StoppingParams:
    """Stop after exactly `num_tokens`, where the backend can ignore the model's end tokens."""
    ignore = "ignore_eos" in client.info.capabilities.stopping
    return StoppingParams(max_new_tokens=num_tokens, ignore_eos=ignore, **fields)


def encode(client: WorkerClient, texts: list[str], *, add_special: bool = True) -> list[list[int]]:
    """Token ids: the worker's where it encodes, else the longest matches in the vocabulary."""
    if isinstance(client.info.tokenizer, RemoteTokenizer):
        return client.tokenize(texts, add_special=add_special)
    vocabulary = client.info.vocabulary
    ids = _ids_by_text(vocabulary)
    longest = max(map(len, ids))
    first = vocabulary.bos_token_id if add_special and vocabulary.add_bos else None
    return [
        [*([] if first is None else [first]), *_longest_matches(text.encode(), ids, longest)]
        for text in texts
    ]


def decode(vocabulary: Vocabulary, token_ids: Iterable[int]) -> str:
    """The text of token ids, special tokens left out."""
    special = set(vocabulary.special_token_ids)
    pieces = [vocabulary.tokens[one] for one in token_ids if one not in special]
    text = b"".join(pieces).decode(errors="replace")
    return text.removeprefix(" ") if vocabulary.strip_leading_space else text


def ordinary_ids(info: RunnerInfo) -> list[int]:
    """Ids of tokens that are text and end nothing."""
    vocabulary = info.vocabulary
    kept_out = {*vocabulary.special_token_ids, *vocabulary.eos_token_ids}
    return [
        token_id
        for token_id, text in enumerate(vocabulary.tokens)
        if token_id not in kept_out and text.strip() and text.isascii() and text.isalnum()
    ]


def parting(one: Continuation, other: Continuation) -> int | None:
    """Where two outputs first differ; None where they are equal."""
    for place, (left, right) in enumerate(zip(one.token_ids, other.token_ids, strict=False)):
        if left != right:
            return place
    shorter = min(len(one.token_ids), len(other.token_ids))
    return None if len(one.token_ids) == len(other.token_ids) else shorter


def gap_at(lone: Continuation, place: int, token_id: int) -> float:
    """How far below the lone run's choice at `place` its logprob of `token_id` was."""
    if place >= len(lone.top_logprobs):
        return float("inf")
    known = dict(lone.top_logprobs[place])
    return lone.logprobs[place] - known.get(token_id, float("-inf"))


def _ids_by_text(vocabulary: Vocabulary) -> dict[bytes, int]:
    special = set(vocabulary.special_token_ids)
    pairs = ((text, one) for one, text in enumerate(vocabulary.tokens) if one not in special)
    return {text: token_id for text, token_id in pairs if text}


def _longest_matches(text: bytes, ids: Mapping[bytes, int], longest: int) -> list[int]:
    found: list[int] = []
    while text:
        size = next((n for n in range(min(longest, len(text)), 0, -1) if text[:n] in ids), 0)
        if not size:
            raise ValueError(f"the vocabulary has no token for {text[:1]!r}")
        found.append(ids[text[:size]])
        text = text[size:]
    return found
