"""Finds the handler of a request: a tree of path segments, so that the cost does not grow with the number of routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from homeserver.errors import InvalidParam

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from starlette.responses import Response

    from homeserver.http.request import Request

    Handler = Callable[[Request], Awaitable[Response]]

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, as in `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`.

    A trailing slash makes no difference. `max_body_bytes` bounds the request's body.
    """

    method: str
    path: str
    handler: Handler
    max_body_bytes: int = MEBIBYTE


def client(
    method: str,
    path: str,
    handler: Handler,
    versions: Sequence[str] = ("r0", "v3"),
    max_body_bytes: int = MEBIBYTE,
) -> list[Route]:
    """The routes of an endpoint of the client-server API under each of its version prefixes."""
    return [
        Route(method, f"/_matrix/client/{version}{path}", handler, max_body_bytes) for version in versions
    ]


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """A route with the values of its path's parameters."""

    route: Route
    parameters: dict[str, str]


class Router:
    """All routes of a listener."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                if node.parameter is None:
                    node.parameter = _Node()
                node = node.parameter
            else:
                node = node.children.setdefault(segment, _Node())
        if route.method in node.routes:
            message = f"two routes for {route.method} {route.path}"
            raise ValueError(message)
        node.routes[route.method] = (route, tuple(names))

    def find(self, method: str, raw_path: bytes) -> Match | set[str] | None:
        """The match of a request; the methods that the path has, if this is none of them; None for no such path.

        Raises `InvalidParam` for a path that is not UTF-8 or holds U+0000.
        """
        segments = raw_path.decode("latin-1").strip("/").split("/")
        found = _walk(self._root, segments, 0, [])
        if found is None:
            return None
        node, raw_values = found
        entry = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if entry is None:
            return set(node.routes)
        route, names = entry
        return Match(route, {name: _decode(value) for name, value in zip(names, raw_values, strict=True)})


def _walk(node: _Node, segments: list[str], index: int, values: list[str]) -> tuple[_Node, list[str]] | None:
    if index == len(segments):
        return (node, values) if node.routes else None
    segment = segments[index]
    child = node.children.get(segment)
    if child is not None:
        found = _walk(child, segments, index + 1, values)
        if found is not None:
            return found
    if node.parameter is not None and (segment or index < len(segments)):
        return _walk(node.parameter, segments, index + 1, [*values, segment])
    return None


def _decode(raw: str) -> str:
    if "%" not in raw and raw.isascii():
        return raw
    try:
        value = unquote_to_bytes(raw.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError as error:
        message = "The path is not UTF-8"
        raise InvalidParam(message) from error
    if "\x00" in value:
        message = "The path holds the character U+0000"
        raise InvalidParam(message)
    return value
