"""The tree of a space (CS "Spaces")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden
from homeserver.ids import RoomId, is_room_id
from homeserver.services.room_summaries import summary_of
from homeserver.views.client_events import stripped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import UserId
    from homeserver.rooms.reader import RoomOutline, RoomReader
    from homeserver.services.room_summaries import RoomSummaries
    from homeserver.views.tokens import Tokens

MAX_ROOMS = 50
MAX_DEPTH = 20
_ORDER = re.compile(r"[\x20-\x7e]{1,50}")
_CREATE = ("m.room.create", "")
_SPACE = "m.space"
_PAGES = "hierarchy"
_MAX_WALKED = 2_000
_READ_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the tree of a space is asked for."""

    since: str | None
    limit: int
    max_depth: int
    suggested_only: bool


class Spaces:
    """Walks trees of spaces, as far as the one who asks may know of their rooms."""

    def __init__(self, rooms: RoomReader, summaries: RoomSummaries, tokens: Tokens) -> None:
        self._rooms = rooms
        self._summaries = summaries
        self._tokens = tokens

    async def hierarchy(self, room_id: RoomId, user_id: UserId, page: Page) -> dict[str, Any]:
        """A page of the tree of a space, depth first; `Forbidden` for who may not see the space."""
        kind = f"{_PAGES} {room_id} {page.suggested_only} {page.max_depth}"
        offset = self._tokens.read_offset(kind, page.since) if page.since is not None else 0
        known = await self._summaries.outlines([room_id])
        if room_id not in known or not await self._summaries.may_know(known[room_id], user_id):
            raise Forbidden("You may not see this room")
        rooms: list[dict[str, Any]] = []
        asked, walked = {room_id}, set[RoomId]()
        number = 0
        stack = [(room_id, 0)]
        while stack and len(walked) < _MAX_WALKED:
            current, depth = stack.pop()
            if current not in asked:
                coming = {current, *(later for later, _ in stack[-_READ_AT_ONCE:])} - asked
                asked |= coming
                known |= await self._summaries.outlines(coming)
            room = known.get(current)
            if current in walked or room is None:
                continue
            walked.add(current)
            if not await self._summaries.may_know(room, user_id):
                continue
            children = await self.children(room, suggested_only=page.suggested_only)
            if number >= offset:
                if len(rooms) == page.limit:
                    return {"rooms": rooms, "next_batch": self._tokens.offset(kind, offset + page.limit)}
                rooms.append(with_children(room, children))
            number += 1
            if depth < page.max_depth:
                stack += [(RoomId(child.state_key or ""), depth + 1) for child in reversed(children)]
        return {"rooms": rooms}

    async def children(self, room: RoomOutline, *, suggested_only: bool) -> list[Event]:
        """The `m.space.child` events of a space, in their order; none where the room is no space."""
        create = room.state.get(_CREATE)
        if create is None or create.content.get("type") != _SPACE:
            return []
        children = []
        for key, event in (await self._rooms.state_of_type(room.room_id, "m.space.child")).items():
            via = event.content.get("via")
            if not isinstance(via, list) or not via or not is_room_id(key):
                continue
            if suggested_only and event.content.get("suggested") is not True:
                continue
            children.append(event)
        return sorted(children, key=_child_order)


def with_children(room: RoomOutline, children: Sequence[Event]) -> dict[str, Any]:
    """A room of a tree, with what it says of its children."""
    state = [{**stripped(child), "origin_server_ts": child.origin_server_ts} for child in children]
    return {**summary_of(room), "children_state": state}


def _child_order(event: Event) -> tuple[bool, str, int, str]:
    """CS "Ordering of children within a space": by `order` where it is valid, then by age, then by room id."""
    order = event.content.get("order")
    valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    return (
        not valid,
        order if valid and isinstance(order, str) else "",
        event.origin_server_ts,
        event.state_key or "",
    )
