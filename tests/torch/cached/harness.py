"""A `BatchingRunner` over a `CachedModel` that takes the likeliest token, and what tests ask."""

import copy
import dataclasses
from collections.abc import Iterator

import torch
from backplane_core.backend import EngineSettings
from backplane_core.batching.executor import (
    Executor,
    PromptScores,
    SampledTokens,
    ScheduledBatch,
    StepResult,
)
from backplane_core.batching.logit_rows import assign_logit_rows
from backplane_core.batching.runner import BatchingRunner
from backplane_core.batching.scheduler_settings import SchedulerSettings
from backplane_core.capabilities import Capabilities
from backplane_core.errors import OutOfMemoryError
from backplane_core.messages import ModelInfo, RunnerInfo, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary
from backplane_torch.engine.cached.layers import tensors_of
from backplane_torch.engine.cached.model import CachedModel, create_network
from backplane_torch.engine.devices.device import TorchDevice
from backplane_torch.state_plan import make_state_plan
from torch.overrides import TorchFunctionMode

from tests.torch.cached.tiny_models import VOCABULARY

# Logits are in the tens, so that float32 rounds at a hundredth of this.
NEAR_TIE = 1e-4


class NoMemoryError(MemoryError):
    """What this device says where there is no memory."""


class PlainDevice(TorchDevice):
    """The processor, with nothing of its own."""

    torch_device = torch.device("cpu")
    name = "processor"

    def default_dtype(self, of_checkpoint):
        return of_checkpoint

    def free_bytes(self):
        return 2**30

    def attention(self):
        raise NotImplementedError

    def prepare_layers(self, model, quantize, report):
        raise NotImplementedError

    def synchronize(self):
        pass

    def is_out_of_memory(self, error):
        return isinstance(error, NoMemoryError)


class FailingOnce(TorchFunctionMode):
    """Runs out of memory at one call of torch; after it there is memory again."""

    def __init__(self, num_calls):
        super().__init__()
        self._num_left = num_calls

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self._num_left -= 1
        if self._num_left == -1:
            raise NoMemoryError
        return function(*args, **(kwargs or {}))


class GreedyExecutor(Executor):
    """Computes with a model under test; remembers the batches."""

    def __init__(self, model: CachedModel) -> None:
        self.model = model
        self.batches: list[list[tuple[int, int]]] = []  # (start, tokens) of each sequence
        self.fails_at: Iterator[int] | None = None  # torch calls that each step fails after
        self.num_failures = 0

    @property
    def traits(self):
        return self.model.traits

    def execute(self, batch: ScheduledBatch) -> StepResult:
        logits = self._forward(batch).float()
        self.batches.append([(one.start, len(one.token_ids)) for one in batch.sequences])
        rows = assign_logit_rows(batch.sequences)
        best = iter(logits[rows.sampled].argmax(-1).tolist())
        logprobs = logits.log_softmax(-1)
        scores = {}
        for scheduled, first in rows.scored:
            ids = scheduled.scored_token_ids
            scores[scheduled.seq_id] = PromptScores(
                [logprobs[first + place, token_id].item() for place, token_id in enumerate(ids)]
            )
        return StepResult(
            [SampledTokens([next(best)]) if one.sample else None for one in batch.sequences],
            prompt_scores=scores,
        )

    def _forward(self, batch):
        if self.fails_at is None:
            return self.model.forward(batch)
        try:
            with FailingOnce(next(self.fails_at)):
                return self.model.forward(batch)
        except OutOfMemoryError:
            self.num_failures += 1
            return self.model.forward(batch)

    def share_prefix(self, source, target, num_tokens):
        self.model.share_prefix(source, target, num_tokens)

    def trim(self, seq_id, num_tokens):
        self.model.trim(seq_id, num_tokens)

    def release(self, seq_id):
        self.model.release(seq_id)


class Engine:
    """Submits, steps, and holds every answer against `generate` of the same prompt alone."""

    def __init__(self, hf_model, *, settings=None, **plan_changes):
        self.reference = copy.deepcopy(hf_model)
        network = create_network(hf_model)
        plan = make_state_plan(network.shape, 2**28, EngineSettings(max_total_tokens=128))
        self.plan = dataclasses.replace(plan, **plan_changes)
        self.device = PlainDevice()
        self.model = CachedModel(network, self.device, self.plan)
        self.executor = GreedyExecutor(self.model)
        self.num_forwards = 0
        self._hook = hf_model.register_forward_pre_hook(self._count)
        self.runner = BatchingRunner(
            self.executor,
            RunnerInfo(
                model=ModelInfo(model_id="m", backend="torch", backend_version="1", device="cpu"),
                limits=self.plan.limits,
                capabilities=Capabilities(),
                vocabulary=Vocabulary(
                    tokens=[b"%d " % one for one in range(VOCABULARY)],
                    eos_token_ids=(),
                    special_token_ids=(),
                ),
                tokenizer=RemoteTokenizer(),
            ),
            settings=SchedulerSettings(**(settings or {})),
        )
        self.prompts: dict[str, list[int]] = {}
        self.answers: dict[str, list[int]] = {}
        self.reports: dict[str, list[float | None]] = {}
        self.failures: dict[str, str] = {}

    def _count(self, _module, _inputs):
        self.num_forwards += 1

    def submit(self, request_id, prompt, max_new_tokens=12, **fields):
        self.prompts[request_id] = list(prompt)
        self.answers[request_id] = []
        self.runner.submit(
            Submit(
                request_id=request_id,
                prompt=[TokenSegment(token_ids=list(prompt))],
                stopping=StoppingParams(max_new_tokens=max_new_tokens),
                sampling=SamplingParams(),
                **fields,
            )
        )

    def step(self):
        output = self.runner.poll(0.0)
        self.runner.check_integrity()
        for delta in output.deltas:
            self.answers[delta.request_id] += delta.token_ids
        for report in output.prompt_logprobs:
            self.reports.setdefault(report.request_id, []).extend(report.logprobs)
        for failed in output.failures:
            self.failures[failed.request_id] = failed.error.code
        return output

    def step_forwards(self):
        """How many forward passes the next step takes."""
        before = self.num_forwards
        self.step()
        return self.num_forwards - before

    @property
    def busy(self):
        stats = self.runner.stats()
        return bool(stats.running or stats.waiting)

    def run(self, max_steps=500):
        for _ in range(max_steps):
            if not self.busy:
                return
            self.step()
        raise AssertionError(f"still busy after {max_steps} steps")

    def until(self, condition, max_steps=200):
        for _ in range(max_steps):
            if condition():
                return
            self.step()
        raise AssertionError(f"not so after {max_steps} steps")

    def alone(self, prompt, num_tokens):
        """What transformers' own loop makes of a prompt, which must not hang on rounding."""
        token_ids = torch.tensor([prompt])
        # The one that it is made to begin with is no part of ours.
        forced = self.reference.generation_config.forced_bos_token_id is not None
        output = self.reference.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),  # or what equals the padding is masked
            max_new_tokens=forced + num_tokens,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        first, second = torch.cat(output.logits[forced:]).topk(2).values.unbind(1)
        assert (first - second).min() > NEAR_TIE
        return output.sequences[0, -num_tokens:].tolist()

    def check(self):
        """Every answer so far is the beginning of what `generate` gives."""
        for request_id, answer in self.answers.items():
            if answer:
                assert answer == self.alone(self.prompts[request_id], len(answer)), request_id

    def num_bytes(self):
        """What the caches hold of memory, as the allocator counts it."""
        storages = {
            storage.data_ptr(): storage.nbytes()
            for batches in self.model._rows._layers
            for batch in batches.values()
            for storage in _storages(batch.layer)
        }
        return sum(storages.values())


def _storages(layer):
    return [tensor.untyped_storage() for tensor in tensors_of(layer).values()]
