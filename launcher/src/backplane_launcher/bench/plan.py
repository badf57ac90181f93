"""From flags to what they mean: dialect, workload, levels. Everything wrong is found here."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from backplane_launcher.bench.client import Address, Client
from backplane_launcher.bench.dataset import read_dataset
from backplane_launcher.bench.dialects import Dialect, make_dialect
from backplane_launcher.bench.figures import parse_limits
from backplane_launcher.bench.lengths import Lengths
from backplane_launcher.bench.load import Level
from backplane_launcher.bench.prompts import PromptMaker, token_range
from backplane_launcher.bench.workload import MadeWorkload, ReadWorkload, Workload
from backplane_launcher.settings.bench import BenchSettings
from backplane_launcher.usage import UsageError

_LEAST_REQUESTS: Final = 16
_PER_STREAM: Final = 4
_MAX_WARMUP: Final = 4
_SEEDS: Final = 2**32


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done at one server, whichever it is; `remark` is for people, if not empty."""

    settings: BenchSettings
    seed: int
    dialect: Dialect
    workload: Workload
    levels: tuple[Level, ...]
    limits: Mapping[str, float]
    remark: str = ""

    def client(self, url: str) -> Client:
        """A client for a server."""
        return Client(
            Address(url),
            self.dialect,
            streams=not self.settings.no_stream,
            model=self.settings.model,
            api_key=self.settings.api_key,
            timeout_s=self.settings.timeout,
        )

    def num_warmup(self, level: Level) -> int:
        """Requests before a level that do not count."""
        if self.settings.warmup is not None:
            return self.settings.warmup
        return min(_MAX_WARMUP, level.concurrency or 1)


def make_plan(settings: BenchSettings) -> Plan:
    """Understand the flags.

    Raises:
        UsageError: a flag cannot be meant.
    """
    seed = secrets.randbelow(_SEEDS) if settings.seed is None else settings.seed
    dialect = make_dialect(
        settings.api,
        streams=not settings.no_stream,
        ignore_eos=not settings.stop_at_end,
        extra=_extra(settings.extra),
    )
    workload, remark = _workload(settings, dialect, seed)
    return Plan(
        settings=settings,
        seed=seed,
        dialect=dialect,
        workload=workload,
        levels=_levels(settings),
        limits=parse_limits(settings.slo),
        remark=remark,
    )


def _extra(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UsageError(
            f"--extra {text} is no JSON object: {error}", remedy='write {"name": value}'
        ) from error


def _levels(settings: BenchSettings) -> tuple[Level, ...]:
    if settings.concurrency and settings.rate:
        raise UsageError("--concurrency and --rate contradict each other", remedy="give one")
    if settings.requests is not None and settings.duration is not None:
        raise UsageError("--requests and --duration contradict each other", remedy="give one")
    if 0 in settings.concurrency:
        raise UsageError("--concurrency 0 asks nothing", remedy="give 1 or more")
    if settings.rate:
        num = None if settings.duration else settings.requests or _LEAST_REQUESTS
        return tuple(
            Level(rate=rate, num=num, duration_s=settings.duration) for rate in settings.rate
        )
    return tuple(
        Level(
            concurrency=streams,
            num=None if settings.duration else settings.requests or _default_requests(streams),
            duration_s=settings.duration,
        )
        for streams in settings.concurrency or (1,)
    )


def _default_requests(streams: int) -> int:
    return max(_LEAST_REQUESTS, _PER_STREAM * streams)


def _workload(settings: BenchSettings, dialect: Dialect, seed: int) -> tuple[Workload, str]:
    """What is asked, and what is to be told of it."""
    outputs = Lengths.parse(settings.output_length, "--output-length")
    # Few servers tell the ids of an answer; its text can be sent back to all.
    takes_ids = dialect.takes_ids and settings.turns == 1
    if settings.prompts == "ids" and (settings.dataset or not takes_ids):
        what = f"--turns {settings.turns}" if dialect.takes_ids else f"--api {settings.api}"
        what = "--dataset" if settings.dataset else what
        raise UsageError(
            f"{what} goes with texts, not with token ids", remedy="leave --prompts out"
        )
    if settings.dataset:
        if settings.shared_prefix:
            raise UsageError("--shared-prefix is for prompts that are made, not for --dataset")
        dataset = read_dataset(settings.dataset)
        read = ReadWorkload(
            dataset.entries,
            outputs,
            seed=seed,
            max_turns=settings.turns,
            is_chat=dialect.is_chat,
        )
        return read, dataset.remark
    as_ids = settings.prompts == "ids" or (settings.prompts == "auto" and takes_ids)
    ids = token_range(settings.token_ids) if as_ids else None
    made = MadeWorkload(
        seed=seed,
        prompts=PromptMaker(seed=seed, ids=ids, num_shared=settings.shared_prefix),
        own=PromptMaker(seed=seed, ids=ids, num_shared=0),
        prompt_lengths=Lengths.parse(settings.prompt_length, "--prompt-length"),
        output_lengths=outputs,
        turns=settings.turns,
        is_chat=dialect.is_chat,
    )
    return made, ""
