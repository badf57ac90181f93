"""`Proof` and `Trial`: what the tests have shown, and docs/models.md says."""

import dataclasses
from typing import NamedTuple

from tests.torch.models.served_model import ServedModel
from tests.torch.models.tiny_checkpoint import Case

# What the runner tells of a path, and what else becomes of a class.
PAGED, OWN_CACHE, REFUSED, NOT_TRIED = "paged", "own cache", "refused", "not tried"


@dataclasses.dataclass
class Proof:
    """Facts that the runner tells, and features that a test has seen at work.

    Attributes:
        architecture: the class that was loaded.
        path: "paged", or that it has a cache of its own and why.
        windows: of each group of layers; None sees everything.
        batched: answers were those of transformers, in chunks and after preemptions.
        shares_prefixes: a prompt that begins like another computed that part no more.
        continues: a prompt that goes on after an answer computed neither again.
        forks: several answers to a prompt were those of several requests.
        scores_prompts: logprobs of prompts were those of transformers.
        guided: an answer obeyed a grammar.
    """

    case: Case
    architecture: str
    path: str
    windows: tuple[int | None, ...]
    batched: bool = False
    shares_prefixes: bool = False
    continues: bool = False
    forks: bool = False
    scores_prompts: bool = False
    guided: bool = False

    @classmethod
    def of(cls, served: ServedModel) -> "Proof":
        """What is known before anything is computed."""
        model = served.runner.info.model
        assert model.architecture is not None
        groups = served.runner._executor.traits.block_groups
        return cls(
            case=served.case,
            architecture=model.architecture,
            path=model.detail["cache"],
            windows=tuple(group.window for group in groups),
        )

    @property
    def is_paged(self) -> bool:
        return self.path == PAGED


class Trial(NamedTuple):
    """What became of a class that was shrunk by rule: one of the words above, and why."""

    outcome: str
    why: str
