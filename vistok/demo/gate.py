"""What reaches the server at all: an ASGI middleware before Gradio.

Gradio's `max_file_size` holds for uploads alone: a `data:` URL in a request's JSON is read whole, and some of
its routes fetch what an address names. Here every body has a limit, all that is kept has one, and only the
routes of the page are open.
"""

import contextlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .uploads import MAX_BYTES

MAX_BODY = 2 * 2**20  # bytes of a request that is no upload: a quarter of a million tokens as text
MAX_UPLOAD = MAX_BYTES + 2**16  # bytes; multipart adds a little
READ = (
    "/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
    "/gradio_api/info", "/gradio_api/info/", "/gradio_api/openapi.json", "/gradio_api/app_id",
    "/gradio_api/startup-events", "/gradio_api/queue/data", "/gradio_api/upload_progress",
    "/gradio_api/theme.css", "/gradio_api/heartbeat/*", "/gradio_api/call/*", "/gradio_api/file=*",
    "/assets/*", "/static/*", "/svelte/*",
)  # fmt: skip
WRITTEN = (
    "/gradio_api/queue/join", "/gradio_api/call/*", "/gradio_api/upload", "/gradio_api/cancel",
    "/gradio_api/reset", "/gradio_api/reset/",
)  # fmt: skip
MOST_DRAINED = 32 * 2**20  # bytes read and thrown away: who sends all before reading would get no answer
MOST_WAITING = 64  # requests in the queue; at a second each, nobody waits longer than about a minute
QUEUE_FULL = f"The queue is full: {MOST_WAITING} requests are waiting. Try again in a minute."
MOST_KEPT = 2**30  # bytes of uploads and answers; they are deleted after a while
DISK_FULL = "Too much was uploaded here in the last minutes. Try again in a quarter of an hour."

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gate:
    """ASGI middleware: closed routes, bodies with a limit, a full queue in our own words.

    Args:
        app: What lies behind.
        folder: Where uploads and answers are kept until they are deleted.
    """

    def __init__(self, app: Callable, folder: str):
        self.app = app
        self.folder = folder

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # the page opens no web socket
        path, writes = scope["path"], scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if not _listed(path, WRITTEN if writes else READ) or _is_address(path):
            await _answer(send, 404, "There is no such page.")
            return
        limit = MAX_UPLOAD if path == "/gradio_api/upload" else MAX_BODY
        limited = _Limited(receive, limit)
        if _declared_length(scope) > limit:
            await limited.drain()
            await _answer(send, 413, _too_long(limit))
            return
        if writes and _bytes_in(self.folder) > MOST_KEPT:
            await _answer(send, 507, DISK_FULL)
            return
        answer = _Answer(send)
        try:
            await self.app(scope, limited, answer)
        except _TooLongError:
            if answer.started:
                raise
            await limited.drain()
            await _answer(send, 413, _too_long(limit))


class _Answer:
    """A `send` that replaces the answer of a full queue, and remembers whether anything was sent."""

    def __init__(self, send: Send):
        self.send, self.started, self.replaced = send, False, False

    async def __call__(self, message: Message) -> None:
        self.started = True
        if message.get("status") == 503:
            self.replaced = True
            await _answer(self.send, 503, QUEUE_FULL)
        if not self.replaced:
            await self.send(message)


class _TooLongError(Exception):
    """A body goes on beyond its limit."""


class _Limited:
    """A `receive` that counts: a body need not declare its length."""

    def __init__(self, receive: Receive, limit: int):
        self.receive, self.left, self.more = receive, limit, True

    async def __call__(self) -> Message:
        message = await self._next()
        if self.left < 0:
            raise _TooLongError
        return message

    async def drain(self) -> None:
        """Throws the rest of the body away, as far as `MOST_DRAINED` go."""
        while self.more and self.left > -MOST_DRAINED:
            await self._next()

    async def _next(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        self.more = message.get("more_body", False)
        return message


def _listed(path: str, routes: tuple[str, ...]) -> bool:
    return any(path.startswith(route[:-1]) if route.endswith("*") else path == route for route in routes)


def _is_address(path: str) -> bool:
    """Whether a path asks for a file at an address, which Gradio would fetch."""
    return "file=" in path and "://" in path.replace(":/", "://")


def _declared_length(scope: Message) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _bytes_in(folder: str) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # just deleted
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def _too_long(limit: int) -> str:
    return f"The request has more than {limit // 2**20} MB, the most that is taken here."


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
