"""`GET /info`, `/v1/models` and `/v1/models/{id}`: what is served and within which limits."""

from typing import Final, Literal

import msgspec
from backplane_core.version import __version__
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.types import ASGIApp
from msgspec import UNSET, UnsetType

from backplane_server.dialects.native_types import Info
from backplane_server.errors import ModelNotFoundError
from backplane_server.services.services import Services
from backplane_server.web.direct_routes import AnyRequest
from backplane_server.web.responses import Answer

_MAX_NAME_CHARS: Final = 200


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the list. Adapters name the model that they change.

    `created` is when this server got to know the model, Unix seconds; 0 before.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str | UnsetType = UNSET
    parent: str | UnsetType = UNSET


class ModelsInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ModelFactsController(Controller):
    """Facts that do not change while a model is served."""

    @get("/info")
    async def info(self, services: NamedDependency[Services]) -> ASGIApp:
        """TGI's facts about the model and the limits; 503 until a worker told them."""
        settings = services.settings
        model = services.generation.known_model or services.generation.model
        facts = Info(
            model_id=model.info.model.model_id,
            model_sha=model.info.model.sha,
            model_pipeline_tag=model.pipeline_tag,
            max_concurrent_requests=settings.max_concurrent_requests,
            max_best_of=settings.max_best_of,
            max_stop_sequences=settings.max_stop_sequences,
            max_input_tokens=model.info.limits.max_input_tokens,
            max_total_tokens=model.info.limits.max_total_tokens,
            validation_workers=settings.validation_workers,
            max_client_batch_size=settings.max_client_batch_size,
            router="text-generation-router",  # what clients of TGI look for
            version=__version__,
            sha=None,  # of a build from a git checkout, as TGI has it; ours are of a version
            docker_label=settings.docker_label,
            backend=model.info.model.backend,
            backend_version=model.info.model.backend_version,
            device=model.info.model.device,
            architecture=model.info.model.architecture,
            dtype=model.info.model.dtype,
            quantization=model.info.model.quantization,
            detail=model.info.model.detail,
        )
        return Answer(msgspec.json.encode(facts))

    @get("/v1/models")
    async def models(self, services: NamedDependency[Services]) -> ASGIApp:
        """The model that is served, and its adapters."""
        return Answer(msgspec.json.encode(ModelsInfo(data=_entries(services))))

    @get("/v1/models/{model:path}")
    async def model(self, request: AnyRequest, services: NamedDependency[Services]) -> ASGIApp:
        """One of them. Its name may hold slashes, written as they are or escaped."""
        name = request.scope["path"].removeprefix("/v1/models/").removesuffix("/")
        for entry in _entries(services):
            if name == entry.id or (name == entry.owned_by and entry.parent is UNSET):
                return Answer(msgspec.json.encode(entry))
        raise ModelNotFoundError(
            f"there is no model {name[:_MAX_NAME_CHARS]!r}",
            parameter="model",
            remedy="GET /v1/models lists those that are served",
        )


def _entries(services: Services) -> list[ModelEntry]:
    settings = services.settings
    known = services.generation.known_model
    name = settings.served_model_name or settings.model_id
    created = 0 if known is None else known.created
    adapters = () if known is None else sorted(known.adapters)
    owner = settings.model_id
    return [
        ModelEntry(id=name, created=created, owned_by=owner),
        *(
            ModelEntry(id=adapter, created=created, owned_by=owner, root=owner, parent=name)
            for adapter in adapters
        ),
    ]
