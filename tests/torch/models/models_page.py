"""docs/models.md, made of what a run of the model tests has shown."""

from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from backplane_torch import architectures

from tests.torch.models.known_models import PUBLISHED
from tests.torch.models.proof import NOT_TRIED, OWN_CACHE, PAGED, REFUSED, Proof, Trial

PAGE: Final = Path(__file__).parents[3] / "docs" / "models.md"

_HEAD: Final = """\
# Models of the torch backend

Made by `make test-models ARGS=--write-page` of what that run showed: do not edit it.

{versions}

`--backend torch` serves models of Hugging Face transformers. It knows none of them by name: a
model is loaded by its class in transformers, run once over a few tokens, and what its layers
asked for then decides its path, which the log says and `/info` shows as `path`.

- **Paged**: where every layer attends through transformers' attention interface, keys and values
  lie in blocks that sequences share, all sequences of a step are computed in one pass, and layers
  that see a window give up what lies behind it.
- **Own cache**: the rest. Sequences live in caches of transformers, and a step takes a pass
  for each group of equally long ones; it is slower, and prefixes are found less often.

Every class below was made small, with random weights, loaded from files and asked in float32 for
several continuations at once: prompts of different lengths, in chunks, with too little memory for
all of them, so that some had to be computed again. The tokens were those of transformers'
`generate` for each prompt alone, without an exception. The columns beside are what was seen at
work:

- *prefixes*: of a prompt that begins like an earlier one, the beginning is not computed again;
- *follow-ups*: of a prompt that goes on after an earlier answer, neither is computed again;
- *n*: several continuations of a prompt, each what a request of its own would give;
- *prompt logprobs*: logprobs of a prompt's tokens, those of transformers;
- *grammars*: answers held to a grammar.
"""

_NOTES: Final = """\
What is missing, and why:

- Where there are no *prefixes*: a cache of one's own cannot be shared, so what an earlier
  sequence left serves one that begins with it, shortened if need be. States of Mamba's kind and
  windows cannot be shortened, so there only a prompt that goes on where the earlier sequence
  ended finds something.
- Encoders compute a prompt as one piece, each token in the sight of all: nothing of it serves
  another prompt, its tokens have no logprobs, and its chunks wait for the last one.
- Rotary positions that change with a text's length ("dynamic", LongRoPE) are those of the longest
  text that is served (`--max-total-tokens`) for every text: keys stay in the cache as they were
  turned. A shorter limit that needs no stretching gives the short texts' positions back.
"""

_TRIED: Final = """\
## Tried besides

The other classes of transformers that continue text: the config that each has by default, made
small by rule, with random weights, and asked for several continuations at once. None that was
served gave other tokens than transformers; more is not known of them.
"""

_FEATURES: Final[dict[str, Callable[[Proof], bool]]] = {
    "prefixes": lambda proof: proof.shares_prefixes,
    "follow-ups": lambda proof: proof.continues,
    "n": lambda proof: proof.forks,
    "prompt logprobs": lambda proof: proof.scores_prompts,
    "grammars": lambda proof: proof.guided,
}


_OUTCOMES: Final = {
    PAGED: "**Paged**",
    OWN_CACHE: "**With an own cache**",
    REFUSED: "**Refused when loaded**, with the reason",
    NOT_TRIED: "**Not tried**: no small model of the class is made by rule",
}


def page_of(proofs: Iterable[Proof], trials: Mapping[str, Trial]) -> str:
    """The whole page. A class has what all its cases have."""
    by_class: dict[str, list[Proof]] = {}
    for proof in proofs:
        by_class.setdefault(proof.architecture, []).append(proof)
    classes = [by_class[name] for name in sorted(by_class, key=str.casefold)]
    paged = [cases for cases in classes if cases[0].is_paged]
    others = [cases for cases in classes if not cases[0].is_paged]
    parts = [
        _HEAD.format(versions=versions()),
        "## Paged\n",
        _table("layers see", _windows, paged),
        "## With an own cache\n",
        _table("why", lambda case: case.path.partition(": ")[2], others),
        _NOTES,
        _TRIED,
        _trials(trials),
        "## Not served\n",
        "\n".join(f"- `{name}`: {reason}." for name, reason in architectures.UNSUPPORTED.items()),
    ]
    return "\n".join(parts) + "\n"


def _trials(trials: Mapping[str, Trial]) -> str:
    """Classes by what became of them, and why."""
    names_by: dict[Trial, list[str]] = {}
    for name, trial in trials.items():
        names_by.setdefault(trial, []).append(name)
    lines: list[str] = []
    for outcome, told in _OUTCOMES.items():
        found = {trial.why: names for trial, names in names_by.items() if trial.outcome == outcome}
        lines.append(f"{told}: {sum(map(len, found.values()))}\n")
        for why in sorted(found):
            listed = ", ".join(f"`{name}`" for name in sorted(found[why], key=str.casefold))
            lines.append(f"- {why}: {listed}" if why else f"- {listed}")
        lines.append("")
    return "\n".join(lines)


def versions() -> str:
    """What computes here, as a line of the page."""
    names = ("transformers", "torch")
    told = " and ".join(f"{name} {metadata.version(name).partition('+')[0]}" for name in names)
    return f"It is of {told}."


def named_classes(page: str) -> list[str]:
    """The classes that a page's tables are about."""
    rows = (line for line in page.splitlines() if line.startswith("| `"))
    return [row.split("`")[1] for row in rows]


def _table(column: str, tell: Callable[[Proof], str], classes: Iterable[list[Proof]]) -> str:
    columns = ["class", "models", "as", column, *_FEATURES]
    rows = [columns, ["---"] * len(columns)]
    for cases in classes:
        assert all(case.batched for case in cases)
        name = cases[0].architecture
        rows.append(
            [
                f"`{name}`",
                PUBLISHED[name],
                "; ".join(case.case.variant or "plain" for case in cases),
                "; ".join(dict.fromkeys(map(tell, cases))),
                *("yes" if all(map(seen, cases)) else "no" for seen in _FEATURES.values()),
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _windows(proof: Proof) -> str:
    if None not in proof.windows:
        return "a window"
    return "all" if len(proof.windows) == 1 else "a window or all"
