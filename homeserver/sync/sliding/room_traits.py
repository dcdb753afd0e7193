"""What lists are filtered by that stands in the state of rooms: type, encryption, name, and what is in which space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from homeserver.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.eventgraph.event import StateKey
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stripped_state import StrippedStateStore
    from homeserver.sync.sliding.request import RoomListFilter, WantedTraits
    from homeserver.sync.sliding.room_order import RoomOrder

_CREATE: StateKey = ("m.room.create", "")
_ENCRYPTION: StateKey = ("m.room.encryption", "")
_NAME: StateKey = ("m.room.name", "")
_SPACE_CHILD = "m.space.child"
_MAX_FILTERS = 50


class _Traits(NamedTuple):
    room_type: str | None
    is_encrypted: bool
    name: str


class RoomTraits:
    """Keeps for each user which of their rooms pass a filter, and looks again only at rooms where something happened."""

    def __init__(self, reader: RoomReader, stripped_state: StrippedStateStore) -> None:
        self._reader = reader
        self._stripped_state = stripped_state

    async def match(self, order: RoomOrder, filters: Iterable[RoomListFilter]) -> bool:
        """Bring `order.matching` and `order.children` up to date; whether the database was asked for it."""
        wanted = {one.traits for one in filters if one.asks_for_traits}
        spaces = {space for one in filters if one.spaces is not None for space in one.spaces}
        async with order.filtering:
            missing = [row.room_id for row in _joined(order, spaces) if row.room_id not in order.children]
            new = wanted - order.matching.keys()
            changed = order.changed_rooms
            looked_at = order.matching or order.children
            if not missing and not new and not (changed and looked_at):
                return False
            order.changed_rooms = set()
            try:
                await self._bring_up_to_date(order, changed, missing, new)
            except BaseException:
                order.matching.clear()
                order.children.clear()
                raise
        return True

    async def _bring_up_to_date(
        self, order: RoomOrder, changed: set[RoomId], missing: list[RoomId], new: set[WantedTraits]
    ) -> None:
        for space in {*missing, *(space for space in changed if space in order.children)}:
            order.children[space] = await self._children(space)
        if changed and order.matching:
            await self._look_again(order, changed)
        if new:
            traits = await self._load(order, list(order.rooms.values()))
            if len(order.matching) > _MAX_FILTERS:
                order.matching.clear()
            for one in new:
                order.matching[one] = {room_id for room_id, has in traits.items() if _passes(has, one)}

    async def _look_again(self, order: RoomOrder, changed: Iterable[RoomId]) -> None:
        rows = [order.rooms[room_id] for room_id in changed if room_id in order.rooms]
        traits = {row.room_id: await self._of_room(row) for row in rows}
        for one, matching in order.matching.items():
            for room_id, has in traits.items():
                if _passes(has, one):
                    matching.add(room_id)
                else:
                    matching.discard(room_id)

    async def _load(self, order: RoomOrder, rows: list[MembershipRow]) -> dict[RoomId, _Traits]:
        """The same for many rooms: one question for all that the user is in."""
        joined = {row.room_nid: row.room_id for row in rows if row.membership == "join"}
        states = await self._reader.state_entries_of_rooms(joined, (_CREATE, _ENCRYPTION, _NAME))
        traits = {
            joined[room_nid]: _traits({key: event.content for key, event in state.items()})
            for room_nid, state in states.items()
        }
        for row in rows:
            if row.membership != "join" and (row.room_id in order.listed or row.room_id in order.left):
                traits[row.room_id] = await self._of_room(row)
        return traits

    async def _of_room(self, row: MembershipRow) -> _Traits:
        keys = (_CREATE, _ENCRYPTION, _NAME)
        if row.membership != "join":
            told = await self._stripped_state.get(row.user_id, row.room_nid)
            if told is not None:
                return _traits(_contents(orjson.loads(told)))
        if row.membership in ("join", "invite", "knock"):
            state = await self._reader.state_entries(row.room_id, keys)
            return _traits({key: event.content for key, event in state.items()})
        # What became of the room since they went out is not theirs to know.
        snapshot = await self._reader.snapshot_at(row.room_id, row.stream_id)
        stored = await self._reader.stored_entries_at(snapshot, keys)
        return _traits({one.event.key: one.event.content for one in stored})

    async def _children(self, space: RoomId) -> frozenset[RoomId]:
        """The rooms that a space lists. "Servers MUST NOT navigate subspaces." """
        events = await self._reader.state_of_type(space, _SPACE_CHILD)
        return frozenset(
            RoomId(room_id) for room_id, event in events.items() if isinstance(event.content.get("via"), list)
        )


def _joined(order: RoomOrder, room_ids: Iterable[str]) -> list[MembershipRow]:
    rows = (order.rooms.get(RoomId(room_id)) for room_id in room_ids)
    return [row for row in rows if row is not None and row.membership == "join"]


def _contents(stripped: Any) -> dict[StateKey, Mapping[str, Any]]:
    """Stripped state by key, as far as it is well formed: another server may have written it."""
    return {
        (event["type"], event["state_key"]): event["content"]
        for event in stripped
        if isinstance(event, dict)
        and isinstance(event.get("type"), str)
        and isinstance(event.get("state_key"), str)
        and isinstance(event.get("content"), dict)
    }


def _traits(state: Mapping[StateKey, Mapping[str, Any]]) -> _Traits:
    room_type, name = state.get(_CREATE, {}).get("type"), state.get(_NAME, {}).get("name")
    return _Traits(
        room_type if isinstance(room_type, str) else None,
        _ENCRYPTION in state,
        name if isinstance(name, str) else "",
    )


def _passes(has: _Traits, wanted: WantedTraits) -> bool:
    if wanted.is_encrypted is not None and has.is_encrypted is not wanted.is_encrypted:
        return False
    if wanted.room_types is not None and has.room_type not in wanted.room_types:
        return False
    if wanted.room_name_like and wanted.room_name_like.casefold() not in has.name.casefold():
        return False
    return has.room_type not in wanted.not_room_types
