"""A case on the torch backend, in process, and what transformers says to the same prompts.

The cache and the steps are so short that prompts come in chunks and sequences get in each other's
way.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from backplane_core.backend import EngineSettings, ModelSource, RunnerSpec
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_torch.backend import TorchBackend
from backplane_torch.engine.runner import TorchRunner
from transformers import PreTrainedModel

from tests.torch.models.tiny_checkpoint import Case, make_model, write_checkpoint

MAX_STEP_TOKENS = 24
_BLOCK_SIZE = 8
_MAX_POLLS = 2000
# Float32 rounds these logits in their sixth digit: far from the difference of any two that matter.
MIN_GAP = 5e-4


@dataclasses.dataclass
class Answer:
    """What came back of one sequence; the prompt's logprobs are those of its request."""

    token_ids: list[int] = dataclasses.field(default_factory=list[int])
    num_cached_tokens: int = 0
    prompt_logprobs: list[float | None] = dataclasses.field(default_factory=list[float | None])


class ServedModel:
    """A case loaded twice: by `TorchBackend` from files, and as transformers made it."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.model = make_model(case)
        write_checkpoint(self.model, folder)
        files = tuple(path.name for path in folder.iterdir())
        spec = RunnerSpec(
            model=ModelSource(model_id="tiny/model", path=str(folder), files=files),
            engine=EngineSettings(
                dtype="float32",
                max_batch_size=4,
                max_batch_prefill_tokens=MAX_STEP_TOKENS,
                max_batch_total_tokens=case.cache_tokens,
            ),
            settings={"block_size": _BLOCK_SIZE, "threads": 1},
        )
        runner = TorchBackend().create_runner(spec, lambda *_: None)
        assert isinstance(runner, TorchRunner)
        self.runner = runner
        self._num_requests = 0

    def close(self) -> None:
        self.runner.close()

    def answer(self, requests: Sequence[Submit]) -> list[list[Answer]]:
        """All at once; an answer for each sequence of each request."""
        answers = {
            request.request_id: [Answer() for _ in range(request.num_sequences)]
            for request in requests
        }
        for request in requests:
            self.runner.submit(request)
        for _ in range(_MAX_POLLS):
            stats = self.runner.stats()
            if not stats.running and not stats.waiting:
                break
            output = self.runner.poll(1.0)
            self.runner.check_integrity()
            assert not output.failures
            assert self.runner.stats().batch_tokens <= MAX_STEP_TOKENS
            for delta in output.deltas:
                answer = answers[delta.request_id][delta.index]
                answer.token_ids += delta.token_ids
                if delta.timing is not None:
                    answer.num_cached_tokens = delta.timing.num_cached_tokens
            for report in output.prompt_logprobs:
                answers[report.request_id][0].prompt_logprobs += report.logprobs
        else:
            raise AssertionError(f"still busy after {_MAX_POLLS} steps")
        return list(answers.values())

    def request(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        sampling: SamplingParams | None = None,
        *,
        ignore_eos: bool = True,
        **fields: object,
    ) -> Submit:
        """Greedy, and going on where the model would end, unless said otherwise."""
        self._num_requests += 1
        return Submit(
            request_id=f"{self._num_requests}",
            prompt=[TokenSegment(token_ids=list(prompt))],
            stopping=StoppingParams(max_new_tokens=max_new_tokens, ignore_eos=ignore_eos),
            sampling=sampling or SamplingParams(temperature=0.0),
            **fields,
        )

    def generate(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """What transformers makes of a prompt by itself, nowhere by a hair."""
        token_ids, gap = reference(self.model, prompt, num_tokens)
        assert gap > MIN_GAP, "choose another seed: two tokens are as likely"
        return token_ids


def reference(
    model: PreTrainedModel, prompt: Sequence[int], num_tokens: int
) -> tuple[list[int], float]:
    """The likeliest tokens by transformers' own loop; by how much the closest of them was."""
    token_ids = torch.tensor([list(prompt)])
    output = model.generate(
        token_ids,
        attention_mask=torch.ones_like(token_ids),
        max_new_tokens=num_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    best, second = torch.cat(output.logits).topk(2).values.unbind(1)
    return output.sequences[0, -num_tokens:].tolist(), (best - second).min().item()


def prompt_of(length: int, number: int) -> list[int]:
    """Tokens without a pattern, others for each number."""
    return [
        (number * 31 + place * 13 + place * place * (3 + number)) % 250 + 5
        for place in range(length)
    ]
