"""Routes that an operator may open to clients without a key, by name; TGI's own set of them."""

from collections.abc import Iterable
from typing import Final

from backplane_core.errors import SetupError

# Method and path, both exactly: what is not here wants a key, however it is spelled.
OpenRoute = tuple[str, str]

_BY_NAME: Final[dict[str, frozenset[OpenRoute]]] = {
    "/": frozenset({("GET", "/")}),
    "health": frozenset({("GET", "/health")}),
    "ping": frozenset({("GET", "/ping")}),
    "info": frozenset({("GET", "/info")}),
    "metrics": frozenset({("GET", "/metrics")}),
    "v1/models": frozenset({("GET", "/v1/models")}),
    "docs": frozenset(),  # the pages' own affair
    "tokenize": frozenset({("POST", "/tokenize")}),
    "detokenize": frozenset({("POST", "/detokenize")}),
    "chat_tokenize": frozenset({("POST", "/chat_tokenize")}),
}
_TGI: Final = ("/", "health", "ping", "info", "metrics", "v1/models", "chat_tokenize", "docs")

NAMES: Final = tuple(_BY_NAME)


def open_routes(
    names: Iterable[str], docs: Iterable[str], *, tgi_strict: bool
) -> frozenset[OpenRoute]:
    """What needs no key, beside the probes.

    Args:
        names: of `NAMES`; a leading slash does not count.
        docs: the paths that "docs" means.
        tgi_strict: whether TGI's set is open too.

    Raises:
        SetupError: a name is not one of `NAMES`; generating routes are not among them.
    """
    wanted = [*names, *(_TGI if tgi_strict else ())]
    found: set[OpenRoute] = set()
    for name in wanted:
        routes = _BY_NAME.get(name.strip().lstrip("/") or "/")
        if routes is None:
            raise SetupError(
                f"--open-routes has no {name!r}", remedy=f"it takes {', '.join(NAMES)}"
            )
        found |= routes or {("GET", path) for path in docs}
    return frozenset(found)
