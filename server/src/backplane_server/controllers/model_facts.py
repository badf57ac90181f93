"""`GET /info` and `GET /v1/models`: what is served and within which limits."""

from typing import Literal

import msgspec
from backplane_core.version import __version__
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.types import ASGIApp

from backplane_server.dialects.native_types import Info
from backplane_server.services.services import Services
from backplane_server.web.responses import Answer


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the list."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


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
        )
        return Answer(msgspec.json.encode(facts))

    @get("/v1/models")
    async def models(self, services: NamedDependency[Services]) -> ASGIApp:
        """The one model that is served."""
        name = services.settings.served_model_name or services.settings.model_id
        entry = ModelEntry(id=name, owned_by=services.settings.model_id)
        return Answer(msgspec.json.encode(ModelsInfo(data=[entry])))
