"""Whose a chat template is, and whether it compiles: asked once, when a model is made."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backplane_core.errors import BackplaneError, TemplateError

from backplane_server.templates.renderer import TemplateRenderer

_log = logging.getLogger(__name__)

_MAX_FILE_CHARS: Final = 500


@dataclass(frozen=True, kw_only=True)
class TemplateOrigin:
    """Where templates come from.

    Attributes:
        flag: of the operator that brought them; None is the model itself.
        file: that the flag named; None where it was the source itself. For the log alone.
    """

    flag: str | None = None
    file: str | None = None

    @property
    def remedy(self) -> str | None:
        """What a client may be told of it."""
        return None if self.flag is None else f"the flag {self.flag} brought it"

    def __str__(self) -> str:
        """For the log."""
        if self.flag is None:
            return "the model's own"
        return self.flag if self.file is None else f"{self.flag} {self.file[:_MAX_FILE_CHARS]}"


async def broken_templates(
    renderer: TemplateRenderer, templates: Mapping[str, str], origin: TemplateOrigin
) -> dict[str, TemplateError]:
    """Those that do not compile, by their source, with what chats are told; each is logged.

    The service goes on without them: plain text needs none.
    """
    broken: dict[str, TemplateError] = {}
    for name, source in templates.items():
        try:
            await renderer.check(source)
        except TemplateError as error:
            _log.warning(
                "the chat template %r (%s) cannot be used: %s; chats with it are refused",
                name,
                origin,
                error.message,
            )
            broken[source] = TemplateError(error.message, remedy=origin.remedy)
        except BackplaneError as error:  # the renderer is busy or closed: chats will tell
            _log.info("the chat template %r (%s) was not checked: %s", name, origin, error)
    return broken
