"""Conformance: grammars and adapters, where the backend has them."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backplane_core.errors import AdapterError
from backplane_core.messages import Grammar
from backplane_core.sampling import SamplingParams, StoppingParams
from backplane_core.testing.conformance.base import GREEDY, ConformanceBase, decode, lasting
from backplane_core.testing.worker_client import WorkerClient


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


class FeatureTests(ConformanceBase):
    """Declared features do what they say, for each request by itself."""

    def test_grammars_are_obeyed(self, backplane_client: WorkerClient) -> None:
        """Whatever is drawn, each output is a whole text of its own request's grammar."""
        client = backplane_client
        kinds = [kind for kind in _GRAMMARS if kind in client.info.capabilities.grammars]
        self.require(bool(kinds), "grammars")
        prompts = self.prompts(client, 4, seed=19)
        for kind in kinds:
            source, holds = _GRAMMARS[kind]
            streams = [
                client.submit(
                    prompt,
                    sampling=SamplingParams(temperature=1.5, seed=seed),
                    stopping=StoppingParams(max_new_tokens=64),
                    grammar=Grammar(kind=kind, source=source),  # type: ignore[arg-type] -- a kind
                )
                for seed, prompt in enumerate(prompts)
            ]
            free = client.submit(prompts[0], sampling=GREEDY, stopping=lasting(client, 8))
            client.finish([*streams, free])
            for stream in streams:
                assert stream.error is None
                assert stream[0].finish_reason == "eos"
                assert holds(decode(client.info.vocabulary, stream.token_ids)), kind
            assert free.error is None

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
