"""Rooms from outside: summaries, entries of the directory, and who may know of a room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.auth_member import join_rule_of
from homeserver.eventgraph.auth_rules import JOIN_RULES
from homeserver.ids import RoomId
from homeserver.services.restricted_joins import allowed_rooms, is_restricted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import EventId, UserId
    from homeserver.rooms.reader import RoomOutline, RoomReader
    from homeserver.storage.directory import PublishedRoom

_NAMED = ("m.room.name", "m.room.topic", "m.room.avatar", "m.room.canonical_alias")
_OPEN_RULES = ("public", "knock", "knock_restricted")
_KEYS: list[StateKey] = [
    ("m.room.create", ""),
    *((event_type, "") for event_type in _NAMED),
    ("m.room.join_rules", ""),
    ("m.room.guest_access", ""),
    ("m.room.history_visibility", ""),
    ("m.room.encryption", ""),
]


class RoomSummaries:
    """Tells of rooms those who may know of them."""

    def __init__(self, rooms: RoomReader) -> None:
        self._rooms = rooms

    async def entries(
        self, rooms: Sequence[PublishedRoom]
    ) -> list[tuple[dict[str, Any], frozenset[EventId]]]:
        """Rooms as entries of the directory, each with the ids of the events that it came from."""
        states = await self._rooms.state_entries_of_rooms([room.room_nid for room in rooms], _KEYS)
        return [
            (
                _chunk(room.room_id, room.joined_members, states[room.room_nid]),
                frozenset(event.event_id for event in states[room.room_nid].values()),
            )
            for room in rooms
        ]

    async def outlines(self, room_ids: Iterable[RoomId]) -> dict[RoomId, RoomOutline]:
        """What summaries are made of, for those of these rooms that this server knows."""
        return await self._rooms.outlines(room_ids, _KEYS)

    async def may_know(self, room: RoomOutline, user_id: UserId | None) -> bool:
        """Whether somebody may know of a room (CS `GET /hierarchy`): it is open to them, or they are in it.

        Nobody is told of a room that they are banned from, unless all the world may read it.
        """
        return await self._may_know(
            room.room_id, user_id, is_world_readable(room), is_open(room), rooms_that_let_in(room)
        )

    async def may_know_described(self, summary: Mapping[str, Any], user_id: UserId | None) -> bool:
        """The same of a room that nobody here is in, as another server describes it."""
        rule = summary["join_rule"]
        return await self._may_know(
            RoomId(summary["room_id"]),
            user_id,
            summary["world_readable"],
            rule in _OPEN_RULES,
            summary.get("allowed_room_ids", ()) if rule == "restricted" else (),
        )

    async def _may_know(
        self,
        room_id: RoomId,
        user_id: UserId | None,
        world_readable: bool,
        open_to_all: bool,
        let_in: Sequence[RoomId],
    ) -> bool:
        if world_readable:
            return True
        if user_id is None:
            return open_to_all
        rooms = await self._rooms.rooms_of(user_id)
        row = rooms.get(room_id)
        if row is not None and row.membership in ("join", "invite"):
            return True
        if row is not None and row.membership == "ban":
            return False
        return open_to_all or any(
            allowed in rooms and rooms[allowed].membership == "join" for allowed in let_in
        )


def is_world_readable(room: RoomOutline) -> bool:
    """Whether all the world may read a room."""
    return bool(_value(room.state, "m.room.history_visibility", "history_visibility") == "world_readable")


def is_open(room: RoomOutline) -> bool:
    """Whether everybody may come in, or knock."""
    rule, version = join_rule_of(room.state), room.version
    return bool(
        rule == "public"
        or (rule == "knock" and version.has_knock)
        or (rule == "knock_restricted" and version.has_knock_restricted_join)
    )


def rooms_that_let_in(room: RoomOutline) -> list[RoomId]:
    """The rooms whose members may come into a restricted room."""
    if not is_restricted(room.version, room.state):
        return []
    return allowed_rooms(room.state[JOIN_RULES])


def summary_of(room: RoomOutline) -> dict[str, Any]:
    """A room in the form of a `RoomSummary`."""
    summary = _chunk(room.room_id, room.joined_members, room.state)
    summary["room_version"] = room.version.identifier
    algorithm = _value(room.state, "m.room.encryption", "algorithm")
    if isinstance(algorithm, str):
        summary["encryption"] = algorithm
    allowed = rooms_that_let_in(room)
    if allowed:
        summary["allowed_room_ids"] = allowed
    return summary


def _chunk(room_id: RoomId, joined_members: int, state: Mapping[StateKey, Event]) -> dict[str, Any]:
    rule = join_rule_of(state)
    chunk: dict[str, Any] = {
        "room_id": room_id,
        "num_joined_members": joined_members,
        "world_readable": _value(state, "m.room.history_visibility", "history_visibility")
        == "world_readable",
        "guest_can_join": _value(state, "m.room.guest_access", "guest_access") == "can_join",
        "join_rule": rule if isinstance(rule, str) else "invite",
    }
    for field, event_type, name, start in (
        ("name", "m.room.name", "name", ""),
        ("avatar_url", "m.room.avatar", "url", "mxc://"),
        ("canonical_alias", "m.room.canonical_alias", "alias", "#"),
        ("room_type", "m.room.create", "type", ""),
    ):
        value = _value(state, event_type, name)
        if isinstance(value, str) and value and value.startswith(start):
            chunk[field] = value
    topic = _topic(state)
    if topic:
        chunk["topic"] = topic
    return chunk


def _topic(state: Mapping[StateKey, Event]) -> str | None:
    """The topic as plain text: in `m.topic`, or, from older clients, in `topic`."""
    content = _value(state, "m.room.topic", "m.topic")
    texts = content.get("m.text") if isinstance(content, dict) else None
    for text in texts if isinstance(texts, list) else []:
        if isinstance(text, dict) and text.get("mimetype", "text/plain") == "text/plain":
            body = text.get("body")
            if isinstance(body, str):
                return body
    topic = _value(state, "m.room.topic", "topic")
    return topic if isinstance(topic, str) else None


def _value(state: Mapping[StateKey, Event], event_type: str, name: str) -> Any:
    event = state.get((event_type, ""))
    return event.content.get(name) if event is not None else None
