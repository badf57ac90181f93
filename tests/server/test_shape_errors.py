"""Why a body has not the shape it should have, in JSON's words."""

from typing import Annotated

import msgspec
import pytest
from backplane_server.errors import BodyError
from backplane_server.web.body import BodyReader


class Inner(msgspec.Struct):
    bias: dict[int, float] | None = None


class Outer(msgspec.Struct):
    number: float | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    text: str | list[str] = ""
    short: Annotated[str, msgspec.Meta(max_length=3)] = ""
    flag: bool = False
    inner: Inner | None = None
    bias: dict[int, float] | None = None


@pytest.mark.parametrize(
    ("body", "sentence", "parameter"),
    [
        (b'{"number": "x"}', "`number`: expected a number or null, got a string", "number"),
        (b'{"count": 1.5}', "`count`: expected a whole number, got a number", "count"),
        (b'{"count": 0}', "`count`: expected a whole number >= 1", "count"),
        (b'{"text": 1}', "`text`: expected a string or a list, got a whole number", "text"),
        (b'{"text": [1]}', "`text[0]`: expected a string, got a whole number", "text[0]"),
        (b'{"short": "abcd"}', "`short`: expected a string of length <= 3", "short"),
        (b'{"flag": {}}', "`flag`: expected true or false, got an object", "flag"),
        (b"[]", "the body: expected an object, got a list", None),
        (
            b'{"bias": {"5": 1, "abc": 1}}',
            "`bias`: keys must be token ids in digits, not 'abc'",
            "bias",
        ),
        (
            b'{"inner": {"bias": {"": 1}}}',
            "`inner.bias`: keys must be token ids in digits, not ''",
            "inner.bias",
        ),
        (b'{"bias": {"5": "x"}}', "`bias`: expected a number, got a string", "bias"),
    ],
)
def test_types_have_the_words_of_json(body, sentence, parameter):
    with pytest.raises(BodyError) as caught:
        BodyReader(Outer).decode(body)
    assert str(caught.value) == sentence
    assert caught.value.parameter == parameter
