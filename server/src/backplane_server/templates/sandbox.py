"""The Jinja sandbox in which a model's chat template runs. Runs in the renderer process only.

It bounds what a template may reach; the process around it bounds time and memory.
"""

import contextlib
import json
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NoReturn, cast

from backplane_core.errors import TemplateError
from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment, safe_range

MAX_SOURCE_CHARS: Final = 1_000_000
MAX_OUTPUT_CHARS: Final = 8_000_000
_MAX_TEMPLATES: Final = 8


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks text for training; here it only has a body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Keep the body, drop the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: object) -> NoReturn:
    raise JinjaError(str(message))


def _range(*limits: int) -> range:
    try:
        return safe_range(*limits)
    except OverflowError:
        raise JinjaError(f"range() is limited to {MAX_RANGE} numbers") from None


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Like `json.dumps`: chat templates want JSON as a model was trained on, not HTML-safe."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _make_environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[loopcontrols, _GenerationTag],
        autoescape=False,
    )
    environment.filters["tojson"] = _to_json
    names = cast("dict[str, Any]", environment.globals)
    names["range"] = _range
    names["raise_exception"] = _raise_exception
    names["strftime_now"] = _strftime_now
    for name in ("lipsum", "cycler", "joiner"):  # of no use to a chat template
        del names[name]
    return environment


_environment: Final = _make_environment()


@lru_cache(maxsize=_MAX_TEMPLATES)
def _compile(source: str) -> Template:
    return _environment.from_string(source)


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render a template.

    Raises:
        TemplateError: syntax, an access outside the sandbox, `raise_exception`, a source over
            `MAX_SOURCE_CHARS`, an output over `MAX_OUTPUT_CHARS` or that is not Unicode. The
            sentence holds no text of foreign exceptions.
    """
    with _told():
        text = _joined(_compiled(source).generate(variables))
        text.encode()  # half of a surrogate pair is no text that can be sent
        return text


def check(source: str) -> None:
    """Compile a template and keep it for `render`.

    Raises:
        TemplateError: syntax, or a source over `MAX_SOURCE_CHARS`.
    """
    with _told():
        _compiled(source)


def _compiled(source: str) -> Template:
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateError(f"the chat template is longer than {MAX_SOURCE_CHARS} characters")
    return _compile(source)


@contextlib.contextmanager
def _told() -> Generator[None, None, None]:
    """What goes wrong with a template, as a `TemplateError`."""
    try:
        yield
    except TemplateError:
        raise
    except TemplateSyntaxError as error:
        why = (error.message or type(error).__name__).encode(errors="replace").decode()
        raise TemplateError(
            f"the chat template does not compile: line {error.lineno}: {why}"
        ) from error
    except JinjaError as error:
        message = error.message or type(error).__name__
        raise TemplateError(message.encode(errors="replace").decode()) from error
    except UnicodeEncodeError as error:
        raise TemplateError("the chat template made text that is not Unicode") from error
    except RecursionError as error:
        raise TemplateError("the template nests too deep") from error
    except MemoryError as error:
        raise TemplateError("the template needs too much memory") from error
    except Exception as error:  # a template can make Python raise what it likes
        raise TemplateError(f"the template failed ({type(error).__name__})") from error


def _joined(pieces: Iterable[str]) -> str:
    kept: list[str] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_OUTPUT_CHARS:
            raise TemplateError(f"the prompt is longer than {MAX_OUTPUT_CHARS} characters")
        kept.append(piece)
    return "".join(kept)
