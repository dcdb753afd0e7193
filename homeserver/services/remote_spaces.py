"""Rooms and spaces that nobody here is in, as servers that are in them describe them (SS "Spaces").

"Responses to this endpoint should be cached for a period of time": by room and by the server that said it, so that what
one server makes up about a room is not told to those who ask by way of another.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from federation.errors import FederationError
from federation.server_names import is_server_name
from homeserver.ids import RoomId, ServerName, is_room_id, server_name_of
from homeserver.services.described_rooms import SPACE, read_child, read_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from federation.answers import Hierarchy
    from federation.client import FederationClient
    from homeserver.clock import Clock
    from homeserver.services.server_calls import ServerCalls

_MAX_ASKED = 3
_MAX_CHILDREN = 1_000
_KEPT_SECONDS = 300.0
_KEPT_UNKNOWN_SECONDS = 60.0
_MAX_KEPT_BYTES = 16 << 20
_MAX_KEPT = 2_000
_MAX_ROUTES = 10_000
_ENTRY_BYTES = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteSpace:
    """A room, and if it is a space, what its server knows of its children."""

    summary: dict[str, Any]
    children_state: Sequence[dict[str, Any]]
    children: Mapping[RoomId, dict[str, Any]]
    inaccessible: frozenset[RoomId]
    """ "... should be considered as not accessible from anywhere." """


class RemoteSpaces:
    """Asks servers about rooms, and remembers for a while what they say."""

    def __init__(
        self, server_name: ServerName, client: FederationClient, calls: ServerCalls, clock: Clock
    ) -> None:
        self._server_name = server_name
        self._client = client
        self._calls = calls
        self._clock = clock
        self._kept: OrderedDict[tuple[RoomId, ServerName], tuple[float, int, RemoteSpace | None]] = (
            OrderedDict()
        )
        self._kept_bytes = 0
        self._routes: OrderedDict[RoomId, list[ServerName]] = OrderedDict()

    async def look_up(self, room_id: RoomId, via: Sequence[str]) -> RemoteSpace | None:
        """A room by way of the first of these servers that knows it; None where none does.

        Also asked are those by which somebody came across the room lately, and the one that made it.
        """
        names = [*via[:_MAX_ASKED], *self._routes.get(room_id, ()), server_name_of(room_id)]
        servers = [ServerName(name) for name in dict.fromkeys(names) if is_server_name(name)]
        for server in [name for name in servers if name != self._server_name][:_MAX_ASKED]:
            found = await self._of(room_id, server)
            if found is not None:
                return found
        return None

    def note_route(self, room_id: RoomId, via: Sequence[str]) -> None:
        """Remember by which servers a room can be found: who comes across it may ask about it next."""
        self._routes.pop(room_id, None)
        self._routes[room_id] = [ServerName(name) for name in via[:_MAX_ASKED] if is_server_name(name)]
        if len(self._routes) > _MAX_ROUTES:
            self._routes.popitem(last=False)

    async def _of(self, room_id: RoomId, server: ServerName) -> RemoteSpace | None:
        key = (room_id, server)
        if key in self._kept:
            until, size, known = self._kept[key]
            if self._clock.monotonic() < until:
                self._kept.move_to_end(key)
                return known
            del self._kept[key]
            self._kept_bytes -= size
        try:
            answer = await self._calls.ask(server, lambda: self._client.hierarchy(server, room_id))
        except FederationError as error:
            _log.info("room_not_described", room_id=room_id, server=server, why=str(error))
            found = None
        else:
            found = _read(room_id, answer)
        self._keep(key, found)
        return found

    def _keep(self, key: tuple[RoomId, ServerName], found: RemoteSpace | None) -> None:
        size, seconds = _ENTRY_BYTES, _KEPT_UNKNOWN_SECONDS
        if found is not None:
            content = [found.summary, *found.children_state, *found.children.values()]
            size, seconds = size + len(orjson.dumps(content)), _KEPT_SECONDS
        if key in self._kept:
            self._kept_bytes -= self._kept.pop(key)[1]
        self._kept[key] = (self._clock.monotonic() + seconds, size, found)
        self._kept_bytes += size
        while self._kept_bytes > _MAX_KEPT_BYTES or len(self._kept) > _MAX_KEPT:
            self._kept_bytes -= self._kept.popitem(last=False)[1][1]


def _read(room_id: RoomId, answer: Hierarchy) -> RemoteSpace | None:
    summary = read_summary(answer.room)
    if summary is None or summary["room_id"] != room_id:
        return None
    if summary.get("room_type") != SPACE:
        return RemoteSpace(summary, (), {}, frozenset())
    told = answer.room.get("children_state")
    state = [read_child(one) for one in (told[:_MAX_CHILDREN] if isinstance(told, list) else ())]
    children = [read_summary(one) for one in answer.children[:_MAX_CHILDREN]]
    return RemoteSpace(
        summary,
        [one for one in state if one is not None],
        {RoomId(one["room_id"]): one for one in children if one is not None},
        frozenset(RoomId(one) for one in answer.inaccessible_children[:_MAX_CHILDREN] if is_room_id(one)),
    )
