"""k6's shared-iterations executor: users take the next request as soon as theirs is answered."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from measures import Measures
from scenarios import MAX_TOKENS, TEMPERATURE, Scenario

# As long as k6 lets iterations in flight run on when the time is up.
GRACEFUL_STOP_S = 30.0
_MAX_SENTENCE = 120


@dataclass(frozen=True)
class Target:
    """Whom to ask, and as what."""

    url: str
    model: str
    api_key: str | None = None

    def headers(self) -> dict[str, str]:
        """Those of every request."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}


async def run(scenario: Scenario, target: Target, max_tokens: int = MAX_TOKENS) -> Measures:
    """Run to the last iteration, or to the end of the time and its grace."""
    measures = Measures()
    numbers = itertools.count()
    deadline = time.monotonic() + scenario.duration_s
    certificates = httpx.create_ssl_context()  # slow to make, so once for all
    timeout = scenario.duration_s + GRACEFUL_STOP_S

    async def user() -> None:
        # A connection each, as k6's users have: a shared pool lets some wait for others.
        async with httpx.AsyncClient(
            headers=target.headers(), timeout=timeout, verify=certificates
        ) as client:
            while time.monotonic() < deadline and (number := next(numbers)) < scenario.iterations:
                question = scenario.question(number, scenario.num_words)
                started = time.monotonic()
                await _ask(client, target, question, max_tokens, measures)
                measures.iterations += 1
                measures.iteration_duration.add((time.monotonic() - started) * 1000)

    users = [asyncio.create_task(user()) for _ in range(min(scenario.vus, scenario.iterations))]
    _, late = await asyncio.wait(users, timeout=deadline + GRACEFUL_STOP_S - time.monotonic())
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    measures.interrupted = len(late)
    for task in users:
        if not task.cancelled():
            task.result()
    measures.dropped_iterations = scenario.iterations - measures.iterations - measures.interrupted
    return measures


async def _ask(
    client: httpx.AsyncClient, target: Target, question: str, max_tokens: int, measures: Measures
) -> None:
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": TEMPERATURE,
        "max_tokens": max_tokens,
    }
    measures.http_reqs += 1
    started = time.monotonic()
    try:
        response = await client.post(f"{target.url}/v1/chat/completions", json=body)
    except httpx.HTTPError as error:
        measures.fail(f"no answer: {type(error).__name__} {error}".strip()[:_MAX_SENTENCE])
        return
    milliseconds = (time.monotonic() - started) * 1000
    measures.http_req_duration.add(milliseconds)
    if response.status_code != HTTPStatus.OK:
        measures.fail(f"{response.status_code} {response.text}"[:_MAX_SENTENCE])
        return
    usage = response.json()["usage"]
    measures.input_tokens += usage["prompt_tokens"]
    measures.new_tokens += usage["completion_tokens"]
    measures.time_per_token.add(milliseconds / max(1, usage["completion_tokens"]))
