"""Many streams at once say what each says alone, by the rule for real kernels.

Batch shape changes rounding, so texts are equal, or differ first where the lone run had two
tokens nearly tied; such ties are counted and at most 1 % of sequences may have one.
"""

import asyncio
import json

import httpx

NUM_STREAMS = 32
NUM_ROUNDS = 4
NEAR_TIE = 0.02  # natural log units; f16 weights and cache move logprobs by up to 0.01
# In the demo model's domain, where it is sure of itself: on noise, ties are frequent.
QUESTIONS = [
    "What is Backplane?",
    "What is {a} plus {b}?",
    "What does the flag --port do?",
    "Name {c} colours.",
    "What is continuous batching?",
    "What is {a} times {c}?",
    "How do I serve another model?",
    "Count from {a} to {b}.",
    "What is the route /health for?",
    "What is {b} minus {c}?",
    "What is a GGUF file?",
    "Say hello.",
]


def prompt_of(number: int) -> str:
    question = QUESTIONS[number % len(QUESTIONS)].format(
        a=number % 37 + 2, b=number % 23 + 9, c=number % 5 + 2
    )
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


async def tokens_of(client: httpx.AsyncClient, number: int) -> list[dict]:
    body = {
        "inputs": prompt_of(number),
        "parameters": {"max_new_tokens": 24, "details": True, "top_n_tokens": 2},
    }
    tokens = []
    async with client.stream("POST", "/generate_stream", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                assert "error" not in event, event
                tokens.append({**event["token"], "top": event["top_tokens"]})
    return tokens


def near_tie(lone: list[dict], together: list[dict]) -> bool:
    """Whether the runs differ; that they do so at a near tie only is asserted."""
    for ours, theirs in zip(lone, together, strict=False):
        if ours["id"] != theirs["id"]:
            best, second = sorted((token["logprob"] for token in ours["top"]), reverse=True)[:2]
            assert best - second < NEAR_TIE, (ours, theirs)
            return True
    assert len(lone) == len(together)
    return False


async def test_32_greedy_streams_equal_their_lone_runs(demo):
    limits = httpx.Limits(max_connections=NUM_STREAMS)
    async with httpx.AsyncClient(base_url=demo.url, timeout=120, limits=limits) as client:
        numbers = range(NUM_STREAMS * NUM_ROUNDS)
        lone = [await tokens_of(client, number) for number in numbers]
        ties = 0
        for start in range(0, len(numbers), NUM_STREAMS):
            batch = numbers[start : start + NUM_STREAMS]
            together = await asyncio.gather(*(tokens_of(client, number) for number in batch))
            ties += sum(
                near_tie(lone[number], tokens)
                for number, tokens in zip(batch, together, strict=True)
            )
    assert len({tuple(token["id"] for token in tokens) for tokens in lone}) > 10
    assert ties <= len(numbers) * 0.01
