"""Training: AdamW, a warm-up and a cosine, bfloat16 arithmetic over float32 weights."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaForCausalLM

from recipe.batches import Batch, batches
from recipe.model import new_model

SECONDS_PER_MINUTE = 60


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how hard to train; with the seed they fix the weights on a given machine."""

    num_steps: int
    tokens_per_batch: int = 4096
    peak_learning_rate: float = 3e-3
    final_fraction: float = 0.02
    warmup_steps: int = 50
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    seed: int = 7
    num_threads: int = 2


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then a cosine down to a small fraction of the peak."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    progress = step / settings.num_steps
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    fraction = settings.final_fraction + (1 - settings.final_fraction) * cosine
    return settings.peak_learning_rate * warm * fraction


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted mean cross-entropy of each token given those before it."""
    hidden = model.model(batch.token_ids).last_hidden_state[:, :-1]
    targets, weights = batch.token_ids[:, 1:], batch.weights[:, 1:]
    counted = weights > 0
    logits = functional.linear(hidden[counted], model.lm_head.weight).float()
    losses = functional.cross_entropy(logits, targets[counted], reduction="none")
    return (losses * weights[counted]).sum() / weights.sum()


def _optimizer(model: LlamaForCausalLM, settings: TrainingSettings) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    gains = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    rate = settings.peak_learning_rate
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.97), fused=True)


def _report(step: int, loss: float, num_tokens: int, started: float, num_steps: int) -> None:
    elapsed = time.monotonic() - started
    remaining = elapsed / step * (num_steps - step) / SECONDS_PER_MINUTE
    print(
        f"step {step}/{num_steps}  loss {loss:.4f}  {num_tokens / elapsed:.0f} tokens/s  "
        f"{elapsed / SECONDS_PER_MINUTE:.1f} min, {remaining:.1f} min left",
        flush=True,
    )


def train(tokenizer: Tokenizer, settings: TrainingSettings, checkpoint: Path) -> LlamaForCausalLM:
    """Trains from nothing; `checkpoint` receives the state every 500 steps, for a look inside."""
    torch.set_num_threads(settings.num_threads)
    model = new_model(settings.seed)
    model.train()
    optimizer = _optimizer(model, settings)
    stream = batches(tokenizer, settings.seed, settings.tokens_per_batch)
    started, num_tokens, mean_loss = time.monotonic(), 0, 0.0
    for step, batch in zip(range(settings.num_steps), stream, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        num_tokens += batch.token_ids.numel()
        mean_loss = loss.item() if step == 0 else 0.95 * mean_loss + 0.05 * loss.item()
        if (step + 1) % 25 == 0:
            _report(step + 1, mean_loss, num_tokens, started, settings.num_steps)
        if (step + 1) % 500 == 0:
            torch.save(model.state_dict(), checkpoint)
    return model.eval()
