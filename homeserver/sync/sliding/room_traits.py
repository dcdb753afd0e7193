"""What lists are filtered by that stands in the state of rooms: type, encryption, name, and what is in which space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from homeserver.ids import RoomId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stripped_state import StrippedStateStore
    from homeserver.sync.sliding.request import RoomListFilter, WantedTraits
    from homeserver.sync.sliding.room_order import RoomOrder
    from homeserver.views.visibility import HistoryVisibility

_CREATE: StateKey = ("m.room.create", "")
_ENCRYPTION: StateKey = ("m.room.encryption", "")
_NAME: StateKey = ("m.room.name", "")
_SPACE_CHILD = "m.space.child"
_MAX_FILTERS = 20
_FEW_ROOMS = 5


class _Traits(NamedTuple):
    room_type: str | None
    is_encrypted: bool
    name: str


class RoomTraits:
    """Keeps for each user which of their rooms pass a filter, and looks again only at rooms where something happened."""

    def __init__(
        self, reader: RoomReader, visibility: HistoryVisibility, stripped_state: StrippedStateStore
    ) -> None:
        self._reader = reader
        self._visibility = visibility
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
            rows = [row for row in order.rooms.values() if row.room_id in order.listed | order.left]
            traits = await self._load(rows, _keys_for(new))
            if len(order.matching) > _MAX_FILTERS:
                order.matching.clear()
            for one in new:
                order.matching[one] = {room_id for room_id, has in traits.items() if _passes(has, one)}

    async def _look_again(self, order: RoomOrder, changed: Iterable[RoomId]) -> None:
        rows = [order.rooms[room_id] for room_id in changed if room_id in order.rooms]
        traits = await self._load(rows, _keys_for(order.matching))
        for one, matching in order.matching.items():
            for room_id, has in traits.items():
                if _passes(has, one):
                    matching.add(room_id)
                else:
                    matching.discard(room_id)

    async def _load(self, rows: Sequence[MembershipRow], keys: Sequence[StateKey]) -> dict[RoomId, _Traits]:
        """What stands in these rooms; one question for all that the user is in, where they are many."""
        joined = {row.room_nid: row.room_id for row in rows if row.membership == "join"}
        if len(joined) <= _FEW_ROOMS:
            return {row.room_id: await self._of_room(row, keys) for row in rows}
        states = await self._reader.state_entries_of_rooms(joined, keys)
        traits = {
            joined[room_nid]: _traits({key: event.content for key, event in state.items()})
            for room_nid, state in states.items()
        }
        for row in rows:
            if row.membership != "join":
                traits[row.room_id] = await self._of_room(row, keys)
        return traits

    async def _of_room(self, row: MembershipRow, keys: Sequence[StateKey]) -> _Traits:
        if row.membership != "join":
            told = await self._stripped_state.get(row.user_id, row.room_nid)
            if told is not None:
                return _traits(_contents(orjson.loads(told)))
        if row.membership in ("join", "invite", "knock"):
            state = await self._reader.state_entries(row.room_id, keys)
            return _traits({key: event.content for key, event in state.items()})
        # What became of the room since they went out is not theirs to know.
        out_at = (await self._visibility.history(row)).last_left(row.stream_id)
        snapshot = await self._reader.snapshot_at(row.room_id, out_at)
        stored = await self._reader.stored_entries_at(snapshot, keys)
        return _traits({one.event.key: one.event.content for one in stored})

    async def _children(self, space: RoomId) -> frozenset[RoomId]:
        """The rooms that a space lists. "Servers MUST NOT navigate subspaces." """
        events = await self._reader.state_of_type(space, _SPACE_CHILD)
        return frozenset(
            RoomId(room_id) for room_id, event in events.items() if isinstance(event.content.get("via"), list)
        )


def _keys_for(wanted: Iterable[WantedTraits]) -> list[StateKey]:
    """The entries of the state that must be read to tell whether a room has what is wanted."""
    keys = set()
    for one in wanted:
        keys |= {_CREATE} if one.room_types is not None or one.not_room_types else set()
        keys |= {_ENCRYPTION} if one.is_encrypted is not None else set()
        keys |= {_NAME} if one.room_name_like else set()
    return sorted(keys)


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
