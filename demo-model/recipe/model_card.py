"""The model card, README.md beside the weights, written from what was measured."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from pathlib import Path

from safetensors.torch import load_file

from recipe.corpus.mixture import exchanges
from recipe.evaluate import MAX_PER_TOPIC, Score
from recipe.train import TrainingSettings

UNSEEN = "unseen wordings"

TEMPLATE = Path(__file__).resolve().parents[1] / "model_card_template.md"


def _row(topic: str, score: Score) -> str:
    return (
        f"| {topic} | {score.num_questions} | {score.exact_rate:.1%} "
        f"| {score.answer_perplexity:.3f} |"
    )


def write_model_card(folder: Path, settings: TrainingSettings, scores: dict[str, Score]) -> None:
    """Writes README.md into `folder`, whose weights and configuration it describes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    total = reduce(add, (score for topic, score in scores.items() if topic != UNSEEN))
    training, held_out = exchanges()
    card = TEMPLATE.read_text(encoding="utf-8").format(
        num_layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
        vocabulary=config["vocab_size"],
        context=config["max_position_embeddings"],
        num_steps=settings.num_steps,
        tokens_per_batch=settings.tokens_per_batch,
        seed=settings.seed,
        num_threads=settings.num_threads,
        num_training=len(training),
        num_held_out=len(held_out),
        num_evaluated=total.num_questions,
        num_exact=total.num_exact,
        max_per_topic=MAX_PER_TOPIC,
        exact_rate=total.exact_rate,
        answer_perplexity=total.answer_perplexity,
        perplexity=total.perplexity,
        rows="\n".join(_row(topic, score) for topic, score in scores.items()),
        num_unseen=scores[UNSEEN].num_questions,
        unseen_rate=scores[UNSEEN].exact_rate,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
