"""Rows of logits: in the order of positions, one where a position is both scored and sampled."""

from backplane_core.batching.executor import ScheduledSequence
from backplane_core.batching.logit_rows import assign_logit_rows, logit_offsets, num_logit_rows
from backplane_core.batching.sequence import Sequence
from backplane_core.messages import Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from hypothesis import given
from hypothesis import strategies as st


def share(seq_id: int, start: int, num_tokens: int, scored: range, *, sample: bool):
    token_ids = list(range(start + num_tokens))
    request = Submit(
        request_id=str(seq_id),
        prompt=[TokenSegment(token_ids=token_ids)],
        sampling=SamplingParams(),
        stopping=StoppingParams(max_new_tokens=1),
    )
    sequence = Sequence(
        request=request,
        index=0,
        token_ids=token_ids,
        num_prompt_tokens=len(token_ids),
        eos_token_ids=frozenset(),
    )
    return ScheduledSequence(
        seq_id=seq_id,
        sequence=sequence,
        start=start,
        token_ids=token_ids[start:],
        sample=sample,
        scored_positions=scored,
    )


@st.composite
def shares(draw):
    made = []
    for seq_id in range(draw(st.integers(0, 5))):
        start, num_tokens = draw(st.integers(0, 9)), draw(st.integers(1, 6))
        begin = draw(st.integers(start, start + num_tokens))
        scored = range(begin, draw(st.integers(begin, start + num_tokens)))
        made.append(share(seq_id, start, num_tokens, scored, sample=draw(st.booleans())))
    return made


@given(sequences=shares())
def test_rows_are_those_of_wanted_positions_in_their_order(sequences):
    expected = [
        (one.seq_id, position)
        for one in sequences
        for position in range(one.start, one.start + len(one.token_ids))
        if position in one.scored_positions
        or (one.sample and position == one.start + len(one.token_ids) - 1)
    ]
    found = [(one.seq_id, one.start + offset) for one in sequences for offset in logit_offsets(one)]
    assert found == expected
    assert [num_logit_rows(one) for one in sequences] == [
        len(logit_offsets(one)) for one in sequences
    ]
    rows = assign_logit_rows(sequences)
    lasts = [(one.seq_id, one.start + len(one.token_ids) - 1) for one in sequences if one.sample]
    assert [expected[row] for row in rows.sampled] == lasts
    for one, begin in rows.scored:
        positions = [(one.seq_id, position) for position in one.scored_positions]
        assert expected[begin : begin + len(positions)] == positions
    assert [one for one, _ in rows.scored] == [one for one in sequences if one.scored_positions]
