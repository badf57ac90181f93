"""Which declared route a path belongs to, also for requests that never came to the router."""

import re
from collections.abc import Iterable
from typing import Final

_PARAMETER: Final = re.compile(r"\{(?P<name>[^:}]+)(?::(?P<type>[^}]+))?\}")
NO_ROUTE: Final = "-"


class RouteNames:
    """Looks paths up among the application's. Their number is what bounds the names there are."""

    def __init__(self, declared: Iterable[str]) -> None:
        self._fixed: set[str] = set()
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for path in declared:
            if _PARAMETER.search(path):
                self._patterns.append((_pattern(path), _PARAMETER.sub(r"{\g<name>}", path)))
            else:
                self._fixed.add(path)

    def __call__(self, path: str) -> str:
        """The route as people write it: "/v1/models/{model}"."""
        path = path.rstrip("/") or "/"
        if path in self._fixed:
            return path
        return next((name for each, name in self._patterns if each.fullmatch(path)), NO_ROUTE)


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^}]+\})", path)
    return re.compile(
        "".join(
            (".+" if part.endswith(":path}") else "[^/]+")
            if part.startswith("{")
            else re.escape(part)
            for part in parts
        ),
        re.DOTALL,
    )
