"""The way of every generation, whatever the dialect: limits, tokens, a worker, its acceptance.

Returns only after a worker has admitted the request, so a refusal still has a status.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
from backplane_core.client import WorkerConnection
from backplane_core.control import ServerLaunch
from backplane_core.errors import ValidationError
from backplane_core.messages import RunnerInfo, Submit, TokenSegment
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.vocabulary import TokenizerFile

from backplane_server.errors import NotReadyError
from backplane_server.grammars.checker import GrammarChecker
from backplane_server.metrics.metrics import Metrics
from backplane_server.services.generation import Generation, GenerationTimes
from backplane_server.services.generation_request import GenerationRequest
from backplane_server.services.readiness import Readiness
from backplane_server.services.request_checks import (
    check_grammar,
    check_request,
    fit_to_context,
)
from backplane_server.services.served_model import (
    ServedModel,
    is_same_model,
    least_limits,
    make_model,
)
from backplane_server.services.text_bounds import check_length, keep_end
from backplane_server.services.worker_pool import WorkerPool
from backplane_server.templates.renderer import TemplateRenderer
from backplane_server.text.reasoning import choose_reasoning
from backplane_server.tokenization.file_tokenizer import FileTokenizer
from backplane_server.tokenization.remote_tokenizer import RemoteTokenizer
from backplane_server.tokenization.tokenizer import Tokenizer
from backplane_server.tools.catalogue import ToolCatalogue

_SEED_BITS: Final = 63  # as far as JSON readers with signed 64-bit numbers can hold


class GenerationService:
    """One per server. Owns the worker pool and the model made from its first worker.

    Attributes:
        pool: the workers.
        readiness: what they are doing.
        grammars: what tells whether a worker could follow a grammar.
    """

    def __init__(
        self, settings: ServerLaunch, renderer: TemplateRenderer, metrics: Metrics
    ) -> None:
        self.settings: Final = settings
        self.readiness: Final = Readiness()
        self.pool: Final = WorkerPool(settings.server_id, self.readiness, self._connected)
        self.grammars: Final = GrammarChecker()
        self._renderer = renderer
        self._catalogue = ToolCatalogue.discovered()
        # Named wrong, they are told at once, not when a worker is there.
        self._catalogue.check(settings.tool_call_parser)
        choose_reasoning(settings.reasoning_parser, None)
        self._metrics = metrics
        self._model: ServedModel | None = None
        self._links: list[WorkerConnection] = []
        self._connecting = asyncio.Lock()

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
            AdapterError: an adapter that nobody has.
            NotReadyError, UnavailableError: nobody can answer now.
        """
        model = self.model
        request = request.fitted_to(model.info.capabilities)
        check_request(request, self.settings, model.info)
        model.check_adapter(request.adapter)
        return await self._start(request, model, arrived)

    def _left_s(self, arrived: float) -> float | None:
        """How long a request that arrived then may still take; None is for ever."""
        timeout_s = self.settings.request_timeout_s
        return None if timeout_s is None else max(0.0, arrived + timeout_s - time.monotonic())

    def check_together(self, requests: Sequence[GenerationRequest]) -> None:
        """Refuse generations of one HTTP request that a worker could never hold together.

        Raises:
            ValidationError: they are more sequences than a worker takes.
            NotReadyError: nobody knows how many that is.
        """
        limits = self.model.info.limits
        capacity = min(
            self.settings.max_concurrent_requests,
            limits.max_sequences + limits.max_waiting_requests,
        )
        num_sequences = sum(request.num_sequences for request in requests)
        if num_sequences > capacity:
            asks_for_many = requests[0].num_sequences > 1
            name = requests[0].name_of("num_sequences" if asks_for_many else "prompt")
            raise ValidationError(
                f"`{name}` asks for {num_sequences} sequences in all; at most {capacity} are taken",
                parameter=name,
                remedy="the flag --max-concurrent-requests sets the limit",
            )

    async def _start(
        self, request: GenerationRequest, model: ServedModel, arrived: float
    ) -> Generation:
        token_ids = await self._encode(request, model)
        max_new_tokens = fit_to_context(request, len(token_ids), model.info)
        check_grammar(request, self.settings, model.info)
        if request.grammar is not None:
            name = request.name_of("grammar")
            grammar = await self.grammars.check(request.grammar, name, model.info.vocabulary)
            request = replace(request, grammar=grammar)
        seed = self._seed(request, model.info)
        connection = self.pool.choose(token_ids, request.adapter)
        left_s = self._left_s(arrived)
        submit = _submit(
            request,
            connection.next_request_id(),
            token_ids,
            max_new_tokens=max_new_tokens,
            seed=seed,
            deadline=None if left_s is None else time.time() + left_s,
        )
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
            timeout_s=self.settings.request_timeout_s,
            length_first=self.settings.tgi_strict,
            worker_request_id=submit.request_id,
        )

    async def close(self) -> None:
        """Drop the workers."""
        await self.pool.close()
        await self.grammars.close()
        _close_tokenizer(self._model)

    async def _encode(self, request: GenerationRequest, model: ServedModel) -> list[int]:
        kept = slice(None) if request.truncate is None else slice(-request.truncate, None)
        name = request.name_of("prompt")
        if isinstance(request.prompt, str):
            text = request.prompt
            if request.truncate is None:
                check_length(text, name, model.info.limits.max_input_tokens, model.table)
            else:
                text = keep_end(text, request.truncate, model.table)
            return (await model.tokenizer.encode(text, add_special=request.add_special))[kept]
        token_ids = request.prompt[kept]
        if not all(0 <= token_id < len(model.table) for token_id in token_ids):
            raise ValidationError(
                f"`{name}` holds a token id outside the vocabulary", parameter=name
            )
        return token_ids

    def _seed(self, request: GenerationRequest, info: RunnerInfo) -> int | None:
        if request.sampling.greedy:
            return None
        if request.seed is not None or "seed" not in info.capabilities.sampling:
            return request.seed
        return secrets.randbits(_SEED_BITS)

    async def _connected(self, connection: WorkerConnection) -> None:
        """Make the model from a worker's answer, unless it is the one there is.

        What is served is what every worker can hold: they measure their limits, each its own.
        """
        async with self._connecting:
            self._links = [link for link in self._links if not link.closed.is_set()]
            self._links.append(connection)
            limits = least_limits([link.info.limits for link in self._links])
            info = msgspec.structs.replace(connection.info, limits=limits)
            adapters = frozenset[str]().union(*(link.adapters for link in self._links))
            previous = self._model
            if previous is not None and is_same_model(previous.info, info):
                self._model = replace(previous, info=info, adapters=adapters)
            else:
                tokenizer = await asyncio.to_thread(self._make_tokenizer, info)
                self._model = make_model(
                    self.settings,
                    info,
                    tokenizer,
                    self._renderer,
                    catalogue=self._catalogue,
                    adapters=adapters,
                )
                _close_tokenizer(previous)
                await self._model.prompter.check()
            self._metrics.set_limits(limits)

    def _make_tokenizer(self, info: RunnerInfo) -> Tokenizer:
        if isinstance(info.tokenizer, TokenizerFile):
            return FileTokenizer(info.tokenizer.path, self.settings.validation_workers)
        return RemoteTokenizer(lambda: self.pool.choose([]), info.vocabulary)


def _close_tokenizer(model: ServedModel | None) -> None:
    if model is not None and isinstance(model.tokenizer, FileTokenizer):
        model.tokenizer.close()


def _submit(
    request: GenerationRequest,
    request_id: str,
    token_ids: list[int],
    *,
    max_new_tokens: int,
    seed: int | None,
    deadline: float | None,
) -> Submit:
    sampling: SamplingParams = msgspec.structs.replace(request.sampling, seed=seed or 0)
    return Submit(
        request_id=request_id,
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
        prompt_logprobs=request.prompt_logprobs,
        grammar=request.grammar,
        adapter=request.adapter,
        deadline=deadline,
    )
