"""Models whose memory is not plain attention: what they cannot do is known and not done."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backplane_core.backend import ModelSource, RunnerSpec
from backplane_llamacpp.backend import LlamaCppBackend
from backplane_llamacpp.runner import LlamaCppRunner

from tests.llamacpp import tiny_other
from tests.llamacpp.conftest import ignore_progress
from tests.llamacpp.test_runner import (
    drain,
    is_equal_or_near_tie,
    lone,
    lone_with_gaps,
    prompt_of,
    submit,
)

Write = Callable[[Path], Path]
BOTH = pytest.mark.parametrize("write", [tiny_other.write_mamba, tiny_other.write_sliding_window])


@pytest.fixture
def runners(tmp_path: Path) -> Iterator[Callable[[Write], LlamaCppRunner]]:
    made: list[LlamaCppRunner] = []

    def make(write: Write) -> LlamaCppRunner:
        path = write(tmp_path / f"{len(made)}.gguf")
        model = ModelSource(model_id="m", path=str(path))
        spec = RunnerSpec(model=model, settings={"ctx_size": 1024, "max_sequences": 6})
        runner = LlamaCppBackend().create_runner(spec, ignore_progress)
        assert isinstance(runner, LlamaCppRunner)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        runner.close()


@BOTH
def test_its_tail_cannot_be_dropped(
    runners: Callable[[Write], LlamaCppRunner], write: Write
) -> None:
    assert not runners(write)._executor.traits.trimmable


@BOTH
def test_many_at_once_equal_the_lone_runs(
    runners: Callable[[Write], LlamaCppRunner], write: Write
) -> None:
    runner = runners(write)
    prompts = [prompt_of(runner, f"{n} Hello world " + "the " * 5 * n) for n in range(6)]
    alone = [lone_with_gaps(runner, prompt, 30) for prompt in prompts]
    ids = [submit(runner, prompt, 30) for prompt in prompts]
    outputs = drain(runner)
    for one, request_id in zip(alone, ids, strict=True):
        assert is_equal_or_near_tie(one, outputs[request_id, 0])


@BOTH
def test_a_conversation_goes_on_where_it_ended(
    runners: Callable[[Write], LlamaCppRunner], write: Write
) -> None:
    """The whole of a finished sequence is reused; a part of it, which cannot be had, is not."""
    runner = runners(write)
    prompt = prompt_of(runner, "Hello world, the beginning of the end and the world " * 2)
    answer = lone(runner, prompt, max_new_tokens=20)
    follow_up = [*prompt, *answer, 65, 66, 67]
    before = runner.stats()
    reused = lone(runner, follow_up, max_new_tokens=10)
    # The newest token of the answer was never computed.
    assert runner.stats().num_prefilled_tokens - before.num_prefilled_tokens == 4
    fresh = runners(write)
    assert is_equal_or_near_tie(lone_with_gaps(fresh, follow_up, 10), reused)

    before = runner.stats()
    branch = [*prompt[:20], 70, 71]
    branched = lone(runner, branch, max_new_tokens=10)
    assert runner.stats().num_prefilled_tokens - before.num_prefilled_tokens == len(branch)
    assert is_equal_or_near_tie(lone_with_gaps(fresh, branch, 10), branched)


@BOTH
def test_choices_fork_where_the_prompt_ends(
    runners: Callable[[Write], LlamaCppRunner], write: Write
) -> None:
    runner = runners(write)
    prompt = prompt_of(runner, "Hello world and the end")
    expected = lone_with_gaps(runner, prompt)
    forked = submit(runner, prompt, num_sequences=3)
    outputs = drain(runner)
    for index in range(3):
        assert is_equal_or_near_tie(expected, outputs[forked, index])
