"""Conformance: grammars and adapters, where the backend has them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backplane_core.errors import AdapterError, BackplaneError
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.conformance.base import (
    GREEDY,
    ConformanceBase,
    decode,
    gap_at,
    lasting,
    parting,
)
from backplane_core.testing.worker_client import WorkerClient
from backplane_core.testing.worker_stream import Stream


class _Verdict(msgspec.Struct, forbid_unknown_fields=True):
    ok: bool


_SCHEMA = (
    '{"type": "object", "properties": {"ok": {"type": "boolean"}},'
    ' "required": ["ok"], "additionalProperties": false}'
)


def _is_verdict(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=_Verdict)
    except msgspec.DecodeError:
        return False
    return True


# kind → (source, what a complete text must satisfy)
_GRAMMARS: dict[str, tuple[str, Callable[[str], object]]] = {
    "regex": ("(yes|no|maybe)", re.compile("yes|no|maybe").fullmatch),
    "json_schema": (_SCHEMA, _is_verdict),
    "lark": ('start: "red" | "green"', re.compile("red|green").fullmatch),
}


_BROKEN = {
    "regex": "(yes|no",
    "json_schema": '{"type": "no such type"}',
    "lark": "start: nowhere_defined",
}


def _guided(
    client: WorkerClient, kind: str, prompt: list[int], source: str | None = None, **fields: Any
) -> Stream:
    """A request under this kind's grammar, or under another of its kind."""
    wanted = _GRAMMARS[kind][0] if source is None else source
    grammar = Grammar(kind=kind, source=wanted)  # type: ignore[arg-type] -- one of the kinds
    fields.setdefault("stopping", StoppingParams(max_new_tokens=64))
    return client.submit(prompt, grammar=grammar, **fields)


class FeatureTests(ConformanceBase):
    """Declared features do what they say, for each request by itself."""

    def test_grammars_are_obeyed(self, backplane_client: WorkerClient) -> None:
        """Whatever is drawn, each output is a whole text of its own request's grammar."""
        client = backplane_client
        prompts = self.prompts(client, 4, seed=19)
        for kind in self._kinds(client):
            streams = [
                _guided(
                    client,
                    kind,
                    prompt,
                    sampling=SamplingParams(temperature=1.5, seed=seed),
                    num_sequences=2 if client.info.capabilities.multiple_sequences else 1,
                )
                for seed, prompt in enumerate(prompts)
            ]
            streams.append(_guided(client, kind, prompts[0], sampling=GREEDY))
            client.finish(streams)
            for stream in streams:
                assert stream.error is None
                for continuation in stream.continuations.values():
                    assert continuation.finish_reason == "eos"
                    text = decode(client.info.vocabulary, continuation.token_ids)
                    assert _GRAMMARS[kind][1](text), kind

    def test_a_grammar_may_end_where_nothing_else_follows(
        self, backplane_client: WorkerClient
    ) -> None:
        """Where only an end may follow it comes, though `ignore_eos` or `min_new_tokens` forbid."""
        client = backplane_client
        known = client.info.capabilities.stopping
        forbid = {
            "ignore_eos": StoppingParams(max_new_tokens=64, ignore_eos=True),
            "min_new_tokens": StoppingParams(max_new_tokens=64, min_new_tokens=60),
        }
        forbidding = [stopping for name, stopping in forbid.items() if name in known]
        self.require(bool(forbidding), "`ignore_eos` or `min_new_tokens`")
        prompt = self.prompt(client, seed=20)
        for kind in self._kinds(client):
            streams = [
                _guided(client, kind, prompt, stopping=stopping, sampling=GREEDY)
                for stopping in forbidding
            ]
            client.finish(streams)
            for stream in streams:
                assert stream.error is None
                assert stream[0].finish_reason == "eos"
                text = decode(client.info.vocabulary, stream[0].token_ids)
                assert _GRAMMARS[kind][1](text), kind

    def test_grammars_leave_their_neighbours_alone(self, backplane_client: WorkerClient) -> None:
        """Beside guided requests, a plain one gets the tokens that it got alone."""
        client = backplane_client
        kinds = self._kinds(client)
        prompts = self.prompts(client, 3, seed=23)
        reported = client.info.capabilities.max_top_logprobs or 0
        plain: dict[str, Any] = {
            "sampling": GREEDY,
            "stopping": lasting(client, 24),
            "top_logprobs": min(2, reported) or None,
        }
        lone = [client.run(prompt, **plain)[0] for prompt in prompts]
        batch: list[Stream] = []
        guided: list[Stream] = []
        for number, prompt in enumerate(prompts):
            guided += [_guided(client, kind, prompt, sampling=GREEDY) for kind in kinds]
            batch.append(client.submit(prompt, **plain))
            sampling = SamplingParams(temperature=1.5, seed=number)
            guided.append(_guided(client, kinds[-1], prompt, sampling=sampling))
        client.finish([*batch, *guided])
        assert [stream.error for stream in (*batch, *guided)] == [None] * (len(batch) + len(guided))
        for one, stream in zip(lone, batch, strict=True):
            place = parting(one, stream[0])
            if place is not None:
                gap = gap_at(one, place, stream[0].token_ids[place])
                assert gap <= self.near_tie_gap, "a grammar changed its neighbour"

    def test_a_broken_grammar_fails_alone(self, backplane_client: WorkerClient) -> None:
        """A grammar that cannot be compiled ends its request by a typed error, and no other."""
        client = backplane_client
        kinds = self._kinds(client)
        prompt = self.prompt(client, seed=24)
        running = client.submit(prompt, sampling=GREEDY, stopping=lasting(client, 24))
        broken = [_guided(client, kind, prompt, _BROKEN[kind], sampling=GREEDY) for kind in kinds]
        sound = _guided(client, kinds[0], prompt, sampling=GREEDY)
        client.finish([running, *broken, sound])
        assert all(isinstance(stream.error, BackplaneError) for stream in broken)
        assert not any(stream.token_ids for stream in broken)
        assert running.error is None
        assert len(running.token_ids) == 24  # noqa: PLR2004 -- as asked
        assert sound[0].finish_reason == "eos"

    def _kinds(self, client: WorkerClient) -> list[str]:
        kinds = [kind for kind in _GRAMMARS if kind in client.info.capabilities.grammars]
        self.require(bool(kinds), "grammars")
        return kinds

    def test_adapters_do_not_mix(self, backplane_client: WorkerClient, tmp_path: Path) -> None:
        """Side by side, each request gets its own adapter's output, or the plain model's."""
        client = backplane_client
        self.require(client.info.capabilities.adapters, "adapters")
        paths = self.adapters(tmp_path)
        assert len(paths) > 1, "override `adapters`: the backend declares that it has them"
        for name, path in paths.items():
            client.load_adapter(name, str(path))
        prompt = self.prompt(client, seed=20)
        fields = {"sampling": GREEDY, "stopping": lasting(client, 12)}
        names = [None, *paths]
        lone = [client.run(prompt, adapter=name, **fields).token_ids for name in names]
        assert len({tuple(output) for output in lone}) == len(names), "adapters change nothing"
        mixed = [client.submit(prompt, adapter=name, **fields) for name in names]
        client.finish(mixed)
        assert [stream.token_ids for stream in mixed] == lone
        for name in paths:
            client.unload_adapter(name)
            with pytest.raises(AdapterError):
                client.run(prompt, adapter=name, **fields)
            with pytest.raises(AdapterError):
                client.unload_adapter(name)
        assert client.run(prompt, **fields).token_ids == lone[0]
        # What an adapter left in the cache is not that of another under the same name.
        first, second = list(paths)[:2]
        client.load_adapter(first, str(paths[second]))
        assert client.run(prompt, adapter=first, **fields).token_ids == lone[2]
        client.unload_adapter(first)
