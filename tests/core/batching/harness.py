"""A `BatchingRunner` over the fake executor, and what tests ask of it."""

import dataclasses
from collections import Counter

from backplane_core.batching.executor import ExecutorTraits, MemoryLayout, ScheduledBatch
from backplane_core.batching.runner import BatchingRunner
from backplane_core.batching.scheduler_settings import SchedulerSettings
from backplane_core.batching.sequence import Sequence, SequenceState
from backplane_core.capabilities import Capabilities, Limits
from backplane_core.errors import ErrorInfo
from backplane_core.messages import (
    ModelInfo,
    PromptLogprobs,
    RunnerInfo,
    RunnerStats,
    SequenceDelta,
    SequenceTiming,
    StepOutput,
    Submit,
    TokenSegment,
)
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.vocabulary import RemoteTokenizer, Vocabulary

from tests.core.batching.fake_executor import EOS_TOKEN_ID, TOKENS, lone_output
from tests.core.batching.fake_layouts import (
    FakeCellExecutor,
    FakePagedExecutor,
    create_fake_executor,
)


def make_traits(layout: MemoryLayout, **changes) -> ExecutorTraits:
    fields = {
        "max_sequences": 8,
        "cache_tokens": 8 * 64 if layout is MemoryLayout.SLOTS else 256,
        "max_batch_tokens": 32,
        "slot_tokens": 64 if layout is MemoryLayout.SLOTS else 256,
        "block_size": 4 if layout is MemoryLayout.PAGED else 1,
        "shareable": layout is not MemoryLayout.SLOTS,
    }
    return ExecutorTraits(layout=layout, **{**fields, **changes})


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@dataclasses.dataclass
class Answer:
    """What came back for one sequence."""

    token_ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    finish_reason: str | None = None
    timing: SequenceTiming | None = None
    steps: list[int] = dataclasses.field(default_factory=list)


class Engine:
    """Submits, steps, collects, and checks the integrity after each step."""

    def __init__(
        self,
        traits: ExecutorTraits,
        *,
        max_running=None,
        eos=(EOS_TOKEN_ID,),
        guidance=None,
        **settings,
    ):
        self.eos = eos
        self.traits = traits
        self.executor = create_fake_executor(traits)
        self.clock = Clock()
        self.answers: dict[tuple[str, int], Answer] = {}
        self.errors: dict[str, ErrorInfo] = {}
        self.reports: dict[str, list[PromptLogprobs]] = {}
        self.requests: dict[str, Submit] = {}
        self.num_polls = 0
        self.absent: Counter[Sequence] = Counter()
        self.max_prefill_chunk = settings.get("max_prefill_chunk") or traits.max_batch_tokens
        limits = Limits(
            max_total_tokens=traits.slot_tokens,
            max_input_tokens=traits.slot_tokens - 1,
            max_batch_tokens=traits.max_batch_tokens,
            max_sequences=max_running or traits.max_sequences,
            max_waiting_requests=1000,
            cache_tokens=traits.cache_tokens,
        )
        info = RunnerInfo(
            model=ModelInfo(model_id="fake", backend="fake", backend_version="1", device="none"),
            limits=limits,
            capabilities=Capabilities(multiple_sequences=True, prefix_cache=True),
            vocabulary=Vocabulary(tokens=TOKENS, eos_token_ids=eos, special_token_ids=eos),
            tokenizer=RemoteTokenizer(),
        )
        self.runner = BatchingRunner(
            self.executor,
            info,
            settings=SchedulerSettings(**settings),
            guidance=guidance,
            clock=self.clock,
            wall_clock=self.clock,
        )

    def submit(self, request_id: str, prompt: list[int], max_new_tokens=8, **fields) -> None:
        stopping = {
            name: fields.pop(name)
            for name in ("min_new_tokens", "stop_token_ids", "ignore_eos")
            if name in fields
        }
        request = Submit(
            request_id=request_id,
            prompt=[TokenSegment(token_ids=list(prompt))],
            stopping=StoppingParams(max_new_tokens=max_new_tokens, **stopping),
            sampling=SamplingParams(seed=fields.pop("seed", 7)),
            **fields,
        )
        self.runner.submit(request)
        self.requests[request_id] = request

    def step(self) -> StepOutput:
        decoding = [
            sequence
            for sequence in self.runner._scheduler.running
            if sequence.state is SequenceState.DECODE
        ]
        num_batches, num_preempted = len(self.executor.batches), self.stats.num_preemptions
        output = self.runner.poll(0.0)
        self.num_polls += 1
        self.check()
        if len(self.executor.batches) > num_batches:
            batch = self.executor.batches[-1]
            self._check_waits(decoding, batch)
            # One that left in this step, for want of memory, waits for no chunk.
            if decoding and not output.failures and self.stats.num_preemptions == num_preempted:
                chunks = [one for one in batch.sequences if one.sequence not in decoding]
                assert sum(len(one.token_ids) for one in chunks) <= self.max_prefill_chunk
        for report in output.prompt_logprobs:
            told = [one for key, one in self.answers.items() if key[0] == report.request_id]
            assert not any(one.token_ids for one in told), "told too late"
            self.reports.setdefault(report.request_id, []).append(report)
        for delta in output.deltas:
            self._collect(delta)
        for failed in output.failures:
            assert failed.request_id not in self.errors
            self.errors[failed.request_id] = failed.error
        return output

    def run(self, max_steps=2000) -> None:
        """Until nothing is left to do."""
        for _ in range(max_steps):
            if not self.busy:
                return
            self.step()
        raise AssertionError(f"still busy after {max_steps} steps: {self.runner.stats()}")

    def until(self, condition, max_steps=500) -> None:
        """Step until something is so."""
        for _ in range(max_steps):
            if condition():
                return
            self.step()
        raise AssertionError(f"not so after {max_steps} steps: {self.runner.stats()}")

    @property
    def stats(self) -> RunnerStats:
        return self.runner.stats()

    @property
    def busy(self) -> bool:
        stats = self.runner.stats()
        return bool(stats.running or stats.waiting)

    def answer(self, request_id: str, index=0) -> Answer:
        return self.answers.setdefault((request_id, index), Answer())

    def cancel(self, request_id: str, index=None) -> None:
        self.runner.cancel(request_id, index)
        self.check()

    def check(self) -> None:
        """Free + cached + owned is all there is, by the runner's books and by the stats."""
        self.runner.check_integrity()
        stats = self.runner.stats()
        assert stats.used_tokens + stats.cached_tokens + stats.free_tokens == (
            self.traits.cache_tokens
        )
        assert min(stats.used_tokens, stats.cached_tokens, stats.free_tokens) >= 0
        if isinstance(self.executor, FakeCellExecutor):
            # What the books call free is free, shared cells counted once; between steps nothing is
            # reserved, also after one without memory.
            assert self.executor.num_free == stats.free_tokens
        if isinstance(self.executor, FakePagedExecutor):
            for place, group in enumerate(self.runner._memory._groups):
                self.executor.poison(place, group._pool._free)

    def check_alone(self) -> None:
        """Every answer so far is what its sequence gives when it is alone."""
        for (request_id, index), answer in self.answers.items():
            assert answer.token_ids == self.expected(request_id, index, len(answer.token_ids))
            if answer.finish_reason is not None:
                assert answer.finish_reason == self.expected_end(request_id, answer.token_ids)

    def expected(self, request_id: str, index: int, num_tokens: int) -> list[int]:
        return lone_output(self._lone(request_id, index), num_tokens)

    def expected_end(self, request_id: str, token_ids: list[int]) -> str | None:
        """Why an output must end with its last token, and that it must not have ended before."""
        stopping = self.requests[request_id].stopping
        ends = set() if stopping.ignore_eos else set(self.eos)
        assert not (ends | set(stopping.stop_token_ids)) & set(token_ids[:-1])
        if token_ids[-1] in ends:
            return "eos"
        if token_ids[-1] in stopping.stop_token_ids:
            return "stop_token"
        return "length" if len(token_ids) == stopping.max_new_tokens else None

    def _check_waits(self, decoding: list[Sequence], batch: ScheduledBatch) -> None:
        """No decode waits longer than one chunk (and for the other adapters' turns)."""
        computed = {scheduled.sequence for scheduled in batch.sequences}
        num_turns = 1
        if self.traits.adapters_per_batch:
            num_adapters = len({request.adapter for request in self.requests.values()})
            num_turns = -(-num_adapters // self.traits.adapters_per_batch)
        for sequence in decoding:
            if sequence.guide is not None:
                continue  # it may wait for its mask
            if sequence in computed or sequence.state is not SequenceState.DECODE:
                self.absent.pop(sequence, None)
            else:
                self.absent[sequence] += 1
                assert self.absent[sequence] < num_turns * (1 if self.traits.mixed_prefill else 2)

    def lone(self, prompt: list[int], num_tokens: int, seed=7, **fields) -> list[int]:
        """What a prompt gives, to choose stop tokens by."""
        request = Submit(
            request_id="lone",
            prompt=[TokenSegment(token_ids=list(prompt))],
            stopping=StoppingParams(max_new_tokens=num_tokens, ignore_eos=True),
            sampling=SamplingParams(seed=seed),
            **fields,
        )
        self.requests["lone"] = request
        return self.expected("lone", 0, num_tokens)

    def _lone(self, request_id: str, index: int) -> Sequence:
        request = self.requests[request_id]
        return Sequence(
            request=request,
            index=index,
            token_ids=request.prompt_token_ids,
            num_prompt_tokens=len(request.prompt_token_ids),
            eos_token_ids=frozenset(self.eos),
        )

    def _collect(self, delta: SequenceDelta) -> None:
        answer = self.answer(delta.request_id, delta.index)
        assert answer.finish_reason is None, "tokens after the end"
        assert (delta.timing is not None) == (not answer.token_ids)
        answer.token_ids += delta.token_ids
        answer.logprobs += delta.logprobs or []
        answer.finish_reason = delta.finish_reason
        answer.timing = answer.timing or delta.timing
        answer.steps += [self.num_polls] * len(delta.token_ids)
