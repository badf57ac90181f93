"""Models loaded one after the other, and what their tests found out, of which a page is made."""

from collections.abc import Iterator

import pytest

from tests.torch.models.architectures import CASES, IN_EVERY_RUN
from tests.torch.models.proof import Proof, Trial
from tests.torch.models.served_model import ServedModel


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-page", action="store_true", help="write docs/models.md from what this run shows"
    )


@pytest.fixture(scope="session")
def proofs() -> dict[str, Proof]:
    """By the name of a case, as far as its tests have come."""
    return {}


@pytest.fixture(scope="session")
def trials() -> dict[str, Trial]:
    """Of other classes, by name."""
    return {}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            case,
            id=case.name,
            marks=() if case.name in IN_EVERY_RUN else pytest.mark.models,
        )
        for case in CASES
    ],
)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    proofs: dict[str, Proof],
) -> Iterator[ServedModel]:
    model = ServedModel(request.param, tmp_path_factory.mktemp("model"))
    proofs[request.param.name] = Proof.of(model)
    yield model
    model.close()
