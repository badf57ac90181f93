"""Plain HTTP to a deployment, and what the bytes of its answers say."""

import json
from typing import Any

import httpx
from deployment import Deployment

TIMEOUT_S = 60.0
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
DONE = "[DONE]"


def post(deployment: Deployment, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(deployment.url + path, json=body, headers=headers, timeout=TIMEOUT_S)


def get(deployment: Deployment, path: str, **headers: str) -> httpx.Response:
    return httpx.get(deployment.url + path, headers=headers, timeout=TIMEOUT_S)


def answered(deployment: Deployment, path: str, body: Any, **headers: str) -> Any:
    """The JSON of an answer that must be a 200."""
    response = post(deployment, path, body, **headers)
    assert response.status_code == 200, response.text
    return response.json()


def generated(deployment: Deployment, inputs: str, **parameters: Any) -> dict[str, Any]:
    """The answer of `/generate`, whose parameters always ask for details."""
    body = {"inputs": inputs, "parameters": {"details": True, **parameters}}
    return answered(deployment, "/generate", body)


def user(text: str) -> list[dict[str, Any]]:
    """A conversation of one turn."""
    return [{"role": "user", "content": text}]


def frames(content: bytes) -> list[bytes]:
    """What follows `data: ` in each frame of a stream.

    Raises:
        AssertionError: a frame is written in any other way, or the last is cut.
    """
    pieces = content.split(b"\n\n")
    assert pieces.pop() == b"", "the last frame is cut"
    data = [piece for piece in pieces if piece != b":"]
    for piece in data:
        assert piece.startswith(b"data: "), piece
        assert b"\n" not in piece, piece
    return [piece.removeprefix(b"data: ") for piece in data]


def events(response: httpx.Response) -> list[Any]:
    """The JSON of a stream's events; the end mark stands in it as text."""
    return [
        DONE if data == DONE.encode() else json.loads(data) for data in frames(response.content)
    ]


def streamed(deployment: Deployment, path: str, body: Any) -> list[Any]:
    """The events of a stream that begins with a 200."""
    response = post(deployment, path, body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    return events(response)


def is_compact(data: bytes) -> bool:
    """Whether JSON is written without spaces between its parts."""
    again = json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":")).encode()
    return len(again) == len(data)
