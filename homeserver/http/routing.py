"""Finds the handler of a request: a tree of path segments, so that the cost does not grow with the number of routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from crypto.canonical_json import MAX_DEPTH
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

    A trailing slash makes no difference. `max_body_bytes` bounds the request's body, `max_depth` how deep it is.
    """

    method: str
    path: str
    handler: Handler
    max_body_bytes: int = MEBIBYTE
    max_depth: int = MAX_DEPTH


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


class Match(NamedTuple):
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
        found = _walk(self._root, segments)
        if found is None:
            return None
        node, values = found
        entry = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if entry is None:
            return set(node.routes)
        route, names = entry
        if b"%" in raw_path or not raw_path.isascii():
            values = [_decode(value) for value in values]
        return Match(route, dict(zip(names, values, strict=True)))


def _walk(root: _Node, segments: list[str]) -> tuple[_Node, list[str]] | None:
    """The node at the end of a path and the values on the way to it; a fixed segment goes before a parameter."""
    node, values, index = root, [], 0
    # Where there was a choice: what to go on with if the fixed segment leads nowhere.
    choices: list[tuple[_Node, list[str], int]] = []
    while True:
        following: _Node | None = None
        if index < len(segments):
            segment = segments[index]
            following = node.children.get(segment)
            if following is None:
                following = node.parameter
                if following is not None:
                    values.append(segment)
            elif node.parameter is not None:
                choices.append((node.parameter, [*values, segment], index + 1))
        elif node.routes:
            return node, values
        if following is not None:
            node = following
            index += 1
        elif choices:
            node, values, index = choices.pop()
        else:
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
