"""Batches: each row as it would be alone, whoever its neighbours are, and whatever fails there."""

from unittest import mock

import msgspec
import numpy as np
import pytest
import torch
from backplane_core.batching.executor import SampledTokens, ScheduledSequence
from backplane_core.batching.sequence import Sequence
from backplane_core.errors import GenerationError
from backplane_core.sampling import SamplingParams, StoppingParams, Watermark
from backplane_torch.engine.sampling import scores as scores_module
from backplane_torch.engine.sampling.batch_sampler import BatchSampler
from backplane_torch.engine.sampling.token_choice import Looks, highest_ids
from torch.utils._python_dispatch import TorchDispatchMode

from tests.sampling.rows import guided, packed, sequence
from tests.torch.sampling.row_sampler import CPU, share

VOCABULARY = 3_000
TO_LIST = torch.Tensor.tolist
WAYS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.0, repetition_penalty=1.7),
    SamplingParams(),
    SamplingParams(temperature=0.7, top_p=0.9, logit_bias={5: 3.0, 9999: 1.0}),
    SamplingParams(top_k=20, frequency_penalty=0.4, presence_penalty=0.2),
    SamplingParams(top_k=2500, min_p=0.01),
    SamplingParams(typical_p=0.6, watermark=Watermark()),
    SamplingParams(top_p=0.999, temperature=3.0),
    SamplingParams(temperature=0.0, watermark=Watermark(delta=4.0), logit_bias={7: 50.0}),
)


def of_way(place: int, *, num_top: int | None = None) -> Sequence:
    params = msgspec.structs.replace(WAYS[place % len(WAYS)], seed=place)
    held = place % 5 == 1
    one = sequence(
        [3, 4, 5 + place],
        [8, 3],
        params,
        eos=frozenset({7}),
        stopping=StoppingParams(max_new_tokens=90, min_new_tokens=4 if held else 0),
    )
    one.request = msgspec.structs.replace(one.request, top_logprobs=num_top)
    return guided(one, packed(range(0, VOCABULARY, 3), VOCABULARY) if place % 4 == 3 else None)


def rows(num: int, dtype: torch.dtype = torch.float32, width: int = VOCABULARY) -> torch.Tensor:
    return (3 * torch.randn(num, width, generator=torch.Generator().manual_seed(num))).to(dtype)


def sampler(suppressed: tuple[int, ...] = (11,), **changes) -> BatchSampler:
    return BatchSampler(VOCABULARY, list(suppressed), CPU, **changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_of_many_give_what_each_alone_gives(dtype):
    together, lone = sampler(), [sampler() for _ in range(27)]
    crowd = [of_way(place, num_top=(None, 0, 3)[place % 3]) for place in range(27)]
    others = [of_way(place, num_top=(None, 0, 3)[place % 3]) for place in range(27)]
    for step in range(5):
        # Wider than the vocabulary, as a model pads its head: what lies beyond never comes.
        logits = rows(27 + step, dtype, VOCABULARY + 40)[:27]
        logits[:, VOCABULARY:] = 1e4
        results, scores = together.sample([share(*one) for one in enumerate(crowd)], logits.clone())
        assert not scores
        for place, one in enumerate(others):
            (alone,), _ = lone[place].sample([share(9, one)], logits[place : place + 1].clone())
            result = results[place]
            assert isinstance(alone, SampledTokens)
            assert isinstance(result, SampledTokens)
            assert result.token_ids == alone.token_ids
            assert (result.logprobs is None) == (place % 3 == 0)
            assert (result.top_logprobs is None) == (place % 3 != 2)
            assert result.logprobs == (alone.logprobs and pytest.approx(alone.logprobs))
            one.token_ids += alone.token_ids
            crowd[place].token_ids += alone.token_ids


def test_a_sequence_that_went_and_came_again_is_counted_anew():
    one, twin = of_way(4), of_way(4)
    kept, moved = sampler(), sampler()
    for step in range(6):
        (expected,), _ = kept.sample([share(0, one)], rows(1))
        (result,), _ = moved.sample([share(step % 2, twin)], rows(1))
        assert result == expected
        one.token_ids += expected.token_ids
        twin.token_ids += expected.token_ids
        moved.forget(step % 2)
        other = of_way(1)
        moved.sample([share(step % 2, other)], rows(1))  # in the meantime its id is another's
        if step == 3:
            moved.forget(step % 2)
    moved.forget(77)  # one that never came


def test_logprobs_are_the_models_own_and_none_of_the_suppressed_comes():
    greedy = SamplingParams(temperature=0.0, logit_bias={20: 100.0})
    one = sequence([1, 2], [], greedy)
    one.request = msgspec.structs.replace(one.request, top_logprobs=2)
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 11], logits[0, 12] = 9.0, 5.0
    expected = logits.double().log_softmax(-1)[0]
    (result,), _ = sampler().sample([share(0, one)], logits)
    assert result.token_ids == [20]
    assert result.logprobs == pytest.approx([float(expected[20])], abs=1e-5)
    assert [token_id for token_id, _ in result.top_logprobs[0]] == [11, 12]
    assert [logprob for _, logprob in result.top_logprobs[0]] == pytest.approx(
        expected[[11, 12]].tolist(), abs=1e-5
    )


def test_rows_that_fail_fail_alone():
    class Failing:
        def allowed(self) -> memoryview:
            raise GenerationError("its mask took too long")

    batch = [of_way(place, num_top=1) for place in (0, 2, 3, 7, 4, 0)]
    batch[3].guide = Failing()  # type: ignore[assignment] -- a mask is all that is asked
    guided(batch[4], np.zeros(0, np.uint8))
    logits = rows(len(batch))
    logits[0] = torch.nan
    logits[2, 5] = torch.nan
    results, _ = sampler().sample([share(*one) for one in enumerate(batch)], logits)
    for place, words in ((0, "no token"), (2, "no token"), (3, "took too long"), (4, "no token")):
        result = results[place]
        assert isinstance(result, GenerationError)
        assert words in str(result)
    assert isinstance(results[1], SampledTokens)
    assert isinstance(results[5], SampledTokens)


@pytest.mark.parametrize("num_at_once", [1, VOCABULARY * 3, 1 << 22])
def test_prompts_are_scored_beside_rows_that_are_sampled(monkeypatch, num_at_once):
    monkeypatch.setattr(scores_module, "_NUM_AT_ONCE", num_at_once)
    scored, later, decode = (of_way(place) for place in (1, 0, 2))
    scored.request = msgspec.structs.replace(scored.request, prompt_logprobs=3)
    later.request = msgspec.structs.replace(later.request, prompt_logprobs=0)
    batch = [
        share(5, decode),
        # The last position's row is both scored and sampled, and steered thereafter.
        ScheduledSequence(
            seq_id=1,
            sequence=scored,
            start=0,
            token_ids=scored.token_ids[:4],
            sample=True,
            scored_positions=range(1, 4),
        ),
        ScheduledSequence(
            seq_id=2,
            sequence=later,
            start=1,
            token_ids=later.token_ids[1:4],
            sample=False,
            scored_positions=range(1, 3),
        ),
    ]
    logits = rows(6, torch.bfloat16)
    logits[2] = torch.nan  # what cannot be told of one token does not hide the others
    exact = logits.double().log_softmax(-1)
    results, scores = sampler().sample(batch, logits.clone())
    assert set(scores) == {1, 2}
    for seq_id, one, first_row, positions in (
        (1, scored, 1, range(1, 4)),
        (2, later, 4, range(1, 3)),
    ):
        expected = [
            float(exact[first_row + place, one.token_ids[position + 1]])
            for place, position in enumerate(positions)
        ]
        assert scores[seq_id].logprobs == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert scores[2].top_logprobs is None
    tops = scores[1].top_logprobs
    assert tops is not None
    for row, top in ((1, tops[0]), (3, tops[2])):
        order = logits[row].float().sort(descending=True, stable=True).indices[:3].tolist()
        assert [token_id for token_id, _ in top] == order
    assert all(np.isnan(logprob) for _, logprob in tops[1])
    assert isinstance(results[0], SampledTokens)
    assert isinstance(results[1], SampledTokens)
    assert results[2] is None
    (alone,), _ = sampler().sample([share(0, decode)], logits[:1])
    assert results[0].token_ids == alone.token_ids


def test_a_chunk_that_ends_no_prompt_has_no_rows():
    chunk = ScheduledSequence(seq_id=0, sequence=of_way(0), start=0, token_ids=[3, 4], sample=False)
    assert sampler().sample([chunk], torch.empty(0, VOCABULARY)) == ([None], {})


class Operations(TorchDispatchMode):
    """Counts operations, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_plain_greedy_costs_its_argmax_and_nothing_else():
    batch = [share(place, of_way(0)) for place in range(8)]
    one, logits = sampler(()), rows(8, torch.bfloat16)
    one.sample(batch, logits)
    with Operations() as alone:
        highest_ids(logits).tolist()
    with Operations() as whole:
        one.sample(batch, logits)
    assert [name for name in whole.names if name not in {"slice", "alias"}] == [
        name for name in alone.names if name not in {"slice", "alias"}
    ], (whole.names, alone.names)


@pytest.mark.parametrize(("looks", "waits"), [(Looks(first=VOCABULARY), 1), (Looks(first=4), 2)])
def test_the_device_is_waited_for_once_and_not_row_by_row(looks, waits):
    one = sampler(looks=looks)
    batch = [share(place, of_way(place)) for place in range(27)]
    one.sample(batch, rows(27))  # from now on each only decodes
    few, many = rows(9), rows(27)
    waited: list[torch.Tensor] = []

    def come_home(tensor: torch.Tensor) -> list[int]:
        waited.append(tensor)
        return TO_LIST(tensor)

    with mock.patch.object(torch.Tensor, "tolist", come_home), Operations() as of_few:
        one.sample(batch[:9], few)
    assert len(waited) == waits
    assert not {"_local_scalar_dense", "nonzero", "masked_select"} & set(of_few.names)
    with Operations() as of_many:
        one.sample(batch, many)
    assert len(of_many.names) == len(of_few.names)
