"""What is said of a path or a method that no route has."""

import re
from typing import Final

# Of other servers: a client that asks for one was not mistaken in its spelling.
_NOT_YET: Final = re.compile(
    r"/(?:v2|invocations|rerank|score|embed"
    r"|v1/(?:responses|embeddings|messages|rerank|score|moderations|audio|images|batches|files))"
    r"(?=/|$)"
)


def no_route(path: str) -> str:
    """The sentence of a 404."""
    known = _NOT_YET.match(path)
    if known is None:
        return "there is no such route; GET /docs lists them"
    shown = known[0] if known[0] != "/v2" else "/v2 (KServe's)"
    return f"this version does not have {shown}; GET /docs lists the routes that it has"


def no_method(allowed: str) -> str:
    """The sentence of a 405; `allowed` as in the header `Allow`."""
    return f"the route does not have this method; it has {allowed}"
