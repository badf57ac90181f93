"""Tokens that a sequence changes one by one: kept up as it grows, whoever had its row before."""

import pytest
import torch
from backplane_core.sampling import SamplingParams
from backplane_core.testing import sampling_reference
from backplane_torch.engine.sampling import token_table
from backplane_torch.engine.sampling.token_table import TokenTable
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling.rows import sequence
from tests.torch.sampling.row_sampler import CPU

VOCABULARY = 40
ids = st.lists(st.integers(-1, VOCABULARY + 3), max_size=30)
params = st.builds(
    SamplingParams,
    logit_bias=st.dictionaries(st.integers(0, VOCABULARY + 5), st.sampled_from([-2.0, 3.0])),
    repetition_penalty=st.sampled_from([0.8, 1.0, 1.6]),
    frequency_penalty=st.sampled_from([-0.3, 0.0, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.4]),
)


@settings(max_examples=150, deadline=None)
@given(
    lives=st.lists(st.tuples(params, ids.filter(bool), st.lists(ids, max_size=4)), max_size=12),
    leaving=st.lists(st.integers(0, 11)),
)
def test_rows_are_changed_as_the_reference_says(lives, leaving):
    with pytest.MonkeyPatch.context() as patch:  # so small that all grows
        patch.setattr(token_table, "_FEWEST_ROWS", 1)
        patch.setattr(token_table, "_FEWEST_PLACES", 1)
        table = TokenTable(VOCABULARY, CPU)
    running = []
    for number, (asked, prompt, steps) in enumerate(lives):
        one = sequence(prompt, [], asked)
        running.append((one, table.add(one)))
        for new in [[], *steps]:
            one.token_ids += new
            logits = torch.randn(len(running) + 1, VOCABULARY)
            before = logits.clone()
            places = list(range(1, len(running) + 1))
            table.apply(logits, places, [row for _, row in running])
            assert torch.equal(logits[0], before[0])
            for (each, _), place in zip(running, places, strict=True):
                expected = sampling_reference.process_logits(
                    dict(enumerate(before[place].tolist())),
                    each.sampling,
                    each.token_ids[: each.num_prompt_tokens],
                    each.token_ids[each.num_prompt_tokens :],
                )
                assert logits[place].tolist() == pytest.approx(list(expected.values()), abs=1e-4)
        if number in leaving:
            table.remove(running.pop(number % len(running))[1])


def test_a_step_brings_only_what_is_new():
    one = sequence(list(range(30)), [3], SamplingParams(frequency_penalty=1.0))
    row = TokenTable(VOCABULARY, CPU).add(one)
    assert len(row.news()) == 30
    assert row.news() == []
    one.token_ids += [3, 35]
    assert row.news() == [[row.index, 3, 3, 2], [row.index, 30, 35, 1]]
