"""HEAD for every route that has GET: the same answer without its body."""

from typing import cast

from litestar.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """ASGI middleware that turns HEAD into GET and keeps the body back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass every request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        await self._app(cast("Scope", {**scope, "method": "GET"}), receive, send_head)
