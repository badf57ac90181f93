"""docs/models.md says what the model tests show, no more and no less."""

import pytest
from backplane_torch import architectures
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from tests.torch.models.architectures import CASES, OWN_CACHE, PAGED
from tests.torch.models.known_models import PUBLISHED
from tests.torch.models.models_page import PAGE, named_classes, page_of, versions
from tests.torch.models.proof import Proof, Trial
from tests.torch.models.test_other_models import TYPES
from tests.torch.models.tiny_checkpoint import Case


def classes_of(cases: list[Case]) -> set[str]:
    names: set[str] = set()
    for case in cases:
        config = AutoConfig.for_model(case.model_type, **case.config)
        mapping = (
            MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
            if config.is_encoder_decoder
            else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        )
        names.add(mapping[case.model_type])
    return names


@pytest.mark.models
def test_the_page_is_what_the_run_shows(
    request: pytest.FixtureRequest, proofs: dict[str, Proof], trials: dict[str, Trial]
) -> None:
    missing = {case.name for case in CASES} - proofs.keys() | TYPES.keys() - trials.keys()
    if missing:
        pytest.skip(f"{len(missing)} architectures were not asked, or gave no answer")
    for case in CASES:
        assert proofs[case.name].is_paged is (case in PAGED), proofs[case.name].path
    page = page_of(proofs.values(), trials)
    if request.config.getoption("--write-page"):
        PAGE.write_text(page, encoding="utf-8")
    shown = PAGE.read_text(encoding="utf-8")
    if versions() not in shown:
        pytest.skip("docs/models.md was made with other versions")
    assert shown == page, "make test-models ARGS=--write-page writes docs/models.md anew"


def test_the_backend_names_the_paths_of_the_tested_architectures() -> None:
    assert classes_of(PAGED) == architectures.PAGED
    assert classes_of(OWN_CACHE) == architectures.OWN_CACHE
    assert classes_of(CASES) == PUBLISHED.keys()


def test_the_page_names_the_tested_architectures() -> None:
    named = named_classes(PAGE.read_text(encoding="utf-8"))
    assert len(named) == len(set(named))
    assert set(named) == classes_of(CASES)
