"""The tree of a space (CS "Spaces")."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden
from homeserver.ids import RoomId, is_room_id
from homeserver.services.described_rooms import SPACE
from homeserver.services.remote_spaces import RemoteSpace
from homeserver.services.room_previews import inviter_of
from homeserver.services.room_summaries import summary_of
from homeserver.views.client_events import stripped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.ids import UserId
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.reader import RoomOutline, RoomReader
    from homeserver.services.remote_spaces import RemoteSpaces
    from homeserver.services.room_summaries import RoomSummaries
    from homeserver.views.tokens import Tokens

MAX_ROOMS = 50
MAX_DEPTH = 20
_ORDER = re.compile(r"[\x20-\x7e]{1,50}")
_CREATE = ("m.room.create", "")
_PAGES = "hierarchy"
_MAX_WALKED = 2_000
_READ_AT_ONCE = 100
_MAX_ASKED = 100
_ASKED_AT_ONCE = 10
_SECONDS_AT_ONCE = 10.0
_MAX_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the tree of a space is asked for."""

    since: str | None
    limit: int
    max_depth: int
    suggested_only: bool


@dataclass(slots=True)
class _Walk:
    """One walk through a tree, and what was learnt of its rooms on the way."""

    user_id: UserId
    suggested_only: bool
    until: float
    known: dict[RoomId, RoomOutline] = field(default_factory=dict)
    """Rooms of which this server knows for itself."""
    looked_for: set[RoomId] = field(default_factory=set)
    elsewhere: dict[RoomId, RemoteSpace | None] = field(default_factory=dict)
    """Rooms that other servers were asked for."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A room of the tree that is yet to be looked at."""

    room_id: RoomId
    depth: int
    via: Sequence[str]
    parent: RemoteSpace | None = None
    """The space elsewhere that it was come across in, with what was told of it there."""

    @property
    def told(self) -> RemoteSpace | None:
        """What was told of it along with its parent: all there is, unless it is a space itself."""
        summary = self.parent.children.get(self.room_id) if self.parent is not None else None
        if summary is None or summary.get("room_type") == SPACE:
            return None
        return RemoteSpace(summary, (), {}, frozenset())

    @property
    def is_settled(self) -> bool:
        """Whether nobody is to be asked: it was told, or is not for anybody here."""
        barred = self.parent is not None and self.room_id in self.parent.inaccessible
        return barred or self.told is not None


class Spaces:
    """Walks trees of spaces, as far as the one who asks may know of their rooms."""

    def __init__(
        self,
        rooms: RoomReader,
        hosted: HostedRooms,
        summaries: RoomSummaries,
        remote: RemoteSpaces,
        tokens: Tokens,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._hosted = hosted
        self._summaries = summaries
        self._remote = remote
        self._tokens = tokens
        self._clock = clock

    async def hierarchy(self, room_id: RoomId, user_id: UserId, page: Page) -> dict[str, Any]:
        """A page of the tree of a space, depth first; `Forbidden` for who may not see the space.

        Rooms that nobody here is in are asked for at the servers that the tree names. One that no server tells of within
        the time is left out.
        """
        kind = f"{_PAGES} {room_id} {page.suggested_only} {page.max_depth}"
        offset = self._tokens.read_offset(kind, page.since) if page.since is not None else 0
        walk = _Walk(user_id, page.suggested_only, self._clock.monotonic() + _MAX_SECONDS)
        via = inviter_of(await self._rooms.membership(room_id, user_id))
        stack = [_Step(room_id, 0, via)]
        if (await self._look(walk, stack[0], []))[0] is None:
            raise Forbidden("You may not see this room")
        rooms: list[dict[str, Any]] = []
        walked = set[RoomId]()
        number = 0
        while stack and len(walked) < _MAX_WALKED:
            step = stack.pop()
            if step.room_id in walked:
                continue
            walked.add(step.room_id)
            entry, parent = await self._look(walk, step, stack)
            if entry is None:
                continue
            if number >= offset:
                if len(rooms) == page.limit:
                    return {"rooms": rooms, "next_batch": self._tokens.offset(kind, offset + page.limit)}
                rooms.append(entry)
            number += 1
            if step.depth < page.max_depth:
                stack += [
                    _Step(RoomId(child["state_key"]), step.depth + 1, _via_of(child), parent)
                    for child in reversed(entry["children_state"])
                ]
        return {"rooms": rooms}

    async def _look(
        self, walk: _Walk, step: _Step, stack: Sequence[_Step]
    ) -> tuple[dict[str, Any] | None, RemoteSpace | None]:
        """A room with its children, for who may know of it, and what another server says, where it is elsewhere.

        `stack` is what is looked at next.
        """
        await self._read(walk, step, stack)
        room = walk.known.get(step.room_id)
        if room is not None and not await self._is_elsewhere(walk, step.room_id):
            return await self._entry(walk, room), None
        found = await self._elsewhere(walk, step, stack)
        if found is not None:
            if not await self._summaries.may_know_described(found.summary, walk.user_id):
                return None, None
            return {**found.summary, "children_state": self._told(walk, found.children_state)}, found
        # Of a room that everybody here has left this server knows how it was.
        return (await self._entry(walk, room) if room is not None else None), None

    async def _entry(self, walk: _Walk, room: RoomOutline) -> dict[str, Any] | None:
        if not await self._summaries.may_know(room, walk.user_id):
            return None
        return with_children(room, await self.children(room, suggested_only=walk.suggested_only))

    async def _read(self, walk: _Walk, step: _Step, stack: Sequence[_Step]) -> None:
        """Read what this server knows of a room, and of the next ones with it."""
        if step.room_id not in walk.looked_for:
            coming = {step.room_id, *(later.room_id for later in stack[-_READ_AT_ONCE:])} - walk.looked_for
            walk.looked_for |= coming
            walk.known |= await self._summaries.outlines(coming)

    # -- rooms elsewhere -------------------------------------------------------------------------------

    async def _elsewhere(self, walk: _Walk, step: _Step, stack: Sequence[_Step]) -> RemoteSpace | None:
        """A room that nobody here is in; the next ones like it are asked for at the same time."""
        if step.is_settled:
            return step.told
        if step.room_id not in walk.elsewhere:
            coming = [step]
            for later in reversed(stack[-_READ_AT_ONCE:]):
                if len(coming) < _ASKED_AT_ONCE and await self._is_to_be_asked_for(walk, later):
                    coming.append(later)
            await self._ask(walk, {one.room_id: one.via for one in coming})
        return walk.elsewhere.get(step.room_id)

    async def _is_to_be_asked_for(self, walk: _Walk, step: _Step) -> bool:
        room_id = step.room_id
        if room_id in walk.elsewhere or room_id not in walk.looked_for or step.is_settled:
            return False
        return room_id not in walk.known or await self._is_elsewhere(walk, room_id)

    async def _is_elsewhere(self, walk: _Walk, room_id: RoomId) -> bool:
        """Whether nobody here is in a room; who asks is looked at first, whose rooms are in memory."""
        row = await self._rooms.membership(room_id, walk.user_id)
        return not (row is not None and row.membership == "join") and await self._hosted.is_elsewhere(room_id)

    async def _ask(self, walk: _Walk, rooms: Mapping[RoomId, Sequence[str]]) -> None:
        left = min(walk.until - self._clock.monotonic(), _SECONDS_AT_ONCE)
        if left <= 0 or len(walk.elsewhere) >= _MAX_ASKED:
            return
        walk.elsewhere.update(dict.fromkeys(rooms))

        async def ask(room_id: RoomId, via: Sequence[str]) -> None:
            walk.elsewhere[room_id] = await self._remote.look_up(room_id, via)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await asyncio.gather(*(ask(room_id, via) for room_id, via in rooms.items()))

    def _told(self, walk: _Walk, state: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The children of a space elsewhere, in their order."""
        children = [
            child for child in state if not walk.suggested_only or child["content"].get("suggested") is True
        ]
        for child in children:
            self._remote.note_route(RoomId(child["state_key"]), child["content"]["via"])
        return sorted(children, key=_told_order)

    # -- spaces here -----------------------------------------------------------------------------------

    async def children(self, room: RoomOutline, *, suggested_only: bool) -> list[Event]:
        """The `m.space.child` events of a space, in their order; none where the room is no space."""
        create = room.state.get(_CREATE)
        if create is None or create.content.get("type") != SPACE:
            return []
        children = []
        for key, event in (await self._rooms.state_of_type(room.room_id, "m.space.child")).items():
            via = event.content.get("via")
            if not isinstance(via, list) or not via or not is_room_id(key):
                continue
            if suggested_only and event.content.get("suggested") is not True:
                continue
            self._remote.note_route(RoomId(key), [name for name in via if isinstance(name, str)])
            children.append(event)
        return sorted(children, key=_child_order)


def _via_of(child: Mapping[str, Any]) -> list[str]:
    return [name for name in child["content"]["via"] if isinstance(name, str)]


def with_children(room: RoomOutline, children: Sequence[Event]) -> dict[str, Any]:
    """A room of a tree, with what it says of its children."""
    state = [{**stripped(child), "origin_server_ts": child.origin_server_ts} for child in children]
    return {**summary_of(room), "children_state": state}


def _child_order(event: Event) -> tuple[bool, str, int, str]:
    return _order(event.content.get("order"), event.origin_server_ts, event.state_key or "")


def _told_order(child: Mapping[str, Any]) -> tuple[bool, str, int, str]:
    return _order(child["content"].get("order"), child["origin_server_ts"], child["state_key"])


def _order(order: Any, ts: int, room_id: str) -> tuple[bool, str, int, str]:
    """CS "Ordering of children within a space": by `order` where it is valid, then by age, then by room id."""
    valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    return not valid, order if valid else "", ts, room_id
