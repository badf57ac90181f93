"""What a server says of itself: the model's name, and what software it is."""

from typing import Any, Final

import msgspec

from backplane_launcher.bench.client import Client
from backplane_launcher.bench.reply import OK

# Where servers tell their version, and the fields that say it: TGI and ours, vLLM, llama-server.
_FACTS: Final = (
    ("/info", ("docker_label", "version", "sha")),
    ("/version", ("version",)),
    ("/props", ("build_info",)),
)


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []


async def served_model(client: Client) -> str | None:
    """The first model the server names; None where it names none."""
    status, body = await client.get("/v1/models")
    if status != OK:
        return None
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except msgspec.DecodeError:
        return None
    return models[0].id if models else None


async def server_version(client: Client) -> str:
    """What software answers, as far as it says; else nothing."""
    for path, names in _FACTS:
        status, body = await client.get(path)
        if status != OK:
            continue
        try:
            facts = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            continue
        said = [str(facts[name]) for name in names if facts.get(name)]
        if said:
            return " ".join(said)
    return ""
