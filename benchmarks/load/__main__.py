"""TGI's k6 load test without k6: `HOST=127.0.0.1:3000 python benchmarks/load common`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from executor import Target, run
from measures import summary
from scenarios import MAX_TOKENS, SCENARIOS

THRESHOLD_EXIT = 99  # k6's own exit status where a threshold was crossed


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; HOST, MODEL_ID and API_KEY come from the environment, as k6's do."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/load",
        description="HOST (host:port or URL, 127.0.0.1:3000) and MODEL_ID (tgi) say whom to ask; "
        "API_KEY, where the server wants one. Exit status 99: a request failed.",
    )
    described = "; ".join(f"{name}: {one.summary}" for name, one in SCENARIOS.items())
    parser.add_argument("scenario", nargs="?", choices=SCENARIOS, default="common", help=described)
    parser.add_argument("--vus", type=int, help="users at a time")
    parser.add_argument("--iterations", type=int, help="requests in all")
    parser.add_argument("--duration", type=float, help="seconds after which none is started")
    parser.add_argument("--words", type=int, help="words of a question, at most")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, help="of an answer")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Run one scenario and print what came of it."""
    asked = arguments(argv)
    changes = {
        "vus": asked.vus,
        "iterations": asked.iterations,
        "duration_s": asked.duration,
        "num_words": asked.words,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if any(value <= 0 for value in changes.values()):
        print("benchmarks/load: every number must be above 0", file=sys.stderr)
        return 2
    scenario = dataclasses.replace(SCENARIOS[asked.scenario], **changes)
    host = os.environ.get("HOST", "127.0.0.1:3000")
    url = host if "://" in host else f"http://{host}"
    target = Target(
        url.rstrip("/"), os.environ.get("MODEL_ID", "tgi"), os.environ.get("API_KEY") or None
    )
    print(
        f"{scenario.name}: {scenario.vus} users share {scenario.iterations} requests of up to "
        f"{asked.max_tokens} tokens, for at most {scenario.duration_s:g} s, at {target.url}"
    )
    started = time.monotonic()
    measures = asyncio.run(run(scenario, target, asked.max_tokens))
    seconds = time.monotonic() - started
    print("\n".join(summary(measures, seconds)))
    if asked.json:
        numbers = {
            "scenario": scenario.name,
            "seconds": seconds,
            "http_req_failed": measures.failed_share,
            "trends": measures.trends(),
            "counters": measures.counters(),
            "failures": measures.failures,
        }
        asked.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return THRESHOLD_EXIT if measures.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
