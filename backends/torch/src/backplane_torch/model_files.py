"""Which files of a repository or folder make a model in Hugging Face's format. Pure: names only."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from backplane_core.backend import ModelSource
from backplane_core.chat_templates import TEMPLATE_FILES
from backplane_core.errors import ModelError

CONFIG: Final = "config.json"
SAFETENSORS: Final = ".safetensors"
PICKLED: Final = ".bin"

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
# Safetensors files that are no model in this format by themselves: Mistral's own format, adapters,
# the state of a training.
_COMPANIONS: Final = re.compile(r"(?i)(consolidated|adapter|lora|optimizer|training)([-_.]|$)")
# Where both are there the first is taken, as transformers does. Pickles are always the second:
# other files called .bin are the state of a training, or another program's.
_PICKLED_STEM: Final = "pytorch_model"
_STEMS: Final = ("model", _PICKLED_STEM)
_BESIDE: Final = frozenset(
    {CONFIG, "generation_config.json", *TEMPLATE_FILES}
    | {"tokenizer.json", "special_tokens_map.json", "added_tokens.json", "tekken.json"}
    | {"vocab.json", "vocab.txt", "merges.txt"}
)
# Vocabularies of SentencePiece (tokenizer.model, spiece.model, …) and tiktoken, and templates.
_BESIDE_SUFFIXES: Final = (".model", ".tiktoken", ".jinja")
_MOST_LISTED: Final = 20


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The files that hold a model's tensors, each once.

    Attributes:
        files: one, or all parts of a split model in order.
        index: the file that says which tensor is in which part, if there is one.
    """

    files: tuple[str, ...]
    index: str | None = None

    @property
    def pickled(self) -> bool:
        """Whether they are pickles (`.bin`), which are read only where the operator allows it."""
        return self.files[0].endswith(PICKLED)


def weights_exist(files: Iterable[str]) -> bool:
    """Whether there is any file that `choose_weights` would look at."""
    files = tuple(files)
    return bool(_candidates(files, SAFETENSORS) or _candidates(files, PICKLED))


def only_pickled(files: Iterable[str]) -> bool:
    """Whether there are weights, but no safetensors among them."""
    files = tuple(files)
    return not _candidates(files, SAFETENSORS) and bool(_candidates(files, PICKLED))


def choose_weights(model_id: str, files: Iterable[str]) -> Weights:
    """The weights among the names of a model's files: safetensors, or else `.bin`, never both.

    Files in subfolders (original/, onnx/) are copies in other formats and not looked at.

    Raises:
        ModelError: there are none, a part is missing, or several sets of files could be meant.
    """
    files = tuple(files)
    for suffix in (SAFETENSORS, PICKLED):
        if not (found := _candidates(files, suffix)):
            continue
        # The usual name goes first, and a whole file before a split one, as in transformers.
        fitting = next((fit for stem in _STEMS if (fit := _called(stem, found))), found)
        if len(fitting) > 1:
            raise ModelError(
                f"{model_id} holds several sets of weights: {_listed(found)}",
                remedy=f"keep one of them, or call the one that is meant model{suffix}",
            )
        return fitting[0].weights(model_id, files, suffix)
    raise ModelError(
        f"{model_id} holds no weights in a format of transformers; it holds: "
        f"{_listed(sorted(files))}",
        remedy="name a model that was published as safetensors",
    )


def parts_of(name: str, files: Iterable[str]) -> Weights:
    """The weights that a single named file belongs to: itself, or all parts where it is one.

    Raises:
        ModelError: it is no file of weights, or a part is missing.
    """
    suffix = PurePosixPath(name).suffix
    if suffix not in (SAFETENSORS, PICKLED):
        raise ModelError(
            f"{name} is no safetensors file", remedy="name a folder, or a .safetensors file in it"
        )
    match = _PART.fullmatch(name.removesuffix(suffix))
    if match is None:
        return Weights(files=(name,))
    stem = re.escape(match["stem"])
    pattern = rf"{stem}-\d{{5}}-of-{match['count']}\{suffix}|{stem}\{suffix}\.index\.json"
    return choose_weights(name, (file for file in files if re.fullmatch(pattern, file)))


def select_files(model: ModelSource) -> tuple[str, ...]:
    """All that is needed of a repository: weights, configuration, tokenizer, templates, code.

    Python files are taken where the configuration refers to them (`auto_map`); whether they are
    run is the operator's choice.

    Raises:
        ModelError: there are no weights, or not all, or a variant of them is asked for.
    """
    for wanted in (model.variant, model.gguf_file):
        if wanted is not None:
            raise ModelError(
                f"{model.model_id}: {wanted} names a GGUF file, and PyTorch reads safetensors",
                remedy="leave it out, or choose --backend llamacpp",
            )
    weights = choose_weights(model.model_id, model.files)
    wants_code = "auto_map" in model.config
    beside = (
        name
        for name in model.files
        if name in _BESIDE
        or (name.endswith(_BESIDE_SUFFIXES) and _is_near(name))
        or (wants_code and name.endswith(".py"))
    )
    index = () if weights.index is None else (weights.index,)
    return (*weights.files, *index, *beside)


@dataclass(frozen=True)
class _Candidate:
    """Files that make a model: `count` parts by number, or one whole file, part 0 of 0."""

    stem: str
    count: int
    parts: dict[int, str] = field(default_factory=dict[int, str])

    def __str__(self) -> str:
        return " … ".join(dict.fromkeys((min(self.parts.values()), max(self.parts.values()))))

    def weights(self, model_id: str, files: tuple[str, ...], suffix: str) -> Weights:
        if not self.count:
            return Weights(files=(self.parts[0],))
        numbers = range(1, self.count + 1)
        if missing := [f"{number}" for number in numbers if number not in self.parts]:
            raise ModelError(
                f"{model_id}: {self.stem}{suffix} is split into {self.count} files, but part "
                f"{_listed(missing)} is missing",
                remedy="put all parts into one folder, or download them again",
            )
        index = f"{self.stem}{suffix}.index.json"
        return Weights(
            files=tuple(self.parts[number] for number in numbers),
            index=index if index in files else None,
        )


def _candidates(files: Iterable[str], suffix: str) -> list[_Candidate]:
    found: dict[tuple[str, int], _Candidate] = {}
    for file in sorted(files):
        name = file.removesuffix(suffix)
        match = _PART.fullmatch(name)
        stem, number, count = match.groups() if match else (name, "0", "0")
        if name == file or "/" in file or _COMPANIONS.match(stem):
            continue
        if suffix == PICKLED and stem != _PICKLED_STEM:
            continue
        candidate = found.setdefault((stem, int(count)), _Candidate(stem, int(count)))
        candidate.parts[int(number)] = file
    return list(found.values())


def _called(stem: str, found: list[_Candidate]) -> list[_Candidate]:
    fitting = [candidate for candidate in found if candidate.stem == stem]
    return [candidate for candidate in fitting if not candidate.count] or fitting


def _is_near(name: str) -> bool:
    """Whether it lies beside the weights, or is one of a model's further templates."""
    return "/" not in name or name.startswith("additional_chat_templates/")


def _listed(names: Iterable[object]) -> str:
    names = [str(name) for name in names]
    more = len(names) - _MOST_LISTED
    text = ", ".join(names[:_MOST_LISTED]) or "nothing"
    return f"{text} and {more} more" if more > 0 else text
