"""A request to another server: found, signed, sent, and its answer read as JSON within bounds.

What each endpoint takes and gives is in `federation.client`; here is what they have in common.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import orjson
from yarl import URL

from crypto import canonical_json
from federation.errors import BadAnswer, Refused, Unreachable
from federation.json_stream import NotJson, ObjectStream
from federation.request_auth import NO_CONTENT, sign_request
from federation.transport import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from crypto.keys import SigningKey
    from federation.discovery import Discovery, Place
    from federation.transport import StreamedAnswer, Transport

    Query = Sequence[tuple[str, str | int | bool]]

MEBIBYTE = 1 << 20
SMALL = Limits(max_bytes=MEBIBYTE, seconds=30)
"""Answers with a few fields."""
EVENTS = Limits(max_bytes=32 * MEBIBYTE, seconds=60)
"""Answers with up to some hundred events, or with many ids."""
WHOLE_STATE = Limits(max_bytes=1024 * MEBIBYTE, seconds=900, idle_seconds=120)
"""Answers with the state of a room, which are read bit by bit; the other server may think for long."""

_ERROR_LIMIT_BYTES = 64 << 10
_MAX_ELEMENT_BYTES = 512 << 10
_MAX_RETRY_MS = 24 * 3_600_000


class SignedRequests:
    """Calls other servers in our name."""

    def __init__(
        self,
        server_name: str,
        key: SigningKey,
        discovery: Discovery,
        transport: Transport,
        *,
        enabled: bool = True,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._discovery = discovery
        self._transport = transport
        self._enabled = enabled

    async def json(
        self,
        destination: str,
        method: str,
        path: str,
        *,
        query: Query = (),
        content: Any = NO_CONTENT,
        limits: Limits = SMALL,
        signed: bool = True,
        loads: Callable[[bytes], Any] = orjson.loads,
    ) -> Any:
        """The JSON of a successful answer, as `loads` reads it.

        Raises `Refused` where the other server answered with an error, `Unreachable` where it did not answer,
        `BadAnswer` where the answer cannot be used.
        """
        async with self.stream(
            destination, method, path, query=query, content=content, limits=limits, signed=signed
        ) as answer:
            body = await answer.read()
        try:
            return loads(body)
        except orjson.JSONDecodeError:
            raise BadAnswer(destination, "the answer is not JSON") from None

    @contextlib.asynccontextmanager
    async def members(
        self,
        destination: str,
        method: str,
        path: str,
        lists: Collection[str],
        *,
        query: Query = (),
        content: Any = NO_CONTENT,
        limits: Limits = WHOLE_STATE,
    ) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """The members of an answer that is one big object: of `lists` each element, as it comes (`json_stream`)."""
        async with self.stream(
            destination, method, path, query=query, content=content, limits=limits
        ) as answer:
            yield _members(destination, answer, lists)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        destination: str,
        method: str,
        path: str,
        *,
        query: Query = (),
        content: Any = NO_CONTENT,
        limits: Limits = SMALL,
        signed: bool = True,
    ) -> AsyncIterator[StreamedAnswer]:
        """A successful answer, to be read inside the `with`; raises as `json` does."""
        if not self._enabled:
            raise Unreachable(destination, "federation is switched off")
        if destination == self._server_name:
            raise Unreachable(destination, "this is this server itself")
        target = target_of(path, query)
        headers = {"Accept": "application/json"}
        body = None
        if content is not NO_CONTENT:
            # As it is signed: also what orjson does not write, such as the big numbers of old events.
            body = canonical_json.encode_historical(content)
            headers["Content-Type"] = "application/json"
        if signed:
            headers["Authorization"] = sign_request(
                self._key, self._server_name, destination, method, target, content
            )
        discovered = await self._discovery.find(destination)
        async with contextlib.AsyncExitStack() as stack:
            answer = await self._first_that_answers(
                stack, discovered.places, destination, method, target, headers, body, limits
            )
            if answer.status != 200:
                raise await _refusal(destination, answer)
            yield answer

    async def _first_that_answers(
        self,
        stack: contextlib.AsyncExitStack,
        places: Sequence[Place],
        destination: str,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limits: Limits,
    ) -> StreamedAnswer:
        for number, place in enumerate(places, 1):
            try:
                return await stack.enter_async_context(
                    self._transport.stream(
                        method,
                        URL(f"https://{place.authority}{target}", encoded=True),
                        limits,
                        headers={**headers, "Host": place.host_header},
                        body=body,
                        tls_name=place.tls_name,
                        destination=destination,
                    )
                )
            except Unreachable as error:
                # The next place only where this one cannot have heard of it.
                if error.connected or number == len(places):
                    raise
        raise Unreachable(destination, "there is no place where it could be")


def target_of(path: str, query: Query = ()) -> str:
    """Path and query as they are signed and sent; the path is encoded already."""
    if not query:
        return path
    pairs = [(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in query]
    return f"{path}?{urlencode(pairs, quote_via=quote, safe='')}"


def path_of(prefix: str, *segments: str) -> str:
    """A path that ends with values, each encoded."""
    return "/".join([prefix, *(quote(segment, safe="") for segment in segments)])


async def _members(
    destination: str, answer: StreamedAnswer, lists: Collection[str]
) -> AsyncIterator[tuple[str, Any]]:
    parser = ObjectStream(lists, _MAX_ELEMENT_BYTES)
    try:
        async for chunk in answer.chunks():
            for member in parser.feed(chunk):
                yield member
        for member in parser.end():
            yield member
    except NotJson as error:
        raise BadAnswer(destination, str(error)) from None


async def _refusal(destination: str, answer: StreamedAnswer) -> Refused | BadAnswer:
    if answer.status < 400:
        return BadAnswer(destination, f"answered with status {answer.status}")
    body = b""
    with contextlib.suppress(BadAnswer, Unreachable):
        async for chunk in answer.chunks():
            body += chunk
            if len(body) > _ERROR_LIMIT_BYTES:
                body = b""
                break
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        said = {}
    errcode, error, room_version = said.get("errcode"), said.get("error"), said.get("room_version")
    return Refused(
        destination,
        answer.status,
        errcode if isinstance(errcode, str) else None,
        error if isinstance(error, str) else "",
        _retry_after_ms(said.get("retry_after_ms"), answer.headers.get("Retry-After")),
        room_version if isinstance(room_version, str) else None,
    )


def _retry_after_ms(in_body: Any, in_header: str | None) -> int | None:
    if isinstance(in_body, int | float) and not isinstance(in_body, bool) and 0 <= in_body < math.inf:
        return int(min(in_body, _MAX_RETRY_MS))
    if in_header is not None and in_header.isascii() and in_header.isdigit():
        return min(int(in_header[:10]) * 1000, _MAX_RETRY_MS)
    return None
