"""Held-out perplexity and exact-answer rate of the shipped weights, per topic and in all.

Greedy decoding writes exactly the right answer if and only if, given the question and the answer so
far, the right token is the likeliest at every place of the answer, its end mark included. So one
forward pass over question and right answer decides, with no generation.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM

from recipe.batches import encode
from recipe.chat_format import turn
from recipe.corpus.exchange import Exchange
from recipe.corpus.mixture import exchanges
from recipe.corpus.unseen import unseen_exchanges

MAX_PER_TOPIC = 200


@dataclass(frozen=True, slots=True)
class Score:
    """What one topic's held-out questions gave."""

    num_questions: int
    num_exact: int
    num_answer_tokens: int
    answer_nats: float
    num_tokens: int
    nats: float

    def __add__(self, other: Score) -> Score:
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return Score(*(mine + theirs for mine, theirs in pairs))

    @property
    def exact_rate(self) -> float:
        """Share of questions whose greedy answer is exactly the right one."""
        return self.num_exact / self.num_questions

    @property
    def answer_perplexity(self) -> float:
        """Perplexity per token of the right answers, given the questions."""
        return math.exp(self.answer_nats / self.num_answer_tokens)

    @property
    def perplexity(self) -> float:
        """Perplexity per token of question and answer together."""
        return math.exp(self.nats / self.num_tokens)


@torch.inference_mode()
def score_exchange(model: LlamaForCausalLM, tokenizer: Tokenizer, exchange: Exchange) -> Score:
    """One question and its right answer in one forward pass."""
    document = turn("system", exchange.system) if exchange.system else []
    document += [*turn("user", exchange.question), *turn("assistant", exchange.answer)]
    token_ids, weights = encode(tokenizer, document)
    ids = torch.tensor([token_ids])
    logits = model(ids).logits[0, :-1].float()
    targets = ids[0, 1:]
    is_answer = torch.tensor(weights[1:]) == 1.0
    nats = functional.cross_entropy(logits, targets, reduction="none")
    right = logits.argmax(-1) == targets
    return Score(
        num_questions=1,
        num_exact=int(right[is_answer].all()),
        num_answer_tokens=int(is_answer.sum()),
        answer_nats=float(nats[is_answer].sum()),
        num_tokens=len(targets),
        nats=float(nats.sum()),
    )


def _sample(held_out: list[Exchange]) -> dict[str, list[Exchange]]:
    by_topic: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in held_out:
        by_topic[exchange.topic].append(exchange)
    return {
        topic: members[:: max(1, math.ceil(len(members) / MAX_PER_TOPIC))]
        for topic, members in by_topic.items()
    }


def _wrong(model: LlamaForCausalLM, tokenizer: Tokenizer, exchange: Exchange) -> None:
    document = turn("system", exchange.system) if exchange.system else []
    document += [*turn("user", exchange.question), *turn("assistant", "")[:1]]
    ids = torch.tensor([encode(tokenizer, document)[0]])
    written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80)
    answer = tokenizer.decode(written[0, ids.shape[1] :].tolist())
    print(f"  wrong: {exchange.question}\n      -> {answer}")


def evaluate(folder: Path, *, show_wrong: bool = False) -> dict[str, Score]:
    """Scores per topic: held-out wordings, and under "unseen" wordings that no frame writes."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    topics = {**_sample(exchanges()[1]), "unseen wordings": unseen_exchanges()}
    scores: dict[str, Score] = {}
    for topic, members in topics.items():
        total = Score(0, 0, 0, 0.0, 0, 0.0)
        for exchange in members:
            score = score_exchange(model, tokenizer, exchange)
            if show_wrong and not score.num_exact:
                _wrong(model, tokenizer, exchange)
            total += score
        scores[topic] = total
        print(
            f"{topic:16} {total.num_exact}/{total.num_questions} exact, "
            f"answer perplexity {total.answer_perplexity:.3f}, perplexity {total.perplexity:.2f}",
            flush=True,
        )
    return scores


def save_scores(scores: dict[str, Score], path: Path) -> None:
    """Writes the scores as JSON, for the model card."""
    content = {
        topic: {
            "num_questions": score.num_questions,
            "num_exact": score.num_exact,
            "exact_rate": round(score.exact_rate, 4),
            "answer_perplexity": round(score.answer_perplexity, 4),
            "perplexity": round(score.perplexity, 3),
        }
        for topic, score in scores.items()
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
