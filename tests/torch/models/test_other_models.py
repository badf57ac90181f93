"""Classes of transformers that nobody has picked: shrunk by rule and tried, whatever comes of it.

Whatever path a class takes, or does not, its tokens must not be others than those of transformers.
"""

import dataclasses
from pathlib import Path

import pytest
from backplane_core.errors import ModelError
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from tests.torch.models.known_models import PUBLISHED
from tests.torch.models.proof import NOT_TRIED, REFUSED, Trial
from tests.torch.models.served_model import MIN_GAP, ServedModel, prompt_of, reference
from tests.torch.models.shrinking import NotShrunkError, shrunk
from tests.torch.models.tiny_checkpoint import Case, make_model

_LENGTHS = (5, 37, 17)
_NUM_TOKENS = 24
_SEEDS = 6

# A type that is an encoder and a decoder may have a class for its decoder alone as well: not that.
_NAMES = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES | MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
TYPES = {name: model_type for model_type, name in _NAMES.items() if name not in PUBLISHED}

pytestmark = pytest.mark.models


@pytest.mark.parametrize("name", TYPES)
def test_whatever_is_served_answers_as_transformers_does(
    name: str, tmp_path: Path, trials: dict[str, Trial]
) -> None:
    try:
        case = shrunk(TYPES[name])
        prompts = [prompt_of(length, number) for number, length in enumerate(_LENGTHS)]
        case, expected = _decided(case, prompts)
    except NotShrunkError as error:
        trials[name] = Trial(NOT_TRIED, str(error))
        return
    try:
        served = ServedModel(case, tmp_path)
    except ModelError as error:
        reason = error.message.replace(str(tmp_path), "it").replace(name, "it")
        reason = reason.replace(f" ({TYPES[name]})", "")
        trials[name] = Trial(REFUSED, reason)
        return
    answers = served.answer([served.request(prompt, _NUM_TOKENS) for prompt in prompts])
    assert [answer.token_ids for [answer] in answers] == expected
    path, _, why = served.runner.info.model.detail["cache"].partition(": ")
    trials[name] = Trial(path, why)
    served.close()


def _decided(case: Case, prompts: list[list[int]]) -> tuple[Case, list[list[int]]]:
    """With a seed under which no two tokens are as likely, and what transformers says.

    Raises:
        NotShrunkError: transformers itself does not compute it, or there is no such seed.
    """
    for seed in range(_SEEDS):
        seeded = dataclasses.replace(case, seed=seed)
        try:
            model = make_model(seeded)
            found = [reference(model, prompt, _NUM_TOKENS) for prompt in prompts]
        except Exception as error:  # as many ways as there are classes
            raise NotShrunkError("transformers does not generate with it so small") from error
        if min(gap for _, gap in found) > MIN_GAP:
            return seeded, [token_ids for token_ids, _ in found]
    raise NotShrunkError("its likeliest tokens are as likely as others")
