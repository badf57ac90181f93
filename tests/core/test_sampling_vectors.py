"""The stored vectors are the reference's, and a rounding engine can meet them."""

import random

import msgspec
import pytest
from backplane_core.sampling import SamplingParams, sequence_seed, uniform
from backplane_core.testing import sampling_reference, sampling_vectors
from backplane_core.testing.sampling_vectors import CUT_MARGIN, DRAW_MARGIN, SamplingVector
from backplane_core.watermark import is_green

VECTORS = sampling_vectors.load()
UNTIED = [case for case in VECTORS.cases if not case.ties]


def named(cases: list[SamplingVector]):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def kept_ids(case: SamplingVector, logits: dict[int, float], params: SamplingParams) -> list[int]:
    processed = sampling_reference.process_logits(
        logits, params, case.prompt, case.output, masked=case.masked
    )
    return list(sampling_reference.distribution(processed, params))


def test_the_file_is_what_the_reference_computes() -> None:
    built = sampling_vectors.build()
    assert built.seeds == VECTORS.seeds
    assert built.greens == VECTORS.greens
    for case, stored in zip(built.cases, VECTORS.cases, strict=True):
        assert msgspec.structs.replace(case, kept=[], logprobs=[]) == msgspec.structs.replace(
            stored, kept=[], logprobs=[]
        )
        # Last digits of exp and log may differ between C libraries.
        assert [one.token_id for one in case.kept] == [one.token_id for one in stored.kept]
        shares = [one.probability for one in stored.kept]
        assert [one.probability for one in case.kept] == pytest.approx(shares, abs=1e-12)
        assert case.logprobs == pytest.approx(stored.logprobs, abs=1e-12)


def test_writing_gives_a_file_that_reads_back(tmp_path) -> None:
    sampling_vectors.write(tmp_path / "vectors.json")
    data = (tmp_path / "vectors.json").read_bytes()
    assert msgspec.json.decode(data, type=sampling_vectors.VectorFile) == sampling_vectors.build()


def test_seed_vectors_are_the_contracts() -> None:
    for vector in VECTORS.seeds:
        assert sequence_seed(vector.seed, vector.index) == vector.sequence_seed
        numbers = [uniform(vector.sequence_seed, place) for place in range(len(vector.numbers))]
        assert numbers == vector.numbers


def test_green_vectors_are_the_contracts() -> None:
    for vector in VECTORS.greens:
        ids = range(vector.num_tokens)
        green = [one for one in ids if is_green(vector.previous, one, vector.gamma)]
        assert green == vector.ids


def test_every_parameter_changes_some_case() -> None:
    used = {name for case in VECTORS.cases for name in msgspec.to_builtins(case.params)}
    assert used == set(SamplingParams.__struct_fields__) - {"seed"}


@named(VECTORS.cases)
def test_kept_probabilities_sum_to_one_in_ascending_ids(case: SamplingVector) -> None:
    ids = [one.token_id for one in case.kept]
    assert ids == sorted(set(ids))
    assert sum(one.probability for one in case.kept) == pytest.approx(1.0)
    assert not set(ids) & set(case.masked)


@named(UNTIED)
def test_rounding_changes_no_kept_set(case: SamplingVector) -> None:
    rng = random.Random(1)  # noqa: S311 - noise, the same on every run
    expected = [one.token_id for one in case.kept]
    for _ in range(20):
        noisy = {
            token_id: logit + rng.uniform(-1e-4, 1e-4) for token_id, logit in enumerate(case.logits)
        }
        assert kept_ids(case, noisy, case.params) == expected


@named([case for case in UNTIED if not case.params.greedy])
def test_thresholds_are_no_closer_than_the_margin(case: SamplingVector) -> None:
    exact = dict(enumerate(case.logits))
    expected = [one.token_id for one in case.kept]
    params = case.params
    for sign in (-1, 1):
        for name in ("top_p", "typical_p"):
            value = getattr(params, name)
            if value < 1.0:
                moved = msgspec.structs.replace(params, **{name: value + sign * CUT_MARGIN})
                assert kept_ids(case, exact, moved) == expected
        if 0.0 < params.min_p < 1.0:
            moved = msgspec.structs.replace(params, min_p=params.min_p * (1 + sign * CUT_MARGIN))
            assert kept_ids(case, exact, moved) == expected


@named(VECTORS.cases)
def test_draws_keep_off_the_boundaries(case: SamplingVector) -> None:
    assert bool(case.draws) is not case.params.greedy
    for draw in case.draws:
        cumulative = 0.0
        for one in case.kept:
            assert abs(draw.number - cumulative) > DRAW_MARGIN
            if cumulative <= draw.number < cumulative + one.probability:
                assert draw.token_id == one.token_id
            cumulative += one.probability


def by_name(name: str) -> list[int]:
    return [one.token_id for case in VECTORS.cases if case.name == name for one in case.kept]


def test_cases_worked_out_by_hand() -> None:
    assert by_name("greedy") == [9]
    assert by_name("greedy with logit bias") == [5]  # -3.1 + 7 beats 3.4
    assert by_name("greedy with repetition penalty") == [7]  # 9, 2 and 4 are seen, halved
    assert by_name("top_k 4") == [2, 4, 7, 9]
    assert by_name("end tokens masked, greedy") == [2]
    assert by_name("tied, greedy") == [1]
    assert by_name("tied, top_k 2") == [1, 2]
    assert by_name("tied, top_p 0.3") == [1, 2]  # four tied hold just under 0.21 each


def test_draw_gives_the_last_what_rounding_leaves() -> None:
    assert sampling_reference.draw({4: 0.3, 7: 0.7 - 1e-9}, 1.0 - 2**-53) == 7


def test_a_grammar_lets_only_its_ids_through() -> None:
    logits = {0: 5.0, 1: 1.0, 2: 0.0}
    params = SamplingParams(temperature=0.0)
    assert sampling_reference.sample(logits, params, [0], [], seed=1, allowed={1, 2}) == 1
