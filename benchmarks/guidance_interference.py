"""What grammars cost those who send none: inter-token times of plain streams, with and without.

`python benchmarks/guidance_interference.py` starts a deployment of the demo model, and prints, for
each kind of company, the plain streams' p50 and p99 and their ratios: to streams alone, and to
those beside requests of as many tokens and no grammar.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx

CHAT = "/v1/chat/completions"
STARTS_WITHIN_S = 120.0
PLAIN_TOKENS = 200
COMPANY_TOKENS = 40
LONG = 400  # characters of a string, so that no guided answer ends before its tokens are used up

# Each is taken, and costs what the limits let it; those that are refused cost a check.
PATHOLOGICAL = (
    {"guided_regex": "(a+)+b"},
    {"guided_regex": "((a{1,1000}){1,1000})"},
    {"guided_regex": "(a|b)*a(a|b){60}"},
    {"guided_regex": r"(\p{L}{1,300}\p{Han}*){1,300}"},
    {"guided_regex": "a" * 10**6},
    {"guided_json": {"$ref": "#"}},
    {"guided_json": {"properties": {f"p{n}": {"type": "string"} for n in range(2_000)}}},
    {"guided_json": {"type": "integer", "multipleOf": 999_983}},
    {"guided_grammar": 'start: x*\nx: "a" | "a" "a" | x x | y\ny: x | x x x\n'},
)


def body(**fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {
        "messages": [{"role": "user", "content": "Tell me something."}],
        "max_tokens": COMPANY_TOKENS,
        **fields,
    }


def nobody() -> Iterator[dict[str, Any]]:
    """No company."""
    return iter(())


def plain_company() -> Iterator[dict[str, Any]]:
    """Requests that ask for no grammar: what any company costs."""
    while True:
        yield body(ignore_eos=True)


def one_schema() -> Iterator[dict[str, Any]]:
    """One schema again and again, as a deployment with one use has it."""
    schema = {
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "tags": {"type": "array", "items": {"type": "string"}},
            "about": {"type": "string", "minLength": LONG},
        },
        "required": ["name", "tags", "about"],
    }
    while True:
        yield body(guided_json=schema)


def distinct_schemas() -> Iterator[dict[str, Any]]:
    """A thousand schemas, no two alike, and the same again."""
    for number in itertools.cycle(range(1000)):
        names = [f"field_{number}_{part}" for part in range(6)]
        properties = {name: {"type": "string", "minLength": LONG} for name in names}
        yield body(guided_json={"properties": properties, "required": names[:3]})


def pathological() -> Iterator[dict[str, Any]]:
    """Grammars meant to hurt; each time another text, so that no verdict is remembered."""
    for number in itertools.count():
        fields: dict[str, Any] = dict(PATHOLOGICAL[number % len(PATHOLOGICAL)])
        if pattern := fields.get("guided_regex"):
            fields["guided_regex"] = f"{pattern}|{number}"
        elif schema := fields.get("guided_json"):
            fields["guided_json"] = {**schema, "title": str(number)}
        else:
            fields["guided_grammar"] += f"// {number}\n"
        yield body(**fields)


COMPANIES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "nobody": nobody,
    "plain": plain_company,
    "one schema": one_schema,
    "1000 distinct schemas": distinct_schemas,
    "pathological": pathological,
}


@dataclasses.dataclass
class Measured:
    """Seconds between a plain stream's chunks, and what became of the company's requests."""

    gaps_s: list[float] = dataclasses.field(default_factory=list)
    statuses: list[int] = dataclasses.field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Of the gaps, in milliseconds."""
        return statistics.quantiles(self.gaps_s, n=100)[percent - 1] * 1e3


async def plain_stream(client: httpx.AsyncClient, until_s: float, measured: Measured) -> None:
    """Stream one answer after the other, and note the time between their chunks."""
    fields = {"stream": True, "max_tokens": PLAIN_TOKENS, "ignore_eos": True}
    while time.monotonic() < until_s:
        async with client.stream("POST", CHAT, json={**body(), **fields}) as answer:
            answer.raise_for_status()
            last_s = None
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                now_s = time.monotonic()
                if last_s is not None and now_s < until_s:
                    measured.gaps_s.append(now_s - last_s)
                last_s = now_s


async def accompany(
    client: httpx.AsyncClient,
    requests: Iterator[dict[str, Any]],
    until_s: float,
    measured: Measured,
    per_second: float,
) -> None:
    """Send requests at a steady pace, as far as the server keeps up."""
    for request in requests:
        begun = time.monotonic()
        if begun >= until_s:
            return
        answer = await client.post(CHAT, json=request)
        measured.statuses.append(answer.status_code)
        pause_s = begun + 1 / per_second * random.uniform(0.5, 1.5) - time.monotonic()  # noqa: S311 -- no secret
        await asyncio.sleep(max(0.0, pause_s))


async def measure(url: str, asked: argparse.Namespace) -> dict[str, Measured]:
    """Each company in turn, again and again, so that a machine's moods fall on all alike."""
    results = {name: Measured() for name in COMPANIES}
    makers = {name: make() for name, make in COMPANIES.items()}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        for turn in range(asked.rounds + 1):
            for name, measured in results.items():
                into = measured if turn else Measured()  # the first round warms up
                until_s = time.monotonic() + asked.seconds
                await asyncio.gather(
                    *(plain_stream(client, until_s, into) for _ in range(asked.streams)),
                    *(
                        accompany(client, makers[name], until_s, into, asked.rate / asked.company)
                        for _ in range(asked.company)
                    ),
                )
    return results


@contextlib.contextmanager
def deployment(arguments: list[str]) -> Generator[str, None, None]:
    """Launcher, server and worker; the address."""
    command = [str(Path(sys.executable).with_name("backplane")), "--hostname", "127.0.0.1"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, "--port", "0", *arguments], stdout=log, stderr=log)
        try:
            yield address_of(process, log)
        finally:
            process.terminate()
            process.wait()


def address_of(process: subprocess.Popen[bytes], log: Any) -> str:
    """Wait for the launcher's word."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        os.lseek(log.fileno(), 0, os.SEEK_SET)
        if found := re.search(r"Connected: (http\S+)", os.read(log.fileno(), 1 << 20).decode()):
            return found[1]
        time.sleep(0.1)
    raise SystemExit(
        f"the deployment does not start:\n{os.pread(log.fileno(), 1 << 20, 0).decode()}"
    )


def report(results: dict[str, Measured]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| company | gaps | p50 ms | p99 ms | p50, p99 to nobody | to plain | answers |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for name, measured in results.items():
        ratios = [
            ", ".join(
                f"{measured.percentile(percent) / results[base].percentile(percent):.2f}"
                for percent in (50, 99)
            )
            for base in ("nobody", "plain")
        ]
        statuses = {one: measured.statuses.count(one) for one in sorted(set(measured.statuses))}
        yield (
            f"| {name} | {len(measured.gaps_s)} | {measured.percentile(50):.2f} "
            f"| {measured.percentile(99):.2f} | {' | '.join(ratios)} "
            f"| {', '.join(f'{count} of {status}' for status, count in statuses.items())} |"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of every company")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one turn")
    parser.add_argument("--streams", type=int, default=4, help="plain streams")
    parser.add_argument("--company", type=int, default=4, help="other requests at a time, at most")
    parser.add_argument("--rate", type=float, default=8.0, help="other requests a second")
    parser.add_argument("arguments", nargs="*", help="the deployment's, after --")
    asked = parser.parse_args()
    with deployment(asked.arguments) as url:
        results = asyncio.run(measure(url, asked))
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
