"""Rooms from outside: summaries, entries of the directory, the tree of a space."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, InvalidParam, NotFound
from homeserver.eventgraph.auth_member import join_rule_of
from homeserver.ids import RoomId, is_room_id
from homeserver.views.client_events import stripped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import EventId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.directory import PublishedRoom
    from homeserver.views.tokens import Tokens

_NAMED = ("m.room.name", "m.room.topic", "m.room.avatar", "m.room.canonical_alias")
_KEYS: list[StateKey] = [
    ("m.room.create", ""),
    *((event_type, "") for event_type in _NAMED),
    ("m.room.join_rules", ""),
    ("m.room.guest_access", ""),
    ("m.room.history_visibility", ""),
    ("m.room.encryption", ""),
]
_ORDER = re.compile(r"[\x20-\x7e]{1,50}")
_SPACE = "m.space"
_PAGES = "hierarchy"
MAX_ROOMS = 50
MAX_DEPTH = 20
_MAX_WALKED = 2_000


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the tree of a space is asked for."""

    since: str | None
    limit: int
    max_depth: int
    suggested_only: bool


class RoomSummaries:
    """Tells of rooms those who may know of them."""

    def __init__(self, rooms: RoomReader, tokens: Tokens) -> None:
        self._rooms = rooms
        self._tokens = tokens

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

    async def summary(self, room_id: RoomId, user_id: UserId | None) -> dict[str, Any]:
        """A room for somebody who may come in, or is there; `NotFound` for all others."""
        if not await self._rooms.exists(room_id):
            raise NotFound("Unknown room")
        state = await self._rooms.state_entries(room_id, _KEYS)
        if not await self._may_know(room_id, user_id, state):
            raise NotFound("Unknown room")
        summary = await self._full(room_id, state)
        if user_id is not None:
            row = await self._rooms.membership(room_id, user_id)
            summary["membership"] = row.membership if row is not None else "leave"
        return summary

    async def hierarchy(self, room_id: RoomId, user_id: UserId, page: Page) -> dict[str, Any]:
        """A page of the tree of a space, depth first (CS "Spaces"); `Forbidden` for who may not see the space."""
        kind = f"{_PAGES} {room_id} {page.suggested_only} {page.max_depth}"
        offset = self._tokens.read_offset(kind, page.since) if page.since is not None else 0
        if not await self._rooms.exists(room_id) or not await self._may_know(
            room_id, user_id, await self._rooms.state_entries(room_id, _KEYS)
        ):
            raise Forbidden("You may not see this room")
        rooms: list[dict[str, Any]] = []
        walked: set[RoomId] = set()
        number = 0
        stack = [(room_id, 0)]
        while stack and len(walked) < _MAX_WALKED:
            current, depth = stack.pop()
            if current in walked or not await self._rooms.exists(current):
                continue
            walked.add(current)
            state = await self._rooms.state_entries(current, _KEYS)
            if not await self._may_know(current, user_id, state):
                continue
            children = await self._children(current, state, suggested_only=page.suggested_only)
            if number >= offset:
                if len(rooms) == page.limit:
                    return {"rooms": rooms, "next_batch": self._tokens.offset(kind, offset + page.limit)}
                summary = await self._full(current, state)
                summary["children_state"] = [
                    {**stripped(child), "origin_server_ts": child.origin_server_ts} for child in children
                ]
                rooms.append(summary)
            number += 1
            if depth < page.max_depth:
                stack += [(RoomId(child.state_key or ""), depth + 1) for child in reversed(children)]
        return {"rooms": rooms}

    async def _children(
        self, room_id: RoomId, state: Mapping[StateKey, Event], *, suggested_only: bool
    ) -> list[Event]:
        if state[_KEYS[0]].content.get("type") != _SPACE:
            return []
        children = []
        for key, event in (await self._rooms.state_of_type(room_id, "m.space.child")).items():
            via = event.content.get("via")
            if not isinstance(via, list) or not via or not is_room_id(key):
                continue
            if suggested_only and event.content.get("suggested") is not True:
                continue
            children.append(event)
        return sorted(children, key=_child_order)

    async def _may_know(
        self, room_id: RoomId, user_id: UserId | None, state: Mapping[StateKey, Event]
    ) -> bool:
        if _value(state, "m.room.history_visibility", "history_visibility") == "world_readable":
            return True
        rule = join_rule_of(state)
        version = await self._rooms.version(room_id)
        is_open = (
            rule == "public"
            or (rule == "knock" and version.has_knock)
            or (rule == "knock_restricted" and version.has_knock_restricted_join)
        )
        if user_id is None:
            return is_open
        rooms = await self._rooms.rooms_of(user_id)
        row = rooms.get(room_id)
        if row is not None and row.membership in ("join", "invite"):
            return True
        if row is not None and row.membership == "ban":
            return False
        if is_open or rule != "restricted" or not version.has_restricted_join:
            return is_open
        return any(
            allowed in rooms and rooms[allowed].membership == "join"
            for allowed in _allowed_rooms(state.get(("m.room.join_rules", "")))
        )

    async def _full(self, room_id: RoomId, state: Mapping[StateKey, Event]) -> dict[str, Any]:
        joined, _ = await self._rooms.member_counts(room_id)
        summary = _chunk(room_id, joined, state)
        summary["room_version"] = (await self._rooms.version(room_id)).identifier
        algorithm = _value(state, "m.room.encryption", "algorithm")
        if isinstance(algorithm, str):
            summary["encryption"] = algorithm
        allowed = _allowed_rooms(state.get(("m.room.join_rules", "")))
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


def _allowed_rooms(join_rules: Event | None) -> list[RoomId]:
    if join_rules is None or join_rules.content.get("join_rule") not in ("restricted", "knock_restricted"):
        return []
    allow = join_rules.content.get("allow")
    return [
        RoomId(condition["room_id"])
        for condition in (allow if isinstance(allow, list) else [])
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    ]


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


def page_of(since: str | None, limit: int, max_depth: int, *, suggested_only: bool) -> Page:
    """A page with its bounds kept; raises `InvalidParam`."""
    if limit < 1:
        raise InvalidParam("`limit` must be greater than zero")
    return Page(since, min(limit, MAX_ROOMS), min(max_depth, MAX_DEPTH), suggested_only)
