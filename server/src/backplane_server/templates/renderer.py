"""The server's end of the renderer process: templates in, text or the reason why not out.

Knows nothing of chats.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from backplane_core.errors import TemplateError, UnavailableError

from backplane_server.helper_process.parent import HelperProcess
from backplane_server.templates.child import Render, Rendered

_TIME_LIMIT_S: Final = 3.0
_WAIT_LIMIT_S: Final = 5.0


class TemplateRenderer(Protocol):
    """What turns a template and its variables into text."""

    async def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The text.

        Raises:
            TemplateError: the template failed, or went over a limit.
        """
        ...

    async def check(self, source: str) -> None:
        """Compile a template.

        Raises:
            TemplateError: it cannot be compiled.
        """
        ...


class RendererProcess(HelperProcess[Render, Rendered]):
    """A `TemplateRenderer` in a process of its own."""

    def __init__(
        self, time_limit_s: float = _TIME_LIMIT_S, wait_limit_s: float = _WAIT_LIMIT_S
    ) -> None:
        super().__init__(
            "backplane_server.templates.child",
            "template renderer",
            Rendered,
            time_limit_s=time_limit_s,
            wait_limit_s=wait_limit_s,
        )

    async def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """Render a template.

        Raises:
            TemplateError: the template failed, or went over a limit.
            OverloadedError: others keep it busy for too long.
            UnavailableError: the renderer is closed, or no process lives to answer.
        """
        rendered = await self._ask_in_turn(
            Render(id=next(self._ids), source=source, variables=dict(variables))
        )
        if rendered.error is not None:
            raise rendered.error.restore()
        return rendered.text

    async def check(self, source: str) -> None:
        """Compile a template.

        Raises:
            TemplateError: it cannot be compiled.
            OverloadedError: others keep it busy for too long.
            UnavailableError: the renderer is closed, no process lives to answer, or it took too
                long, which may be the machine's fault.
        """
        question = Render(id=next(self._ids), source=source, variables=None)
        try:
            checked = await self._ask_in_turn(question)
        except TemplateError as error:
            raise UnavailableError(error.message) from error
        if checked.error is not None:
            raise checked.error.restore()

    def _hello(self, question_id: int) -> Render:
        return Render(id=question_id, source="ready", variables={})

    def _too_slow(self) -> TemplateError:
        return TemplateError(f"the chat template took longer than {self._time_limit_s:g} s")
