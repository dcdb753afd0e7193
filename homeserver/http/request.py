"""Requests as handlers see them: path parameters, the query, a bounded body."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
import orjson
import pydantic
from starlette.requests import ClientDisconnect

from crypto import exact_json
from crypto.canonical_json import MAX_DEPTH
from homeserver.errors import BadJson, InvalidParam, MatrixError, MissingParam, NotJson, TooLarge
from homeserver.http.body_budget import FREE_BYTES
from homeserver.http.compression import decompress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Message, Receive, Scope

    from homeserver.http.body_budget import BodyBudget, BodyShare
    from homeserver.http.routing import Route

Model = TypeVar("Model", bound=pydantic.BaseModel)
Form = TypeVar("Form", bound=msgspec.Struct)

_MAX_FIELDS = 200
_CACHED_TEXTS = 2_000
_MAX_CACHED_BYTES = 1_000
_TRUE = {"true", "1"}
_FALSE = {"false", "0"}


class Query:
    """The parameters of a query string."""

    __slots__ = ("_values",)

    def __init__(self, raw: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        fields = raw.split(b"&", _MAX_FIELDS)
        if len(fields) > _MAX_FIELDS:
            raise InvalidParam("The query has too many parameters")
        for field in fields:
            if not field:
                continue
            raw_name, _, raw_value = field.partition(b"=")
            name, value = _decode(raw_name), _decode(raw_value)
            if "\x00" in value:
                message = f"`{name}` holds the character U+0000"
                raise InvalidParam(message)
            self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str | None:
        """The (first) value of a parameter."""
        values = self._values.get(name)
        return values[0] if values else None

    def get_all(self, name: str) -> list[str]:
        """All values of a parameter that may stand there several times."""
        return self._values.get(name, [])

    def require(self, name: str) -> str:
        """The value of a parameter that must be there."""
        value = self.get(name)
        if value is None:
            message = f"`{name}` is missing"
            raise MissingParam(message)
        return value

    def get_int(self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**53 - 1) -> int:
        """A whole number; one above `maximum` is taken for `maximum`."""
        value = self.get(name)
        if value is None:
            return default
        # Of the many forms that Python takes only the plain one is a number here.
        if not value.isascii() or not value.isdigit() or len(value) > 20 or int(value) < minimum:
            message = f"`{name}` is not a number of at least {minimum}"
            raise InvalidParam(message)
        return min(int(value), maximum)

    def get_bool(self, name: str, *, default: bool = False) -> bool:
        """`true` or `false`."""
        value = self.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        message = f"`{name}` is neither true nor false"
        raise InvalidParam(message)

    def get_choice(self, name: str, choices: tuple[str, ...], default: str | None) -> str | None:
        """One of some words."""
        value = self.get(name)
        if value is None:
            return default
        if value not in choices:
            message = f"`{name}` is none of {', '.join(choices)}"
            raise InvalidParam(message)
        return value


def _decode(raw: bytes) -> str:
    """A name or a value of a query."""
    try:
        if b"%" not in raw and b"+" not in raw:
            return raw.decode("ascii")
        # Clients send the same filter again and again.
        return _decode_escaped(raw) if len(raw) <= _MAX_CACHED_BYTES else _decode_escaped.__wrapped__(raw)
    except UnicodeDecodeError as error:
        raise InvalidParam("The query is not valid") from error


@functools.lru_cache(_CACHED_TEXTS)
def _decode_escaped(raw: bytes) -> str:
    raw.decode("ascii")
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode()


class Request:
    """One request."""

    __slots__ = (
        "_body",
        "_budget",
        "_headers",
        "_query",
        "_receive",
        "_share",
        "client_address",
        "path_parameters",
        "request_id",
        "route",
        "scope",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        route: Route,
        path_parameters: dict[str, str],
        client_address: str,
        request_id: str,
        budget: BodyBudget,
    ) -> None:
        self.scope = scope
        self._budget = budget
        self._share: BodyShare | None = None
        self._receive = receive
        self.route = route
        self.path_parameters = path_parameters
        self.client_address = client_address
        self.request_id = request_id
        self._query: Query | None = None
        self._headers: dict[bytes, bytes] | None = None
        self._body: bytes | None = None

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path as it was decoded by the server."""
        return str(self.scope["path"])

    def header(self, name: bytes) -> str | None:
        """A header by its name in small letters, the first where there are several."""
        if self._headers is None:
            self._headers = dict(reversed(self.scope["headers"]))
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def query(self) -> Query:
        """The parameters of the query."""
        if self._query is None:
            self._query = Query(self.scope["query_string"])
        return self._query

    async def body(self) -> bytes:
        """The body; `TooLarge` past the route's bound, and reading stops there.

        How long a client may take for it is the business of `homeserver.http.connections`, how much there may be of all
        bodies together, that of `homeserver.http.body_budget`.
        """
        if self._body is None:
            self._body = await self._read_body()
        return self._body

    async def _read_body(self) -> bytes:
        most = self.route.max_body_bytes
        self._check_length()
        part = await self._receive()
        coding = self._coding()
        body: bytes = part.get("body", b"")
        if part.get("more_body") or len(body) > FREE_BYTES or coding != "identity":
            return await self._read_large_body(part, coding, most)
        if part["type"] == "http.disconnect":
            raise ClientDisconnect
        if len(body) > most:
            raise _too_large(most)
        return body

    async def _read_large_body(self, part: Message, coding: str, most: int) -> bytes:
        """A body that counts in the budget: it comes in parts, or grows."""
        self._share = share = self._budget.share()
        async with share.reading():
            parts, total = [part.get("body", b"")], len(part.get("body", b""))
            await share.grow_to(max(total, self.content_length or 0))
            while part.get("more_body") and total <= most:
                part = await self._receive()
                parts.append(part.get("body", b""))
                total += len(parts[-1])
                await share.grow_to(total)
            if part["type"] == "http.disconnect":
                raise ClientDisconnect
            if total > most:
                raise _too_large(most)
            body = b"".join(parts)
            parts.clear()
            if coding != "identity":
                # Nobody knows how large it is before it is there.
                await share.grow_to(len(body) + most)
                body = await decompress(body, coding, most)
                share.shrink_to(len(body))
        return body

    def release(self) -> None:
        """The body is not needed any more."""
        if self._share is not None:
            self._body = b""
            self._share.release()
            self._share = None

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, instead of `body`, and not kept; `TooLarge` past the route's bound."""
        most = self.route.max_body_bytes
        self._check_length()
        if self._coding() != "identity":
            message = "A file is taken as it is, without a `Content-Encoding`"
            raise MatrixError(message, status=415)
        total, more = 0, True
        while more:
            part = await self._receive()
            if part["type"] == "http.disconnect":
                raise ClientDisconnect
            body: bytes = part.get("body", b"")
            total += len(body)
            if total > most:
                raise _too_large(most)
            if body:
                yield body
            more = part.get("more_body", False)

    @property
    def content_length(self) -> int | None:
        """How many bytes the body is said to have."""
        length = self.header(b"content-length")
        return int(length[:20]) if length is not None and length.isdigit() else None

    def _check_length(self) -> None:
        length, most = self.content_length, self.route.max_body_bytes
        if length is not None and length > most:
            raise _too_large(most)

    def _coding(self) -> str:
        return (self.header(b"content-encoding") or "identity").strip().lower()

    async def json(self, *, allow_empty: bool = False) -> dict[str, Any]:
        """The body as a JSON object; `NotJson` or `BadJson` for anything else."""
        return await self._object(orjson.loads, allow_empty=allow_empty)

    async def exact_json(self) -> dict[str, Any]:
        """The same with every integer as it stands there (`crypto.exact_json`): only for what was signed so."""
        return await self._object(exact_json.loads)

    async def _object(self, loads: Callable[[bytes], Any], *, allow_empty: bool = False) -> dict[str, Any]:
        body = await self.body()
        if allow_empty and not body.strip():
            return {}
        try:
            value = loads(body)
        except orjson.JSONDecodeError as error:
            message = "The body is not JSON"
            raise NotJson(message) from error
        if not isinstance(value, dict):
            message = "The body is not a JSON object"
            raise BadJson(message)
        if len(body) > MAX_DEPTH:
            check_depth(value, self.route.max_depth)
        return value

    async def parse(self, model: type[Model], *, allow_empty: bool = False) -> Model:
        """The body as a model; the error names the field that is missing or of the wrong type."""
        return parse(model, await self.json(allow_empty=allow_empty))

    async def decode(self, form: type[Form]) -> Form:
        """The body in a form whose `msgspec.Raw` fields keep the bytes that came; `NotJson` or `BadJson`."""
        # What is kept so is not looked at. It is JSON in every corner, and not nested absurdly, or it is refused here.
        await self.json()
        try:
            return msgspec.json.decode(await self.body(), type=form)
        except msgspec.DecodeError as error:
            message = "The body is not of the form that this endpoint takes"
            raise BadJson(message) from error

    async def disconnected(self) -> None:
        """Return when the client has gone away. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class WhileConnected:
    """Ends what is done inside when the client goes away, with `ClientDisconnect`. Only after the body was read."""

    __slots__ = ("_gone", "_request", "_task", "_watching")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._gone = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        # It was read; what waits holds nothing that others may need.
        self._request.release()
        self._watching = asyncio.create_task(self._request.disconnected())
        self._watching.add_done_callback(self._end)

    def _end(self, watching: asyncio.Task[None]) -> None:
        if not watching.cancelled() and self._task is not None:
            self._gone = True
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        self._watching.cancel()
        # As `asyncio.timeout` does: only the cancellation that was asked for here becomes an error.
        if self._gone and task is not None and task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientDisconnect


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The body has more than {most} bytes")


def parse(model: type[Model], value: dict[str, Any]) -> Model:
    """A JSON object as a model; `MissingParam` or `BadJson`, naming the field."""
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            message = f"`{field}` is missing"
            raise MissingParam(message) from error
        message = f"`{field}`: {first['msg']}"
        raise BadJson(message) from error


def check_depth(value: Any, most: int = MAX_DEPTH) -> None:
    """Refuse JSON that is nested absurdly."""
    layer = [value]
    for _ in range(most):
        layer = [
            child
            for item in layer
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
        if not layer:
            return
    message = "The body is nested too deeply"
    raise BadJson(message)


class Body(pydantic.BaseModel):
    """The base of the models of request bodies: unknown fields are ignored, types are not guessed."""

    model_config = pydantic.ConfigDict(strict=True, extra="ignore", frozen=True)
