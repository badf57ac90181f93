"""The way of every generation, whatever the dialect: limits, tokens, a worker, its acceptance.

Returns only after a worker has admitted the request, so a refusal still has a status.
"""

import asyncio
import secrets
import time
from typing import Final

import msgspec
from backplane_core.client import WorkerConnection
from backplane_core.control import ServerLaunch
from backplane_core.errors import ValidationError
from backplane_core.messages import RunnerInfo, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.vocabulary import TokenizerFile

from backplane_server.errors import NotReadyError
from backplane_server.metrics.metrics import Metrics
from backplane_server.services.generation import Generation, GenerationTimes
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.readiness import Readiness
from backplane_server.services.request_checks import check_request, fit_to_context
from backplane_server.services.served_model import ServedModel, make_model
from backplane_server.services.worker_pool import WorkerPool
from backplane_server.templates.renderer import TemplateRenderer
from backplane_server.tokenization.file_tokenizer import FileTokenizer
from backplane_server.tokenization.remote_tokenizer import RemoteTokenizer
from backplane_server.tokenization.tokenizer import Tokenizer

_SEED_BITS: Final = 63  # as far as JSON readers with signed 64-bit numbers can hold


class GenerationService:
    """One per server. Owns the worker pool and the model made from its first worker.

    Attributes:
        pool: the workers.
        readiness: what they are doing.
    """

    def __init__(
        self, settings: ServerLaunch, renderer: TemplateRenderer, metrics: Metrics
    ) -> None:
        self.settings: Final = settings
        self.readiness: Final = Readiness()
        self.pool: Final = WorkerPool(settings.server_id, self.readiness, self._connected)
        self._renderer = renderer
        self._metrics = metrics
        self._model: ServedModel | None = None

    @property
    def model(self) -> ServedModel:
        """The model that is served.

        Raises:
            NotReadyError: no worker answers, or the server is shutting down.
        """
        if self._model is None or self.readiness.draining or not self.pool.connections:
            raise NotReadyError(self.readiness.report())
        return self._model

    @property
    def known_model(self) -> ServedModel | None:
        """The model as last seen, also while no worker answers."""
        return self._model

    async def start(self, request: GenerationRequest, *, arrived: float) -> Generation:
        """Have a worker accept a request.

        Args:
            request: what is asked for.
            arrived: when, by `time.monotonic()`.

        Raises:
            ValidationError: outside the limits, or (`UnsupportedError`) the capabilities.
            OverloadedError: the worker has no room.
            NotReadyError, UnavailableError: nobody can answer now.
        """
        model = self.model
        request = request.fitted_to(model.info.capabilities)
        check_request(request, self.settings, model.info)
        token_ids = await self._encode(request, model)
        max_new_tokens = fit_to_context(request, len(token_ids), model.info)
        seed = self._seed(request, model.info)
        connection = self.pool.choose(token_ids)
        submit = _submit(request, connection, token_ids, max_new_tokens, seed)
        stream = await connection.submit(submit)
        times = GenerationTimes(arrived, time.monotonic())
        self._metrics.accepted(len(token_ids), max_new_tokens)
        return Generation(
            request,
            model,
            stream,
            prompt_token_ids=token_ids,
            max_new_tokens=max_new_tokens,
            seed=seed,
            times=times,
        )

    async def close(self) -> None:
        """Drop the workers."""
        await self.pool.close()
        self._close_tokenizer()

    def _close_tokenizer(self) -> None:
        if self._model is not None and isinstance(self._model.tokenizer, FileTokenizer):
            self._model.tokenizer.close()

    async def _encode(self, request: GenerationRequest, model: ServedModel) -> list[int]:
        if isinstance(request.prompt, str):
            token_ids = await model.tokenizer.encode(
                request.prompt, add_special=request.add_special
            )
        else:
            token_ids = request.prompt
            name = request.name_of("prompt")
            if not all(0 <= token_id < len(model.table) for token_id in token_ids):
                raise ValidationError(
                    f"`{name}` holds a token id outside the vocabulary", parameter=name
                )
        return token_ids if request.truncate is None else token_ids[-request.truncate :]

    def _seed(self, request: GenerationRequest, info: RunnerInfo) -> int | None:
        if request.sampling.greedy:
            return None
        if request.seed is not None or "seed" not in info.capabilities.sampling:
            return request.seed
        return secrets.randbits(_SEED_BITS)

    async def _connected(self, connection: WorkerConnection) -> None:
        """Make the model from a worker's answer, unless it is the one there is."""
        info = connection.info
        if self._model is None or self._model.info != info:
            self._close_tokenizer()
            tokenizer = await asyncio.to_thread(self._make_tokenizer, info)
            self._model = make_model(self.settings, info, tokenizer, self._renderer)
            self._metrics.set_limits(info.limits)

    def _make_tokenizer(self, info: RunnerInfo) -> Tokenizer:
        if isinstance(info.tokenizer, TokenizerFile):
            return FileTokenizer(info.tokenizer.path, self.settings.validation_workers)
        return RemoteTokenizer(lambda: self.pool.choose([]), info.vocabulary)


def _submit(
    request: GenerationRequest,
    connection: WorkerConnection,
    token_ids: list[int],
    max_new_tokens: int,
    seed: int | None,
) -> Submit:
    sampling: SamplingParams = msgspec.structs.replace(request.sampling, seed=seed or 0)
    return Submit(
        request_id=connection.next_request_id(),
        prompt=[TokenSegment(token_ids=token_ids)],
        sampling=sampling,
        stopping=StoppingParams(
            max_new_tokens=max_new_tokens,
            min_new_tokens=request.min_new_tokens,
            stop_token_ids=request.stop_token_ids,
            ignore_eos=request.ignore_eos,
        ),
        num_sequences=request.num_sequences,
        top_logprobs=request.top_logprobs,
    )
