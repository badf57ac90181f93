"""`python -m backplane_server.templates.child`: renders templates for one server, on two pipes."""

from typing import Any

from backplane_core.errors import ErrorInfo, TemplateError

from backplane_server.helper_process.child import serve, settle_in, unforeseen
from backplane_server.helper_process.messages import Answer, Question


class Render(Question, frozen=True, kw_only=True, tag=True):
    """Render `source` with these variables; None only compiles it."""

    source: str
    variables: dict[str, Any] | None


class Rendered(Answer, frozen=True, kw_only=True, tag=True):
    """The text, or why there is none."""

    text: str = ""
    error: ErrorInfo | None = None


def answer(request: Render) -> Rendered:
    """Render one template; every failure is an answer."""
    from backplane_server.templates.sandbox import check, render  # noqa: PLC0415 - after the limits

    try:
        if request.variables is None:
            check(request.source)
            return Rendered(id=request.id)
        return Rendered(id=request.id, text=render(request.source, request.variables))
    except TemplateError as error:
        return Rendered(id=request.id, error=ErrorInfo.of(error))


def failed(request_id: int, error: Exception) -> Rendered:
    """The answer where nobody foresaw the failure."""
    return Rendered(id=request_id, error=unforeseen(error, "the template", TemplateError))


def main() -> None:
    """Answer until standard input ends."""
    settle_in()
    answer(Render(id=0, source="ready", variables={}))
    serve(Render, answer, failed)


if __name__ == "__main__":
    main()
