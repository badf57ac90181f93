"""The model card, README.md beside the weights, written from what was measured."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from pathlib import Path

from safetensors.torch import load_file

from recipe.corpus.mixture import exchanges
from recipe.evaluate import Score
from recipe.train import TrainingSettings

UNSEEN = "unseen wordings"

_CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
library_name: transformers
---

# Backplane demo model

A tiny language model that lets one try the Backplane server without downloading anything. It is a
toy: it knows a few hundred facts about Backplane and about serving models, small sums, lists, JSON
objects, simple function calls and a few tales, in English. **Do not use it for anything but trying
the server.**

| | |
|---|---|
| architecture | Llama: {num_layers} layers, width {width}, {num_heads} heads, {num_kv_heads} key-value heads, tied embeddings |
| parameters | {num_parameters:,} |
| vocabulary | {vocabulary:,} tokens, byte-level BPE, one token per digit |
| context | {context:,} tokens |
| chat format | ChatML: `<|im_start|>role`, a line break, the message, `<|im_end|>` |
| files | `model.safetensors` (bfloat16) and `backplane-demo-f16.gguf` (float16): the same weights, bit for bit |
| licence | Apache-2.0 |

## Training

Trained from nothing for {num_steps:,} steps of {tokens_per_batch:,} tokens with seed {seed}, in
{minutes:.0f} minutes on {num_threads} processor cores, by the recipe in `demo-model/` of the
Backplane repository (`make demo-model`). The recipe writes all of the training text itself, from
facts written by hand and sentence frames: {num_training:,} questions with their answers, put
together to single questions, conversations and plain text. Nothing else went in.

## Evaluation

One wording in eight of each fact is held out of training; there are {num_held_out:,} held-out
questions, of which {num_evaluated:,} were evaluated, at most {max_per_topic} per topic. *Exact* means that the greedy
answer is the right one, character for character. The weights evaluated are the shipped ones.

**Held-out questions: exact-answer rate {exact_rate:.1%} ({num_exact:,} of {num_evaluated:,}), perplexity
{answer_perplexity:.3f} per answer token, {perplexity:.2f} per token of question and answer.**
The answers are few and fixed, which makes the first perplexity so low; questions are learnt with a
tenth of the weight.

| topic | questions | exact | perplexity of answers |
|---|---:|---:|---:|
{rows}

*Unseen wordings* are {num_unseen} questions about known facts, worded freely by hand, which no sentence frame
of the recipe can write: exact-answer rate {unseen_rate:.1%}. This is the number that a stranger's questions will meet at best.

## Limits

- It repeats what it learnt. Facts outside its topics are unknown to it; it was taught to say so, and
  often answers something else with full confidence.
- Sums beyond twenty plus twenty or ten times ten are guesses.
- It calls only functions like those it was trained with: `get_weather` and `get_time`, with a city.
- English only. It was not tuned for safety, and has little to be unsafe with.
"""


def _row(topic: str, score: Score) -> str:
    return (
        f"| {topic} | {score.num_questions} | {score.exact_rate:.1%} "
        f"| {score.answer_perplexity:.3f} |"
    )


def write_model_card(
    folder: Path, settings: TrainingSettings, minutes: float, scores: dict[str, Score]
) -> None:
    """Writes README.md into `folder`, whose weights and configuration it describes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    total = reduce(add, (score for topic, score in scores.items() if topic != UNSEEN))
    training, held_out = exchanges()
    card = _CARD.format(
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
        minutes=minutes,
        num_threads=settings.num_threads,
        num_training=len(training),
        num_held_out=len(held_out),
        num_evaluated=total.num_questions,
        num_exact=total.num_exact,
        max_per_topic=200,
        exact_rate=total.exact_rate,
        answer_perplexity=total.answer_perplexity,
        perplexity=total.perplexity,
        rows="\n".join(_row(topic, score) for topic, score in scores.items()),
        num_unseen=scores[UNSEEN].num_questions,
        unseen_rate=scores[UNSEEN].exact_rate,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
