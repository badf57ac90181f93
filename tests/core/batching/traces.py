"""Random arrivals, cancels, forks and failures to play to an engine, and what must come of them."""

import dataclasses
import itertools
from collections import Counter

from backplane_core.errors import GenerationError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.core.batching.harness import Engine


@dataclasses.dataclass(frozen=True)
class Arrival:
    """A request; prompts are drawn from three texts, so that they share prefixes."""

    text: int
    num_prompt_tokens: int
    max_new_tokens: int
    num_sequences: int
    priority: int
    ignore_eos: bool
    stop_token_ids: tuple[int, ...]
    adapter: str | None
    salt: str | None

    @property
    def prompt(self):
        # Texts 1 and 2 part after 13 tokens, in the middle of a block.
        common = [1 + (7 * index) % 50 for index in range(13)]
        return [*common, *[self.text + 3 * index % 40 for index in range(30)]][
            : self.num_prompt_tokens
        ]


arrivals = st.builds(
    Arrival,
    text=st.integers(1, 3),
    num_prompt_tokens=st.integers(1, 43),
    max_new_tokens=st.integers(1, 18),
    num_sequences=st.sampled_from([1, 1, 1, 2, 4]),
    priority=st.sampled_from([0, 0, 0, 1, -1]),
    ignore_eos=st.booleans(),
    stop_token_ids=st.sampled_from([(), (5, 17, 40, 63)]),
    adapter=st.sampled_from([None, "a", "b", "c"]),
    salt=st.sampled_from([None, None, "x"]),
)
events = st.one_of(
    arrivals,
    arrivals,
    st.tuples(st.just("follow up"), st.integers(0, 4), st.integers(1, 9)),
    st.integers(1, 6),  # so many steps
    st.integers(1, 6),
    st.tuples(st.just("cancel"), st.integers(0, 9), st.sampled_from([None, 0, 1])),
    st.tuples(st.just("out of memory"), st.integers(1, 7)),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.integers(1, 30)),
)

# Arrivals with no step between them, which begin with at least 34 equal tokens.
bursts = st.integers(1, 3).flatmap(
    lambda text: st.lists(
        st.builds(
            Arrival,
            text=st.just(text),
            num_prompt_tokens=st.integers(34, 43),
            max_new_tokens=st.integers(1, 5),
            num_sequences=st.sampled_from([1, 1, 1, 2]),
            priority=st.sampled_from([0, 0, 0, 1]),
            ignore_eos=st.just(value=True),
            stop_token_ids=st.just(()),
            adapter=st.sampled_from([None, None, "a"]),
            salt=st.none(),
        ),
        min_size=2,
        max_size=5,
    )
)
# No sequence of a trace is longer.
MAX_TOKENS = 60

traces = st.lists(events, min_size=15, max_size=50)
traces_with_bursts = st.lists(
    st.one_of(bursts, events.map(lambda event: [event])), min_size=15, max_size=50
).map(lambda parts: list(itertools.chain(*parts)))


def play(engine: Engine, trace) -> set[str]:
    """Play a trace; the requests that were cancelled or told to fail, all or in part."""
    spoilt: set[str] = set()
    names: list[str] = []
    for event in trace:
        match event:
            case Arrival():
                names.append(f"r{len(names)}")
                engine.submit(
                    names[-1],
                    event.prompt,
                    event.max_new_tokens,
                    num_sequences=event.num_sequences,
                    priority=event.priority,
                    ignore_eos=event.ignore_eos,
                    stop_token_ids=event.stop_token_ids,
                    adapter=event.adapter if engine.traits.adapters_per_batch else None,
                    cache_salt=event.salt,
                    seed=event.text,
                )
            case ("follow up", back, num_more) if names:
                before = engine.requests[names[-1 - back % len(names)]]
                output = engine.answer(before.request_id).token_ids
                names.append(f"r{len(names)}")
                engine.submit(
                    names[-1],
                    [*before.prompt_token_ids, *output, *range(3, 3 + num_more)][:50],
                    num_more,
                    adapter=before.adapter,
                    cache_salt=before.cache_salt,
                )
            case int():
                for _ in range(event):
                    engine.step()
            case ("cancel", back, index) if names:
                engine.cancel(names[-1 - back % len(names)], index)
                spoilt.add(names[-1 - back % len(names)])
            case ("out of memory", times):
                engine.executor.out_of_memory = times
            case ("fail", back) if names:
                name = names[-1 - back % len(names)]
                engine.executor.failing[name] = GenerationError("told to fail")
                spoilt.add(name)
            case ("wait", seconds):
                engine.clock.now_s += seconds
            case _:
                pass
    return spoilt


def max_steps(engine: Engine) -> int:
    """With each its turn, the first in rank gains a token; nobody may make that longer."""
    num_tokens = sum(
        request.num_sequences * (len(request.prompt_token_ids) + request.stopping.max_new_tokens)
        for request in engine.requests.values()
    )
    return 10 + 8 * num_tokens


def check_played(engine: Engine, spoilt: set[str]) -> Counter[str]:
    """Everybody finished as when alone, and the counters add up; how often what happened."""
    engine.check_alone()
    for name, request in engine.requests.items():
        if name in spoilt:
            continue
        if name in engine.errors:
            assert engine.errors[name].code == "out_of_memory"
            continue
        for index in range(request.num_sequences):
            assert engine.answer(name, index).finish_reason in {"eos", "length", "stop_token"}
    stats = engine.runner.stats()
    assert stats.used_tokens == 0
    if not stats.num_preemptions:
        num_computed = stats.num_prompt_tokens - stats.num_cached_tokens
        assert stats.num_prefilled_tokens <= num_computed
        if not spoilt and not engine.errors:
            assert stats.num_prefilled_tokens == num_computed
    return Counter(
        {
            "preempted": stats.num_preemptions,
            "cached": stats.num_cached_tokens,
            "cancelled": stats.num_cancelled,
            "finished": stats.num_finished,
            "out of memory": len(engine.errors.keys() - spoilt),
        }
    )


def over(strategy: st.SearchStrategy, max_examples: int):
    """Run a check over such traces, the same ones each time."""

    def decorate(check):
        tuned = settings(
            max_examples=max_examples,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        return tuned(given(trace=strategy)(check))

    return decorate
