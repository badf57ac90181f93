"""Documents as training batches: token ids and a loss weight for each, grouped by length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from tokenizers import Tokenizer

from recipe.chat_format import PADDING
from recipe.corpus.mixture import Document, Mixture
from recipe.tokenizer import MAX_POSITIONS

DOCUMENTS_PER_SHARD = 8192
QUESTION_WEIGHT = 0.1  # questions are learnt a little too, so that the model stays a language model


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded `token_ids` (sequences, length); `weights` of the same shape, 0 on padding."""

    token_ids: torch.Tensor
    weights: torch.Tensor


def encode(tokenizer: Tokenizer, document: Document) -> tuple[list[int], list[float]]:
    """Token ids of a document and the loss weight of each, cut at the context length."""
    token_ids: list[int] = []
    weights: list[float] = []
    for segment in document:
        piece = tokenizer.encode(segment.text).ids
        token_ids += piece
        weights += [1.0 if segment.is_answer else QUESTION_WEIGHT] * len(piece)
    return token_ids[:MAX_POSITIONS], weights[:MAX_POSITIONS]


def _padded(rows: list[tuple[list[int], list[float]]], padding_id: int) -> Batch:
    longest = max(len(token_ids) for token_ids, _ in rows)
    token_ids = torch.full((len(rows), longest), padding_id, dtype=torch.long)
    weights = torch.zeros(len(rows), longest)
    for row, (ids, row_weights) in enumerate(rows):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        weights[row, : len(ids)] = torch.tensor(row_weights)
    return Batch(token_ids, weights)


def batches(
    tokenizer: Tokenizer, mixture: Mixture, seed: int, tokens_per_batch: int
) -> Iterator[Batch]:
    """An endless stream: each shard of documents is sorted by length, cut, and shuffled.

    Every document starts at position 0, as a prompt does when the model is served.
    """
    draw = random.Random(seed)
    documents = mixture.documents()
    padding_id = tokenizer.token_to_id(PADDING)
    while True:
        shard = [encode(tokenizer, document) for document in islice(documents, DOCUMENTS_PER_SHARD)]
        shard.sort(key=lambda row: len(row[0]))
        ready: list[list[tuple[list[int], list[float]]]] = [[]]
        for row in shard:
            if ready[-1] and len(row[0]) * (len(ready[-1]) + 1) > tokens_per_batch:
                ready.append([])
            ready[-1].append(row)
        draw.shuffle(ready)
        for rows in ready:
            yield _padded(rows, padding_id)
