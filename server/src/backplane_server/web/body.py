"""Reads a request's JSON body into a struct: the one gate for type, size, syntax and shape.

Fields that the struct does not know are allowed, and named to the caller.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from litestar.types import Receive, Scope

from backplane_server.errors import (
    ClientDisconnectedError,
    MalformedJsonError,
    MediaTypeError,
    PayloadTooLargeError,
    StalledBodyError,
)
from backplane_server.web.client_link import link_of
from backplane_server.web.shape_errors import lower_first, shape_error

BodyT = TypeVar("BodyT", bound=msgspec.Struct)

_JSON: Final = b"application/json"
_JSON_TYPE: Final = re.compile(rb"application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)
_SLOWEST_BYTES_PER_S: Final = 4096
_DISCARD_LIMITS: Final = 4
_DISCARD_S: Final = 1.0


@dataclass(frozen=True)
class Body(Generic[BodyT]):
    """A decoded body and the names of the fields nobody knows ("parameters.foo")."""

    value: BodyT
    ignored: tuple[str, ...]


class UnknownFields(Protocol):
    """What a dialect has to say of fields that its struct does not have."""

    def check(self, fields: Mapping[str, msgspec.Raw]) -> None:
        """Pass them as ignored, or raise a `ValidationError`."""
        ...


class BodyReader(Generic[BodyT]):
    """Reads bodies of one type.

    Args:
        body_type: the struct.
        nested: fields whose own unknown fields are reported too, with their structs.
        unknown: looks at the top's unknown fields, where they may mean something elsewhere.
    """

    def __init__(
        self,
        body_type: type[BodyT],
        nested: dict[str, type[msgspec.Struct]] | None = None,
        *,
        unknown: UnknownFields | None = None,
    ) -> None:
        self._unknown = unknown
        self._decoder = msgspec.json.Decoder(body_type)
        self._known = frozenset(body_type.__struct_encode_fields__)
        self._nested = {
            name: frozenset(struct.__struct_encode_fields__)
            for name, struct in (nested or {}).items()
        }

    def decode(self, data: bytes) -> Body[BodyT]:
        """Decode a whole body.

        Raises:
            MalformedJsonError: not JSON: syntax, encoding, lone surrogates, NaN, too deep.
            BodyError: JSON of another shape; `parameter` names the field.
            ValidationError: an unknown field that is refused.
        """
        try:
            if not data.isascii():
                data.decode()  # what is skipped would not be looked at
            try:
                value = self._decoder.decode(data)
            except msgspec.ValidationError as error:
                # A wrong shape may be told before the syntax was read.
                raise shape_error(str(error), msgspec.json.decode(data)) from None
            return Body(value, tuple(self._unknown_fields(data)))
        except msgspec.DecodeError as error:
            raise MalformedJsonError(f"the body is not valid JSON: {lower_first(error)}") from None
        except UnicodeDecodeError:
            raise MalformedJsonError("the body is not valid JSON: it is not UTF-8") from None
        except RecursionError:
            raise MalformedJsonError("the body is not valid JSON: it is nested too deep") from None

    def _unknown_fields(self, data: bytes) -> list[str]:
        fields = _raw_fields(data)
        unknown: list[str] = []
        if not fields.keys() <= self._known:
            raw_unknown = {name: raw for name, raw in fields.items() if name not in self._known}
            if self._unknown is not None:
                self._unknown.check(raw_unknown)
            unknown += raw_unknown
        for name, known in self._nested.items():
            if (raw := fields.get(name)) is not None and bytes(raw)[:1] == b"{":
                unknown += [f"{name}.{inner}" for inner in _raw_fields(raw) if inner not in known]
        return unknown


_raw_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _raw_fields(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return _raw_decoder.decode(data)


def arrived_body(scope: Scope, limit: int) -> bytes | None:
    """A JSON body that came with its request's header, as most do; None where it is awaited.

    Raises:
        MediaTypeError: it is no JSON.
        PayloadTooLargeError: it is larger than `limit` bytes.
    """
    link = link_of(scope)
    if link is None or not link.has_whole_body:
        return None
    _check_media_type(scope)
    body = link.take_body()
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def read_body(scope: Scope, receive: Receive, limit: int, *, stall_timeout_s: float) -> bytes:
    """Collect a JSON body from ASGI events.

    Raises:
        MediaTypeError: before the body was read.
        PayloadTooLargeError: before all of it was read, or once the rest was discarded.
        StalledBodyError: nothing of it arrived for `stall_timeout_s`, or all of it so far has
            taken that much longer than at `_SLOWEST_BYTES_PER_S`.
        ClientDisconnectedError: the client left.
    """
    headers = _check_media_type(scope)
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        if b"expect" not in headers:  # who asks first sends nothing after a refusal
            await _discard(receive, _DISCARD_LIMITS * limit)
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    latest = asyncio.get_running_loop().time() + stall_timeout_s
    while True:
        try:
            async with (
                asyncio.timeout(stall_timeout_s),
                asyncio.timeout_at(latest + size / _SLOWEST_BYTES_PER_S),
            ):
                event = await receive()
        except TimeoutError:
            raise StalledBodyError(
                f"the body stopped arriving, or arrives too slowly: {size} bytes of it came"
            ) from None
        if event["type"] == "http.disconnect":
            raise ClientDisconnectedError("the client left while it sent the body")
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            if event.get("more_body", False):
                await _discard(receive, _DISCARD_LIMITS * limit - size)
            raise _too_large(limit)
        chunks.append(chunk)
        if not event.get("more_body", False):
            return b"".join(chunks)


def _check_media_type(scope: Scope) -> dict[bytes, bytes]:
    """The header, by lower-case names."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    media_type = headers.get(b"content-type", b"")
    # Nearly all send exactly this.
    if media_type != _JSON and not _JSON_TYPE.fullmatch(media_type.strip()):
        raise MediaTypeError("send the body as `Content-Type: application/json`")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise MediaTypeError("send the body without a `Content-Encoding`")
    return headers


async def _discard(receive: Receive, num_bytes: int) -> None:
    """Take what is still sent, up to a size and a time, and keep none of it.

    A client that sends all before it reads, and closes after, would be reset in the midst of
    sending and never see the refusal.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while num_bytes > 0:
                event = await receive()
                num_bytes -= len(event.get("body", b""))
                if event["type"] == "http.disconnect" or not event.get("more_body", False):
                    return


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the body is larger than {limit} bytes", remedy="the flag --payload-limit sets the limit"
    )
