"""From replies to figures: what a level of load came to. Times are in milliseconds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from backplane_launcher.bench.load import Level
from backplane_launcher.bench.processes import ProcessState
from backplane_launcher.bench.reply import Reply
from backplane_launcher.bench.statistics import Distribution
from backplane_launcher.usage import UsageError

_MS: Final = 1000.0
LIMITED: Final = ("ttft", "tpot", "itl", "e2e")
# From here on, what is measured is the one who measures.
BUSY_GENERATOR: Final = 0.8


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that failed in one way; `message` is what the first of them was told."""

    kind: str
    num: int
    message: str


class ProcessUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the server used during a level, and holds after it (bytes)."""

    pid: int
    name: str
    cpu_s: float
    cpu_us_per_token: float | None
    rss: int
    pss: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One level. Requests that failed count under `failures` alone.

    Attributes:
        concurrency: streams of a closed loop; None for an open one. `rate` the other way round.
        wall_s: from the first request to the end of the last answer.
        num_output_tokens: by the server's own count, or where it gave none by events: see
            `num_counted_by_events`, the requests of which that is so.
        tokens_per_event: above 1 where a server sends several tokens at a time.
        num_prompt_tokens: None where no answer tells them, as those of TGI's that are no streams.
        num_cached_tokens: those not computed; None likewise.
        goodput: requests a second that kept to all limits; None without limits.
        generator_cpu: processor time of this program, as a share of one core.
        max_lateness_ms: how late the latest request of an open loop was sent. It is not in the
            figures' favour: their times begin when the request was due.
    """

    concurrency: int | None
    rate: float | None
    num_requests: int
    num_ok: int
    failures: list[Failures]
    wall_s: float
    num_prompt_tokens: int | None
    num_cached_tokens: int | None
    num_output_tokens: int
    num_counted_by_events: int
    tokens_per_event: float | None
    output_tokens_per_s: float
    total_tokens_per_s: float | None
    requests_per_s: float
    goodput: float | None
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    itl_ms: Distribution | None
    e2e_ms: Distribution | None
    processes: list[ProcessUse]
    cpu_us_per_token: float | None
    generator_cpu: float
    max_lateness_ms: float


def parse_limits(text: str | None) -> dict[str, float]:
    """Read `--slo`: milliseconds by figure.

    Raises:
        UsageError: it is no such list.
    """
    limits: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, value = part.strip().partition(":")
        number = value.removesuffix("ms")
        if name not in LIMITED or not number.replace(".", "", 1).isdecimal():
            raise UsageError(
                f"--slo {part} is no limit",
                remedy=f"write ttft:500,tpot:50; the names are {', '.join(LIMITED)}",
            )
        limits[name] = float(number)
    return limits


def gaps(replies: Sequence[Reply]) -> Iterator[float]:
    """Seconds between events that followed one another in an answer."""
    for reply in replies:
        earlier = iter(reply.arrivals)
        later = iter(reply.arrivals)
        next(later, None)
        for before, after in zip(earlier, later, strict=False):
            yield after - before


def figures_of(
    level: Level,
    replies: Sequence[Reply],
    *,
    limits: Mapping[str, float],
    before: Mapping[int, ProcessState],
    after: Mapping[int, ProcessState],
    generator_cpu: float,
    max_lateness_s: float,
) -> Figures:
    """What a level came to."""
    good = [reply for reply in replies if not reply.failure]
    wall_s = _wall(replies)
    prompts = [reply.num_prompt for reply in good if reply.num_prompt is not None]
    num_prompt = sum(prompts) if prompts else None
    cached = [reply.num_cached for reply in good if reply.num_cached is not None]
    num_output = sum(reply.num_tokens for reply in good)
    num_events = sum(len(reply.arrivals) for reply in good)
    uses = _uses(before, after, num_output)
    return Figures(
        concurrency=level.concurrency,
        rate=level.rate,
        num_requests=len(replies),
        num_ok=len(good),
        failures=_failures(replies),
        wall_s=wall_s,
        num_prompt_tokens=num_prompt,
        num_cached_tokens=sum(cached) if cached else None,
        num_output_tokens=num_output,
        num_counted_by_events=sum(reply.num_output is None for reply in good),
        tokens_per_event=num_output / num_events if num_events else None,
        output_tokens_per_s=num_output / wall_s,
        total_tokens_per_s=None if num_prompt is None else (num_prompt + num_output) / wall_s,
        requests_per_s=len(good) / wall_s,
        goodput=sum(_keeps(reply, limits) for reply in good) / wall_s if limits else None,
        ttft_ms=Distribution.of((r.ttft for r in good if r.ttft is not None), _MS),
        tpot_ms=Distribution.of((r.tpot for r in good if r.tpot is not None), _MS),
        itl_ms=Distribution.of(gaps(good), _MS),
        e2e_ms=Distribution.of((r.e2e for r in good), _MS),
        processes=uses,
        cpu_us_per_token=(
            1e6 * sum(use.cpu_s for use in uses) / num_output if uses and num_output else None
        ),
        generator_cpu=generator_cpu,
        max_lateness_ms=max_lateness_s * _MS,
    )


def _wall(replies: Sequence[Reply]) -> float:
    if not replies:
        return 1e-9
    ended = max(reply.ended for reply in replies)
    return max(1e-9, ended - min(reply.started for reply in replies))


def _keeps(reply: Reply, limits: Mapping[str, float]) -> bool:
    found = {"ttft": reply.ttft, "tpot": reply.tpot, "e2e": reply.e2e}
    if "itl" in limits:
        found["itl"] = max(gaps([reply]), default=None)
    # An answer of one token keeps to any limit between tokens.
    return all((found[name] or 0.0) * _MS <= limit for name, limit in limits.items())


def _failures(replies: Sequence[Reply]) -> list[Failures]:
    messages: dict[str, str] = {}
    nums: dict[str, int] = {}
    for reply in replies:
        if reply.failure:
            messages.setdefault(reply.failure, reply.message)
            nums[reply.failure] = nums.get(reply.failure, 0) + 1
    return [Failures(kind=kind, num=nums[kind], message=messages[kind]) for kind in sorted(nums)]


def _uses(
    before: Mapping[int, ProcessState], after: Mapping[int, ProcessState], num_tokens: int
) -> list[ProcessUse]:
    uses: list[ProcessUse] = []
    for pid, state in sorted(after.items()):
        cpu_s = state.cpu_s - (before[pid].cpu_s if pid in before else 0.0)
        uses.append(
            ProcessUse(
                pid=pid,
                name=state.name,
                cpu_s=cpu_s,
                cpu_us_per_token=1e6 * cpu_s / num_tokens if num_tokens else None,
                rss=state.rss,
                pss=state.pss,
            )
        )
    return uses
