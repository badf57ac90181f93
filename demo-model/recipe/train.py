"""Training: Muon for the matrices and AdamW for the rest, bfloat16 arithmetic over float32 weights.

A run can be stopped and resumed: the outcome is that of a run that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from torch.optim import AdamW, Muon, Optimizer
from transformers import LlamaForCausalLM

from recipe.batches import Batch, batches
from recipe.checkpoint import load_checkpoint, save_checkpoint
from recipe.corpus.mixture import Mixture
from recipe.corpus.phases import PHASES, Phase
from recipe.model import new_model

SECONDS_PER_MINUTE = 60
STEPS_PER_REPORT = 25
STEPS_PER_CHECKPOINT = 100


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how hard to train; with the seed they fix the weights on a given machine."""

    num_steps: int
    phases: tuple[Phase, ...] = PHASES
    tokens_per_batch: int = 4096
    matrix_learning_rate: float = 4e-3
    other_learning_rate: float = 3e-3
    warmup_steps: int = 40
    decay_fraction: float = 0.3
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    seed: int = 7
    num_threads: int = 2


def learning_rate_factor(step: int, settings: TrainingSettings) -> float:
    """Warm-up, a plateau, and a linear decay to zero over the last part of the run.

    The plateau does not depend on `num_steps`: a run resumed from it may be given another length.
    """
    warm = (step + 1) / settings.warmup_steps
    cold = (settings.num_steps - step) / (settings.decay_fraction * settings.num_steps)
    return min(1.0, warm, cold)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted mean cross-entropy of each token given those before it."""
    hidden = model.model(batch.token_ids).last_hidden_state[:, :-1]
    targets, weights = batch.token_ids[:, 1:], batch.weights[:, 1:]
    counted = weights > 0
    logits = functional.linear(hidden[counted], model.lm_head.weight).float()
    losses = functional.cross_entropy(logits, targets[counted], reduction="none")
    return (losses * weights[counted]).sum() / weights.sum()


def _optimizers(model: LlamaForCausalLM, settings: TrainingSettings) -> list[Optimizer]:
    """Muon takes the matrices inside the layers; its steps are scaled to the size of AdamW's."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim > 1 and "embed_tokens" not in name
        (matrices if inside else others).append(parameter)
    return [
        Muon(
            matrices,
            lr=settings.matrix_learning_rate,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        AdamW(others, lr=settings.other_learning_rate, betas=(0.9, 0.97), weight_decay=0.0),
    ]


class Trainer:
    """Owns the model and its optimizers for one run; `checkpoint` is written every 100 steps."""

    def __init__(self, tokenizer: Tokenizer, settings: TrainingSettings, checkpoint: Path) -> None:
        torch.set_num_threads(settings.num_threads)
        self._tokenizer = tokenizer
        self._settings = settings
        self._checkpoint = checkpoint
        self._model = new_model(settings.seed)
        self._optimizers = _optimizers(self._model, settings)
        self._rates = [optimizer.param_groups[0]["lr"] for optimizer in self._optimizers]
        self._step = 0

    def resume(self) -> None:
        """Goes on from the checkpoint.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        self._step = load_checkpoint(self._checkpoint, self._model, self._optimizers)

    def run(self) -> LlamaForCausalLM:
        """Trains to the last step, printing loss, speed and the time that is left."""
        settings = self._settings
        self._model.train()
        first, started, num_tokens, losses = self._step, time.monotonic(), 0, []
        for batch in islice(self._stream(), first, settings.num_steps):
            losses.append(self._learn(batch))
            num_tokens += batch.token_ids.numel()
            if self._step % STEPS_PER_REPORT == 0:
                elapsed = time.monotonic() - started
                left = elapsed / (self._step - first) * (settings.num_steps - self._step)
                print(
                    f"step {self._step}/{settings.num_steps}  "
                    f"loss {sum(losses) / len(losses):.4f}  {num_tokens / elapsed:.0f} tokens/s  "
                    f"{left / SECONDS_PER_MINUTE:.1f} min left",
                    flush=True,
                )
                losses.clear()
            if self._step % STEPS_PER_CHECKPOINT == 0:
                save_checkpoint(self._checkpoint, self._step, self._model, self._optimizers)
        return self._model.eval()

    def _stream(self) -> Iterator[Batch]:
        """The batches of a whole run, phase after phase, each with a seed of its own."""
        settings = self._settings
        for number, phase in enumerate(settings.phases):
            seed = settings.seed + number
            mixture = Mixture(seed, phase)
            stream = batches(self._tokenizer, mixture, seed, settings.tokens_per_batch)
            yield from islice(stream, phase.num_steps)

    def _learn(self, batch: Batch) -> float:
        factor = learning_rate_factor(self._step, self._settings)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(self._model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.clip_norm)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._step += 1
        return loss.item()
