"""Connections of clients that may be slow, silent or endless: what uvicorn leaves unbounded is bounded here.

The head of a request is bounded in size and time; a body, and the reading of an answer, must go on at some pace. The
server looks at its connections from time to time, and ends those on which nothing has moved for several looks: that
costs nothing per request, where a timer would.
"""

from __future__ import annotations

import contextvars
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from homeserver.http.link import RATE, Measured
from homeserver.http.response import CORS, Streamed, json_response

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from starlette.responses import Response
    from starlette.types import Receive, Scope
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from homeserver.http.application import HttpApplication

LOOK_SECONDS = 20
"""How often the server looks at its connections."""
PATIENCE = 2
"""After so many looks without progress a connection is ended."""
MAX_HEAD_BYTES = 65_536
MAX_CONNECTIONS = 30_000
"""Of a listener; whoever comes then is turned away."""
MAX_WAITING_REQUESTS = 32
"""So many requests may wait on a connection until the one before is answered."""
_MEASURED_SECONDS = 0.5
"""What takes less time than this tells nothing of how fast the client is."""
_PROGRESS_BYTES = 4096
"""Less than this between two looks is no progress."""

_CORS = b"".join(b"%s: %s\r\n" % header for header in CORS)
_CLOSE = b"connection: close\r\n"
_CHUNKED = (b"transfer-encoding", b"chunked")

# What clients get wrong is not worth a line: they could fill the disk.
_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)


class Connection(HttpToolsProtocol):
    """A connection, HTTP/1.1."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.logger = _log
        # Bytes since the last head was complete that are no body: of the next head, of chunks and trailers.
        self._outside_bodies = 0
        self._received = 0
        self._streamed = 0
        self._heads = 0
        self._last_look: tuple[tuple[str, int] | None, int] = (None, 0)
        self._looks_without_progress = 0
        self._answering: RequestResponseCycle | None = None
        self._paused = (0.0, 0)
        self._measured: Measured | None = None

    # -- how fast the client is --------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """More is to be sent than the client takes."""
        super().pause_writing()
        self._paused = (self.loop.time(), self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        super().resume_writing()
        since, unsent = self._paused
        seconds = self.loop.time() - since
        if seconds >= _MEASURED_SECONDS:
            rate = (unsent - self.transport.get_write_buffer_size()) / seconds
            reader = None if self._answering is None else _credentials(self._answering.scope["headers"])
            self._measured = Measured(rate, self.loop.time(), reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more: uvicorn tells the last request, and here the one that is answered is told, too."""
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    # -- what comes in -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        self._received += len(data)
        self._outside_bodies += len(data)
        super().data_received(data)
        if self._outside_bodies > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "M_TOO_LARGE",
                f"The head of the request has more than {MAX_HEAD_BYTES} bytes",
            )

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        if len(self.pipeline) >= MAX_WAITING_REQUESTS:
            message = "too many requests at once"
            raise ValueError(message)
        self._outside_bodies = 0
        self._heads += 1
        if self._measured is not None:
            rate = self._measured.now(_credentials(self.headers), self.loop.time())
            cast("dict[str, object]", self.scope)[RATE] = rate
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there."""
        self._outside_bodies = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text, for logs
        """Answer what is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, "M_UNKNOWN", "This is not HTTP as it should be")

    def _refuse(self, status: HTTPStatus, errcode: str, error: str) -> None:
        """Answer without asking anybody, and end the connection."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            response = json_response({"errcode": errcode, "error": error}, status)
            self.transport.write(_head(response, keep_alive=False) + bytes(response.body))
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    # -- the end -----------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server stops: a request that is whole is answered, one whose body is still on its way is refused."""
        waits_for, _ = self._state()
        if waits_for is not None and waits_for[0] == "body":
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "M_UNKNOWN", "The server is stopping")
        else:
            super().shutdown()

    # -- what goes out -----------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer a request; in a context of its own, so that nothing of one request shows in another."""
        self._answering = cycle
        task = self.loop.create_task(self._answer(cycle, app), context=contextvars.Context())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _answer(self, cycle: RequestResponseCycle, application: HttpApplication) -> None:
        try:
            response = await application.answer(cast("Scope", cycle.scope), cast("Receive", cycle.receive))
            await self._send(cycle, response)
        except BaseException:
            self.transport.close()
            raise

    async def _send(self, cycle: RequestResponseCycle, response: Response | None) -> None:
        """What uvicorn does by two messages of ASGI, with all headers looked at one by one, in one go."""
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if response is None or cycle.disconnected:
            self.transport.close()
            return
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        if isinstance(response, Streamed):
            await self._stream(cycle, response)
        else:
            head = _head(response, keep_alive=cycle.keep_alive)
            self.transport.write(head if cycle.scope["method"] == "HEAD" else head + response.body)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    async def _stream(self, cycle: RequestResponseCycle, response: Streamed) -> None:
        """Write an answer as fast as the client reads it; in chunks, if its length is not known, to who knows of chunks."""
        has_length = any(name == b"content-length" for name, _ in response.raw_headers)
        chunked = not has_length and cycle.scope["http_version"] != "1.0"
        if chunked:
            response.raw_headers.append(_CHUNKED)
        elif not has_length:
            cycle.keep_alive = False
        self.transport.write(_head(response, keep_alive=cycle.keep_alive))
        if cycle.scope["method"] == "HEAD":
            return
        async for part in response.parts:
            if self.flow.write_paused:
                await self.flow.drain()
            if cycle.disconnected:
                return
            self._streamed += len(part)
            self.transport.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        if chunked:
            self.transport.write(b"0\r\n\r\n")

    # -- what does not move ------------------------------------------------------------------------------

    def look(self) -> None:
        """End the connection if it was waiting for the client all through the last looks."""
        waits_for, moved = self._state()
        before, moved_before = self._last_look
        self._last_look = waits_for, moved
        if waits_for is None or waits_for != before or abs(moved - moved_before) >= _PROGRESS_BYTES:
            self._looks_without_progress = 0
            return
        self._looks_without_progress += 1
        if self._looks_without_progress < PATIENCE:
            return
        if waits_for[0] == "body":
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "M_UNKNOWN", "The body took too long")
        elif waits_for[0] == "head":
            self.transport.close()
        else:
            self.transport.abort()

    def _state(self) -> tuple[tuple[str, int] | None, int]:
        """What the client is to do next, by kind and request, and how many bytes of it were done; None for nothing."""
        cycle = self.cycle
        unsent: int = self.transport.get_write_buffer_size()
        if unsent:
            return ("read", self._heads), self._streamed - unsent
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body and not self.flow.read_paused:
                return ("body", self._heads), self._received
            return None, 0
        if self.timeout_keep_alive_task is not None:
            # Between two requests: uvicorn has a timer for that.
            return None, 0
        # A head that is on its way, or a body that nobody wants any more: these have to end, at whatever pace.
        return ("head", self._heads), 0


def look_at(connections: Iterable[Any]) -> None:
    """Look at all connections of a server, every `LOOK_SECONDS`."""
    for connection in list(connections):
        if isinstance(connection, Connection):
            connection.look()


def _credentials(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    return next((value for name, value in headers if name == b"authorization"), None)


def _head(response: Response, *, keep_alive: bool) -> bytes:
    lines = b"".join([b"%s: %s\r\n" % header for header in response.raw_headers])
    if lines.count(b"\n") != len(response.raw_headers):
        message = "a header of more than one line"
        raise ValueError(message)
    return b"%s%s%s%s\r\n" % (STATUS_LINE[response.status_code], lines, _CORS, b"" if keep_alive else _CLOSE)
