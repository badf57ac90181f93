"""`InFlight` beside a model of plain sets: who gets which part of a step, what is over."""

from backplane_core.errors import ErrorInfo, GenerationError, OverloadedError
from backplane_core.messages import (
    Failed,
    PromptLogprobs,
    SequenceDelta,
    StepOutput,
    Submit,
    TokenSegment,
)
from backplane_core.sampling import StoppingParams
from backplane_core.worker.in_flight import InFlight
from hypothesis import given, settings
from hypothesis import strategies as st

MAX_SEQUENCES = 9
ERROR = ErrorInfo.of(GenerationError("told to fail"))


class Model:
    """Open sequences as pairs (request id, index), and whose each request is."""

    def __init__(self) -> None:
        self.in_flight: InFlight[str] = InFlight(MAX_SEQUENCES)
        self.open: set[tuple[str, int]] = set()
        self.owners: dict[str, str] = {}

    def add(self, number: int, owner: str, num_sequences: int) -> None:
        name = f"r{number}"
        if any(name == one for one, _ in self.open):
            return
        request = Submit(
            request_id=name,
            prompt=[TokenSegment(token_ids=[1])],
            stopping=StoppingParams(max_new_tokens=5),
            num_sequences=num_sequences,
        )
        fits = len(self.open) + num_sequences <= MAX_SEQUENCES
        try:
            self.in_flight.add(request, owner)
        except OverloadedError:
            assert not fits
        else:
            assert fits
            self.owners[name] = owner
            self.open |= {(name, index) for index in range(num_sequences)}

    def finish(self, number: int, index: int | None) -> None:
        gone = {one for one in self.open if one[0] == f"r{number}" and index in {None, one[1]}}
        assert self.in_flight.finish(f"r{number}", index) == bool(gone)
        self.open -= gone

    def step(self, sequences: list[tuple[int, int, bool]], failing: set[int]) -> None:
        """One delta per sequence, late ones among them; then failures."""
        deltas = [
            SequenceDelta(f"r{number}", index, [5], finish_reason="eos" if ends else None)
            for number, index, ends in sequences
        ]
        chunks = [
            PromptLogprobs(request_id=f"r{number}", start=0, token_ids=[1], logprobs=[None])
            for number, _, _ in sequences
        ]
        failures = [Failed(request_id=f"r{number}", error=ERROR) for number in sorted(failing)]
        names = {name for name, _ in self.open}
        expected: dict[str, tuple[list[object], list[object], list[object]]] = {}

        def share(name: str) -> tuple[list[object], list[object], list[object]]:
            return expected.setdefault(self.owners[name], ([], [], []))

        for chunk in chunks:
            if chunk.request_id in names:
                share(chunk.request_id)[2].append(chunk)
        for delta in deltas:
            if (delta.request_id, delta.index) in self.open:
                share(delta.request_id)[0].append(delta)
                if delta.finish_reason:
                    self.open.discard((delta.request_id, delta.index))
        for failed in failures:
            if any(name == failed.request_id for name, _ in self.open):
                share(failed.request_id)[1].append(failed)
                self.open = {one for one in self.open if one[0] != failed.request_id}
        output = StepOutput(deltas=deltas, failures=failures, prompt_logprobs=chunks)
        routed = {
            owner: (list(part.deltas), list(part.failures), list(part.prompt_logprobs))
            for owner, part in self.in_flight.route(output)
        }
        assert routed == expected

    def check(self) -> None:
        assert self.in_flight.num_sequences == len(self.open)
        names = {name for name, _ in self.open}
        assert len(self.in_flight) == len(names)
        for name in names:
            assert self.in_flight.owner(name) == self.owners[name]


numbers = st.integers(0, 5)
sequences = st.tuples(numbers, st.integers(0, 2), st.booleans())


@settings(derandomize=True, database=None, deadline=None, max_examples=400)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("add"), numbers, st.sampled_from(["one", "two"]), st.sampled_from([1, 1, 3])
            ),
            st.tuples(st.just("finish"), numbers, st.sampled_from([None, 0, 1])),
            st.tuples(
                st.just("step"), st.lists(sequences, max_size=8), st.sets(numbers, max_size=1)
            ),
        ),
        min_size=5,
        max_size=30,
    )
)
def test_each_server_gets_its_own_and_nothing_late(events):
    model = Model()
    for name, *arguments in events:
        getattr(model, name)(*arguments)
        model.check()


def test_who_is_gone_gets_nothing_and_leaves_what_is_to_be_finished():
    model = Model()
    model.add(0, "one", 2)
    model.add(1, "two", 1)
    assert model.in_flight.disown("one") == ["r0"]
    output = StepOutput(deltas=[SequenceDelta("r0", 0, [5]), SequenceDelta("r1", 0, [6])])
    assert [owner for owner, _ in model.in_flight.route(output)] == ["two"]
    assert model.in_flight.finish("r0")
    assert model.in_flight.num_sequences == 1
