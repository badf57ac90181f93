"""The demo model answers alike through llama.cpp and through PyTorch, over HTTP and in batches."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from deployment import Deployment, deployed

FACTS = Path(__file__).resolve().parents[1] / "demo-model" / "facts" / "serving.txt"
# Greedy outputs may part where two tokens are nearly as likely, in at most 1 % of the answers.
NEAR_TIE, MAX_TIES = 0.02, 0.01
NUM_TOKENS = 32


@pytest.fixture(scope="module")
def torch_demo() -> Iterator[Deployment]:
    with deployed("--backend", "torch", "--dtype", "float32") as deployment:
        yield deployment
        assert deployment.stop() == 0, deployment.output


@pytest.fixture(scope="module")
def llamacpp_demo() -> Iterator[Deployment]:
    flags = ("--type-k", "f32", "--type-v", "f32")
    with deployed("--backend", "llamacpp", *flags) as deployment:
        yield deployment
        assert deployment.stop() == 0, deployment.output


def prompts() -> list[str]:
    """Questions that the model was taught to answer, and beginnings of what it answers."""
    lines = FACTS.read_text().splitlines()
    asked = [line[len("what: ") :].split(" | ")[0] for line in lines if line.startswith("what: ")]
    told = [line[2:] for line in lines if line.startswith("= ")]
    return [f"What is {term}?" for term in asked] + [" ".join(text.split()[:6]) for text in told]


def answers(deployment: Deployment, texts: list[str]) -> list[list[dict[str, Any]]]:
    """Each answer's tokens, with the alternatives at each place; eight at a time."""

    def ask(text: str) -> list[dict[str, Any]]:
        parameters = {"max_new_tokens": NUM_TOKENS, "details": True, "top_n_tokens": 4}
        body = {"inputs": text, "parameters": parameters}
        reply = httpx.post(f"{deployment.url}/generate", json=body, timeout=120)
        reply.raise_for_status()
        details = reply.json()["details"]
        return [
            {"id": token["id"], "top": {one["id"]: one["logprob"] for one in top}}
            for token, top in zip(details["tokens"], details["top_tokens"], strict=True)
        ]

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, texts))


def test_both_backends_answer_alike(torch_demo: Deployment, llamacpp_demo: Deployment) -> None:
    texts = prompts()
    assert len(texts) >= 100
    through_torch, through_llamacpp = answers(torch_demo, texts), answers(llamacpp_demo, texts)
    num_ties = 0
    for text, one, other in zip(texts, through_torch, through_llamacpp, strict=True):
        pairs = list(zip(one, other, strict=False))
        parting = next((pair for pair in pairs if pair[0]["id"] != pair[1]["id"]), None)
        if parting is None:
            assert len(one) == len(other), text
            continue
        mine, theirs = parting
        gap = mine["top"][mine["id"]] - mine["top"].get(theirs["id"], -1e9)
        assert gap <= NEAR_TIE, f"{text!r}: {mine} or {theirs}"
        num_ties += 1
    assert num_ties <= MAX_TIES * len(texts)
    assert len({tuple(token["id"] for token in one) for one in through_torch}) > len(texts) / 2


def test_the_path_is_told(torch_demo: Deployment) -> None:
    info = httpx.get(f"{torch_demo.url}/info", timeout=10).json()
    assert (info["backend"], info["architecture"]) == ("torch", "LlamaForCausalLM")
    assert (info["dtype"], info["detail"]["cache"]) == ("float32", "paged")
    assert "LlamaForCausalLM keeps keys and values so: paged" in torch_demo.output
