"""The sampling semantics as data: inputs, kept candidates, draws and logprobs.

Every runner is held to `sampling_vectors.json`. `python -m backplane_core.testing.sampling_vectors`
writes it anew from the reference; a test compares the two.
"""

from importlib.resources import files
from pathlib import Path

import msgspec

from backplane_core.sampling import SamplingParams, Watermark, sequence_seed, uniform
from backplane_core.testing import sampling_reference
from backplane_core.watermark import green_ids

FILE_NAME = "sampling_vectors.json"
DRAW_MARGIN = 1e-3
CUT_MARGIN = 1e-3
_NUM_DRAWS = 6


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """The token drawn under a seed, at the position after the history; `number` is its uniform."""

    seed: int
    number: float
    token_id: int


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A token that was kept, and its probability."""

    token_id: int
    probability: float


class SamplingVector(msgspec.Struct, frozen=True, kw_only=True):
    """One case.

    Attributes:
        name: says what it is about.
        logits: the model's, by token id.
        prompt, output: token ids so far; the draw's position is their length together.
        params: the seed in it is not used; `draws` bring their own.
        masked: ids that may not come (end tokens before `min_new_tokens`).
        kept: what the processors leave, ascending ids, probabilities summing to 1.
        logprobs: of every token, from the model's own logits.
        draws: empty where greedy; each lies at least `DRAW_MARGIN` from a boundary, so that
            arithmetic in 32 bits draws the same.
        ties: equal logits decide; an engine whose sort is not stable may differ here.
    """

    name: str
    logits: list[float]
    prompt: list[int]
    output: list[int]
    params: SamplingParams
    masked: list[int]
    kept: list[Candidate]
    logprobs: list[float]
    draws: list[Draw]
    ties: bool


class SeedVector(msgspec.Struct, frozen=True, kw_only=True):
    """`sequence_seed(seed, index)` and the numbers its first positions draw with."""

    seed: int
    index: int
    sequence_seed: int
    numbers: list[float]


class GreenVector(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the first `num_tokens` ids are green after `previous`: ascending ids."""

    previous: int
    num_tokens: int
    gamma: float
    ids: list[int]


class VectorFile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the file."""

    seeds: list[SeedVector]
    greens: list[GreenVector]
    cases: list[SamplingVector]


def load() -> VectorFile:
    """The vectors as they are stored in the package."""
    data = files("backplane_core.testing").joinpath(FILE_NAME).read_bytes()
    return msgspec.json.decode(data, type=VectorFile)


# Gaps between logits are uneven, so that no cumulative probability falls on a threshold.
_LOGITS = [1.3, -0.7, 2.9, 0.4, 2.2, -3.1, 0.9, 1.75, -1.6, 3.4, 0.15, -0.25]
_PEAKED = [0.0, 9.0, 1.0, 0.5, -2.0, 0.25, -1.0, 0.75]
_TIED = [1.0, 2.0, 2.0, 0.0, 2.0, 1.0, -1.0, 2.0]
_PROMPT = [9, 4, 4, 11]
_OUTPUT = [2, 9, 9, 0]


def build() -> VectorFile:
    """The vectors, computed from the reference."""
    return VectorFile(
        seeds=[
            _seed(seed, index)
            for seed in (0, 1, 42, 1234567, 2**63, 2**64 - 1)
            for index in (0, 1, 2, 7)
        ],
        greens=[
            _green(previous, gamma) for previous in (0, 1, 258, 128_000) for gamma in (0.25, 0.5)
        ],
        cases=[
            *(_case(name, _LOGITS, params) for name, params in _PLAIN.items()),
            *(
                _case(name, _LOGITS, params, prompt=_PROMPT, output=_OUTPUT)
                for name, params in _WITH_HISTORY.items()
            ),
            _case("end tokens masked", _LOGITS, SamplingParams(), masked=[9, 2]),
            _case("end tokens masked, greedy", _LOGITS, _GREEDY, masked=[9]),
            _case("bias cannot lift what is masked", _LOGITS, _BIASED_END, masked=[9]),
            *(_case(f"peaked, {name}", _PEAKED, params) for name, params in _TRUNCATED.items()),
            *(
                _case(f"tied, {name}", _TIED, params, ties=True)
                for name, params in _ON_TIES.items()
            ),
        ],
    )


_GREEDY = SamplingParams(temperature=0.0)
_BIASED_END = SamplingParams(temperature=0.8, logit_bias={9: 50.0, 3: 1.5})
_TRUNCATED = {
    "top_k": SamplingParams(top_k=3),
    "top_p": SamplingParams(top_p=0.9),
    "min_p": SamplingParams(min_p=0.0003),
    "typical_p": SamplingParams(typical_p=0.6),
}
_PLAIN = {
    "greedy": _GREEDY,
    "greedy ignores truncation": SamplingParams(temperature=0.0, top_k=2, top_p=0.4),
    "temperature 1": SamplingParams(),
    "temperature 0.5": SamplingParams(temperature=0.5),
    "temperature 2": SamplingParams(temperature=2.0),
    "logit bias": SamplingParams(logit_bias={5: 6.0, 9: -100.0, 2: -1.0}),
    "greedy with logit bias": SamplingParams(temperature=0.0, logit_bias={5: 7.0}),
    "top_k 1": SamplingParams(top_k=1),
    "top_k 4": SamplingParams(top_k=4),
    "top_k beyond the vocabulary": SamplingParams(top_k=100),
    "top_p 0.05 keeps one": SamplingParams(top_p=0.05),
    "top_p 0.7": SamplingParams(top_p=0.7),
    "top_p 0.97": SamplingParams(top_p=0.97),
    "min_p 0.2": SamplingParams(min_p=0.2),
    "min_p 1 keeps the best": SamplingParams(min_p=1.0),
    "typical_p 0.3": SamplingParams(typical_p=0.3),
    "typical_p 0.9": SamplingParams(typical_p=0.9),
    "temperature before top_p": SamplingParams(temperature=1.7, top_p=0.6),
    "top_p after top_k is of what is left": SamplingParams(top_k=3, top_p=0.75),
    "min_p after top_p": SamplingParams(top_p=0.95, min_p=0.35),
    "everything but penalties": SamplingParams(
        temperature=0.85, top_k=9, top_p=0.93, min_p=0.03, typical_p=0.88, logit_bias={3: 0.6}
    ),
}
_WITH_HISTORY = {
    "repetition penalty": SamplingParams(repetition_penalty=1.3),
    "repetition penalty below 1": SamplingParams(repetition_penalty=0.8),
    "repetition penalty on negative logits": SamplingParams(
        repetition_penalty=1.5, logit_bias={9: -5.0, 2: -4.0}
    ),
    "greedy with repetition penalty": SamplingParams(temperature=0.0, repetition_penalty=2.0),
    "frequency penalty counts": SamplingParams(frequency_penalty=0.7),
    "presence penalty": SamplingParams(presence_penalty=1.1),
    "negative penalties": SamplingParams(frequency_penalty=-0.4, presence_penalty=-0.3),
    "all penalties, bias first": SamplingParams(
        logit_bias={9: 1.0, 11: 2.0},
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        presence_penalty=0.45,
    ),
    "repetition counts the prompt, the others do not": SamplingParams(
        temperature=0.9, repetition_penalty=1.4, frequency_penalty=0.5, presence_penalty=0.8
    ),
    "watermark": SamplingParams(watermark=Watermark()),
    "watermark, greedy": SamplingParams(temperature=0.0, watermark=Watermark(delta=6.0)),
    "watermark before bias and penalties": SamplingParams(
        watermark=Watermark(gamma=0.25, delta=3.5),
        logit_bias={9: -4.0, 1: 2.5},
        repetition_penalty=1.3,
        presence_penalty=0.4,
        top_p=0.95,
    ),
    "everything": SamplingParams(
        watermark=Watermark(gamma=0.4, delta=1.3),
        logit_bias={7: 0.5, 4: -0.5},
        repetition_penalty=1.15,
        frequency_penalty=0.2,
        presence_penalty=0.1,
        temperature=0.9,
        top_k=8,
        top_p=0.92,
        min_p=0.05,
        typical_p=0.95,
    ),
}
_ON_TIES = {
    "greedy": _GREEDY,
    "top_k 2": SamplingParams(top_k=2),
    "top_p 0.3": SamplingParams(top_p=0.3),
    "typical_p 0.4": SamplingParams(typical_p=0.4),
}


def _case(
    name: str,
    logits: list[float],
    params: SamplingParams,
    *,
    prompt: list[int] | None = None,
    output: list[int] | None = None,
    masked: list[int] | None = None,
    ties: bool = False,
) -> SamplingVector:
    prompt, output, masked = prompt or [3, 1], output or [], masked or []
    by_id = dict(enumerate(logits))
    processed = sampling_reference.process_logits(by_id, params, prompt, output, masked=masked)
    kept = sampling_reference.distribution(processed, params)
    return SamplingVector(
        name=name,
        logits=logits,
        prompt=prompt,
        output=output,
        params=params,
        masked=masked,
        kept=[Candidate(token_id, share) for token_id, share in kept.items()],
        logprobs=list(sampling_reference.log_softmax(by_id).values()),
        draws=[] if params.greedy else _draws(kept, len(prompt) + len(output)),
        ties=ties,
    )


def _draws(kept: dict[int, float], position: int) -> list[Draw]:
    boundaries = [0.0]
    for share in kept.values():
        boundaries.append(boundaries[-1] + share)
    draws: list[Draw] = []
    seed = 0
    while len(draws) < _NUM_DRAWS:
        number = uniform(seed, position)
        if all(abs(number - boundary) > DRAW_MARGIN for boundary in boundaries):
            token_id = sampling_reference.draw(kept, number)
            draws.append(Draw(seed=seed, number=number, token_id=token_id))
        seed += 1
    return draws


def _seed(seed: int, index: int) -> SeedVector:
    own = sequence_seed(seed, index)
    numbers = [uniform(own, position) for position in range(4)]
    return SeedVector(seed=seed, index=index, sequence_seed=own, numbers=numbers)


def _green(previous: int, gamma: float) -> GreenVector:
    ids = green_ids(previous, 64, gamma)
    return GreenVector(previous=previous, num_tokens=64, gamma=gamma, ids=ids)


def write(path: Path) -> None:
    """Compute the vectors and store them at `path`, a line each."""
    vectors = build()
    parts = (
        b'"%s": [\n%s\n]'
        % (name.encode(), b",\n".join(map(msgspec.json.encode, getattr(vectors, name))))
        for name in VectorFile.__struct_fields__
    )
    path.write_bytes(b"{" + b", ".join(parts) + b"}\n")


if __name__ == "__main__":
    write(Path(__file__).with_name(FILE_NAME))
