"""The whole runner over the real llama.cpp: batching, prefix reuse, cancellation, seeds."""

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from backplane_core.backend import ModelSource, RunnerSpec
from backplane_core.errors import BackendError
from backplane_core.messages import SequenceDelta, StepOutput, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.vocabulary import RemoteTokenizer
from backplane_llamacpp.backend import LlamaCppBackend
from backplane_llamacpp.runner import LlamaCppRunner

from tests.llamacpp.conftest import MakeRunner

NEAR_TIE = 0.02
GREEDY = SamplingParams(temperature=0.0)
_numbers = itertools.count()


def submit(
    runner: LlamaCppRunner,
    prompt: list[int],
    max_new_tokens: int = 16,
    sampling: SamplingParams = GREEDY,
    **fields: Any,
) -> str:
    request = Submit(
        request_id=f"s-{next(_numbers)}",
        prompt=[TokenSegment(token_ids=prompt)],
        sampling=sampling,
        stopping=StoppingParams(max_new_tokens=max_new_tokens, ignore_eos=True),
        **fields,
    )
    runner.submit(request)
    return request.request_id


def drain(runner: LlamaCppRunner) -> dict[tuple[str, int], list[int]]:
    """Poll until nothing runs; the tokens of each sequence."""
    outputs: dict[tuple[str, int], list[int]] = {}
    while runner.stats().running or runner.stats().waiting:
        collect(outputs, runner.poll(0.0))
        runner.check_integrity()
    return outputs


def collect(outputs: dict[tuple[str, int], list[int]], step: StepOutput) -> list[SequenceDelta]:
    assert not step.failures
    for delta in step.deltas:
        outputs.setdefault((delta.request_id, delta.index), []).extend(delta.token_ids)
    return step.deltas


def lone(runner: LlamaCppRunner, prompt: list[int], **fields: Any) -> list[int]:
    request_id = submit(runner, prompt, **fields)
    return drain(runner)[request_id, 0]


def lone_with_gaps(
    runner: LlamaCppRunner, prompt: list[int], max_new_tokens: int = 16
) -> tuple[list[int], list[float]]:
    """A lone greedy run, and at each token by how much it beat the second."""
    submit(runner, prompt, max_new_tokens, top_logprobs=2)
    token_ids: list[int] = []
    gaps: list[float] = []
    while runner.stats().running or runner.stats().waiting:
        for delta in runner.poll(0.0).deltas:
            token_ids += delta.token_ids
            gaps += [top[0][1] - top[1][1] for top in delta.top_logprobs or []]
    return token_ids, gaps


def is_equal_or_near_tie(alone: tuple[list[int], list[float]], other: list[int]) -> bool:
    """Batch shape changes rounding, which may decide between two tokens that are as likely."""
    token_ids, gaps = alone
    assert len(token_ids) == len(other)
    pairs = zip(token_ids, other, strict=True)
    first = next((n for n, (left, right) in enumerate(pairs) if left != right), None)
    return first is None or gaps[first] < NEAR_TIE


def prompt_of(runner: LlamaCppRunner, text: str) -> list[int]:
    return runner.tokenize([text], add_special=True, parse_special=False)[0]


def test_info(make_runner: MakeRunner) -> None:
    info = make_runner({"max_concurrent_requests": 20}).info
    assert info.model.model_id == "o/tiny"
    assert info.model.revision == "main"
    assert info.tokenizer == RemoteTokenizer()
    assert info.limits.max_sequences == 8
    assert info.limits.max_waiting_requests == 12
    assert info.limits.cache_tokens == 2048
    assert info.limits.max_total_tokens == 512
    assert info.capabilities.prefix_cache
    assert info.capabilities.max_top_logprobs == 100
    assert set(info.chat_templates) == {"default", "tool_use"}
    assert len(info.vocabulary.tokens) == 290


def test_progress_has_both_stages(bpe_path: Path) -> None:
    stages: list[str] = []
    spec = RunnerSpec(
        model=ModelSource(model_id="m", path=str(bpe_path)), settings={"ctx_size": 256}
    )
    LlamaCppBackend().create_runner(spec, lambda stage, *_: stages.append(stage)).close()
    assert list(dict.fromkeys(stages)) == ["load", "warm-up"]


def test_many_at_once_equal_the_lone_runs(make_runner: MakeRunner) -> None:
    runner = make_runner(retained_tokens=0)
    prompts = [prompt_of(runner, f"Hello world {n} " + "the " * n) for n in range(12)]
    alone = [lone_with_gaps(runner, prompt) for prompt in prompts]
    ids = [submit(runner, prompt) for prompt in prompts]
    outputs = drain(runner)
    together = [outputs[request_id, 0] for request_id in ids]
    for one, output in zip(alone, together, strict=True):
        assert is_equal_or_near_tie(one, output)
    assert sum(one[0] == output for one, output in zip(alone, together, strict=True)) >= 10
    assert len({tuple(output) for output in together}) > 1
    assert all(len(output) == 16 for output in together)


def test_prefilled_tokens_are_the_uncached_ones(make_runner: MakeRunner) -> None:
    runner = make_runner()
    prefix = prompt_of(runner, "Hello world the end of the beginning " * 3)
    first = [*prefix, 65, 66]
    lone(runner, first)
    before = runner.stats()
    assert before.num_prefilled_tokens == len(first)
    assert before.cached_tokens > 0

    second = [*prefix, 70, 71, 72]
    request_id = submit(runner, second)
    timing = None
    while timing is None:
        timing = next((delta.timing for delta in runner.poll(0.0).deltas if delta.timing), None)
    assert timing.num_prompt_tokens == len(second)
    assert timing.num_cached_tokens == len(prefix)
    rest = drain(runner)[request_id, 0]
    after = runner.stats()
    assert after.num_prefilled_tokens - before.num_prefilled_tokens == 3
    assert after.num_cached_tokens - before.num_cached_tokens == len(prefix)

    fresh = make_runner(retained_tokens=0)
    assert lone(fresh, second)[1:] == rest


def test_a_running_sequence_lends_its_prefix(make_runner: MakeRunner) -> None:
    runner = make_runner()
    prompt = prompt_of(runner, "Hello world and the world again")
    submit(runner, prompt, max_new_tokens=40)
    runner.poll(0.0)
    submit(runner, [*prompt, 80, 81])
    drain(runner)
    assert runner.stats().num_prefilled_tokens == len(prompt) + 2


def test_choices_are_forked_after_one_prefill(make_runner: MakeRunner) -> None:
    runner = make_runner()
    prompt = prompt_of(runner, "Hello world, tell me four different things")
    params = SamplingParams(temperature=1.5, seed=4)
    request_id = submit(runner, prompt, sampling=params, num_sequences=4)
    outputs = drain(runner)
    assert len({tuple(outputs[request_id, index]) for index in range(4)}) == 4
    # All but the last token of the prompt are shared.
    assert runner.stats().num_prefilled_tokens == len(prompt) + 3
    assert outputs[request_id, 0] == lone(make_runner(), prompt, sampling=params)


def test_retained_tokens_are_bounded(make_runner: MakeRunner) -> None:
    runner = make_runner(retained_tokens=100)
    for number in range(6):
        lone(runner, prompt_of(runner, f"{number} Hello world " * 8))
        assert runner.stats().cached_tokens <= 100
    assert runner.stats().cached_tokens > 50
    # What the scheduler counts is what llama.cpp holds.
    context = runner._executor._context
    held = sum(context.last_position(seq_id) + 1 for seq_id in range(16))
    assert held >= runner.stats().cached_tokens


def test_nothing_is_retained_if_so_asked(make_runner: MakeRunner) -> None:
    runner = make_runner(retained_tokens=0)
    lone(runner, prompt_of(runner, "Hello world"))
    stats = runner.stats()
    assert (stats.used_tokens, stats.cached_tokens, stats.free_tokens) == (0, 0, 2048)


def test_cancel_frees_cells_at_once(make_runner: MakeRunner) -> None:
    runner = make_runner()
    keeps = submit(runner, prompt_of(runner, "Hello"), max_new_tokens=12)
    goes = submit(runner, prompt_of(runner, "the world " * 20), max_new_tokens=200)
    runner.poll(0.0)
    runner.poll(0.0)
    full = runner.stats()
    runner.cancel(goes)
    after = runner.stats()
    assert after.running == 1
    assert after.used_tokens < full.used_tokens - 20
    assert after.free_tokens > full.free_tokens + 20
    assert after.num_cancelled == 1
    context = runner._executor._context
    assert sum(context.last_position(seq_id) >= 0 for seq_id in range(16)) == 1
    assert list(drain(runner)) == [(keeps, 0)]


def test_a_late_request_starts_before_a_running_one_ends(make_runner: MakeRunner) -> None:
    runner = make_runner()
    early = submit(runner, prompt_of(runner, "Hello world"), max_new_tokens=60)
    for _ in range(5):
        runner.poll(0.0)
    late = submit(runner, prompt_of(runner, "the end"), max_new_tokens=4)
    order = [
        delta.request_id
        for _ in range(6)
        for delta in runner.poll(0.0).deltas
        for _ in delta.token_ids
    ]
    # Its prompt takes the next step but one at most, and the running one goes on beside it.
    assert order.index(late) <= 1
    assert order.count(late) == 4
    assert order[order.index(late) :].count(early) >= 3


def test_prompts_and_newest_tokens_are_computed_in_turns(make_runner: MakeRunner) -> None:
    runner = make_runner(batch_size=16, max_sequences=4)
    early = submit(runner, prompt_of(runner, "Hello world"), max_new_tokens=60)
    runner.poll(0.0)
    late = submit(runner, prompt_of(runner, "the world " * 20), max_new_tokens=4)
    steps = [[delta.request_id for delta in runner.poll(0.0).deltas] for _ in range(6)]
    # A token, then a chunk of the long prompt, whose third is the last, and again.
    assert steps == [[early], [], [early], [], [early], [late]]


def test_chunks_beside_a_stream_follow_their_own_times(make_runner: MakeRunner) -> None:
    runner = make_runner(batch_size=64, retained_tokens=0)
    stream = submit(runner, prompt_of(runner, "Hello world"), max_new_tokens=400)
    runner.poll(0.0)

    def chunks(name: str) -> list[int]:
        for number in range(6):
            prompt = prompt_of(runner, f"{name} {number} " + "the world " * 80)
            submit(runner, prompt, max_new_tokens=1)
        steps = []
        while runner.stats().running + runner.stats().waiting > 1:
            told = [delta.request_id for delta in runner.poll(0.0).deltas]
            if stream not in told:
                steps.append(runner.stats().batch_tokens)
        return steps

    # However fast it was at the start: chunks that last minutes become as short as they may, those
    # that take no time as long as there is.
    runner._clock = itertools.count(0.0, 100.0).__next__
    assert chunks("slow")[-5:-1] == [16] * 4
    runner._clock = lambda: 1e6
    assert chunks("fast")[-5:-1] == [64] * 4


def test_a_cache_smaller_than_the_demand_preempts_and_ends_everyone(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner(ctx_size=256)
    prompts = [prompt_of(runner, f"{n} Hello world " * 4) for n in range(6)]
    alone = [lone_with_gaps(runner, prompt, 60) for prompt in prompts]
    ids = [submit(runner, prompt, max_new_tokens=60) for prompt in prompts]
    outputs = drain(runner)
    for one, request_id in zip(alone, ids, strict=True):
        assert is_equal_or_near_tie(one, outputs[request_id, 0])
    assert runner.stats().num_preemptions > 0
    assert runner.stats().used_tokens == 0


def test_seeds_do_not_depend_on_the_batch(make_runner: MakeRunner) -> None:
    runner = make_runner(retained_tokens=0)
    prompt = prompt_of(runner, "Hello world")
    params = SamplingParams(temperature=0.9, top_p=0.9, top_k=40, seed=123)
    alone = lone(runner, prompt, sampling=params)
    wanted = submit(runner, prompt, sampling=params)
    for number in range(5):
        other = SamplingParams(temperature=1.2, seed=number)
        submit(runner, prompt_of(runner, f"noise {number}"), sampling=other)
    assert drain(runner)[wanted, 0] == alone
    assert len(set(alone)) > 5


def test_max_new_tokens_is_exact_and_stop_tokens_stop(make_runner: MakeRunner) -> None:
    runner = make_runner()
    prompt = prompt_of(runner, "Hello world")
    output = lone(runner, prompt, max_new_tokens=7)
    assert len(output) == 7
    request = Submit(
        request_id="s-stop",
        prompt=[TokenSegment(token_ids=prompt)],
        sampling=GREEDY,
        stopping=StoppingParams(max_new_tokens=50, stop_token_ids=(output[3],), ignore_eos=True),
    )
    runner.submit(request)
    ended = drain(runner)["s-stop", 0]
    assert ended == output[: output.index(output[3]) + 1]


def test_wake_ends_a_waiting_poll(make_runner: MakeRunner) -> None:
    runner = make_runner()
    threading.Timer(0.05, runner.wake).start()
    started = time.monotonic()
    assert runner.poll(10.0) == StepOutput()
    assert time.monotonic() - started < 5


def test_tokenize_while_a_step_runs(make_runner: MakeRunner) -> None:
    runner = make_runner()
    expected = prompt_of(runner, "Hello world")
    submit(runner, expected, max_new_tokens=300)
    seen: list[list[int]] = []
    reader = threading.Thread(
        target=lambda: seen.extend(
            runner.tokenize(["Hello world"] * 200, add_special=True, parse_special=False)
        )
    )
    reader.start()
    drain(runner)
    reader.join()
    assert seen == [expected] * 200


def test_a_bad_setting_leaves_nothing_behind(make_runner: MakeRunner) -> None:
    with pytest.raises(BackendError, match="caches no fp8"):
        make_runner({"kv_cache_dtype": "fp8"})
    with pytest.raises(BackendError, match="K cache type"):
        make_runner(type_k="q4_0")
    assert make_runner().info.limits.cache_tokens == 2048
