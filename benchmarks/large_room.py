"""A room as large as the largest that people join: thousands of members on hundreds of servers, all of it signed.

It is written down as the answers with which a server that is in it lets others in.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.servers.process import free_port
from crypto.keys import key_from_seed
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import RoomId, ServerName, UserId

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.figures import RoomSize
    from crypto.keys import SigningKey
    from homeserver.eventgraph.event import Event, StateKey

VERSION = ROOM_VERSIONS["11"]
ROOM = "room.json"
WHOLE, PARTIAL = "send_join.json", "send_join_without_members.json"
"""The answers to `PUT /send_join`: with the whole state, and without its members.

The other one does not say so: it is taken for the whole, which costs as much as a join with partial state would.
"""
_GROUP = 25
_CREATED_TS = 1_750_000_000_000
_LEFT_PART = 0.7
"""Of the events that are no joined members, those of members who have left."""
_CREATE, _POWER_LEVELS, _JOIN_RULES = (
    ("m.room." + name, "") for name in ("create", "power_levels", "join_rules")
)


@dataclass(frozen=True)
class LargeRoom:
    """What is to be known of a room that stands in a directory."""

    port: int
    """Where its servers listen, all of them: it is in their names, and so in the events."""
    room_id: str
    server_names: list[str]
    """The first of them lets others in."""
    joined_members: int
    state_events: int
    events: int
    """With those that the state rests on."""
    last_event_id: str
    depth: int
    auth_event_ids: list[str]
    """What the event of somebody who joins cites."""


def key_of(server_name: str) -> SigningKey:
    """The signing key of a server: always the same."""
    return key_from_seed("1", hashlib.sha256(server_name.encode()).digest())


def addresses(servers: int) -> list[str]:
    """Where the servers are: all on this machine, each at an address of its own."""
    return [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(servers)]


def in_groups(names: Sequence[str]) -> list[Sequence[str]]:
    """Servers that have a certificate together: one of all of them would be larger than any."""
    return [names[start : start + _GROUP] for start in range(0, len(names), _GROUP)]


def make(place: Path, size: RoomSize) -> LargeRoom:
    """Make a room of a size, and write down in a directory what a server needs that is in it."""
    room = _Making(size, free_port()).write(place)
    (place / ROOM).write_text(json.dumps(asdict(room)))
    return room


def load(place: Path) -> LargeRoom:
    """The room that stands in a directory."""
    return LargeRoom(**json.loads((place / ROOM).read_text()))


class _Making:
    """Makes the events, one after the other."""

    def __init__(self, size: RoomSize, port: int) -> None:
        self._size = size
        self._port = port
        self._chance = random.Random(4)
        self._server_names = [f"{address}:{port}" for address in addresses(size.servers)]
        self._keys = {name: key_of(name) for name in self._server_names}
        # As in the world: few servers have most of the users.
        self._weights = [1 / (2 + rank) for rank in range(size.servers)]
        self._room_id = RoomId(f"!large:{self._server_names[0]}")
        self._creator = UserId(f"@creator:{self._server_names[0]}")
        self._state: dict[StateKey, Event] = {}
        self._replaced: list[Event] = []
        self._last: Event | None = None
        self._depth = 0

    def write(self, place: Path) -> LargeRoom:
        """Make all of it and write it down."""
        self._begin()
        joins = self._come_in()
        rest = self._size.state_events - len(self._state)
        leaving = int(rest * _LEFT_PART)
        for number in range(leaving):
            user_id = self._user(f"left-{number}")
            self._replaced.append(self._join(user_id))
            self._add("m.room.member", user_id, {"membership": "leave"}, ("m.room.member", user_id))
        for number in range(rest - leaving):
            self._add(
                "org.example.widget", str(number), {"url": f"https://example.org/{number}", "n": number}
            )
        self._answer(place / WHOLE, self._state.values(), [*self._base(), *self._replaced])
        members = {self._creator}
        some = [event for key, event in self._state.items() if key[0] != "m.room.member" or key[1] in members]
        self._answer(place / PARTIAL, some, self._base())
        assert self._last is not None
        return LargeRoom(
            self._port,
            self._room_id,
            list(self._server_names),
            joins + 1,
            len(self._state),
            len(self._state) + len(self._replaced),
            self._last.event_id,
            self._depth,
            [event.event_id for event in self._base()[:3]],
        )

    def _begin(self) -> None:
        self._add("m.room.create", "", {"room_version": VERSION.identifier})
        self._join(self._creator)
        self._add("m.room.power_levels", "", {"users": {self._creator: 100}, "state_default": 100})
        self._add("m.room.join_rules", "", {"join_rule": "public"})
        self._add("m.room.history_visibility", "", {"history_visibility": "shared"})
        self._add("m.room.name", "", {"name": "A large room"})

    def _come_in(self) -> int:
        for number in range(self._size.members - 1):
            self._join(self._user(f"member-{number}"))
        return self._size.members - 1

    def _user(self, name: str) -> UserId:
        (server_name,) = self._chance.choices(self._server_names, self._weights)
        return UserId(f"@{name}:{server_name}")

    def _join(self, user_id: UserId) -> Event:
        content = {
            "membership": "join",
            "displayname": f"Somebody called {user_id[1:].partition(':')[0]}",
            "avatar_url": f"mxc://example.org/{hashlib.md5(user_id.encode()).hexdigest()}",
        }
        return self._add("m.room.member", user_id, content)

    def _base(self) -> list[Event]:
        """What events of every kind cite."""
        return [
            self._state[key]
            for key in (_CREATE, _POWER_LEVELS, _JOIN_RULES, ("m.room.member", self._creator))
        ]

    def _cited_by(self, type: str, content: dict[str, Any], sender: UserId) -> list[StateKey]:
        keys = [_CREATE, _POWER_LEVELS]
        if type != "m.room.member":
            keys.append(("m.room.member", sender))
        elif content["membership"] == "join":
            keys.append(_JOIN_RULES)
        # The first events of a room have little to cite.
        return [key for key in keys if key in self._state]

    def _add(self, type: str, state_key: str, content: dict[str, Any], *cited: StateKey) -> Event:
        is_member = type == "m.room.member"
        sender = UserId(state_key) if is_member else self._creator
        auth_events = [self._state[key] for key in (*self._cited_by(type, content, sender), *cited)]
        server_name = ServerName(sender.partition(":")[2])
        self._depth += 1
        event = build(
            VERSION,
            room_id=self._room_id,
            sender=sender,
            type=type,
            state_key=state_key,
            content=content,
            origin_server_ts=_CREATED_TS + 1_000 * self._depth,
            depth=self._depth,
            prev_events=[EventReference(self._last.event_id)] if self._last else [],
            auth_events=[EventReference(event.event_id) for event in auth_events],
            server_name=server_name,
            key=self._keys[server_name],
        )
        self._state[event.key] = self._last = event
        return event

    def _answer(self, path: Path, state: Iterable[Event], auth_chain: Iterable[Event]) -> None:
        more = {"origin": self._server_names[0], "members_omitted": False}
        with path.open("wb") as file:
            file.write(orjson.dumps(more)[:-1])
            for name, events in (("state", state), ("auth_chain", auth_chain)):
                file.write(b',"%s":[' % name.encode() + b",".join(event.json for event in events) + b"]")
            file.write(b"}")


def template(room: LargeRoom, user_id: str) -> dict[str, Any]:
    """The answer to `GET /make_join`."""
    return {
        "room_version": VERSION.identifier,
        "event": {
            "type": "m.room.member",
            "room_id": room.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": "join"},
            "origin_server_ts": _CREATED_TS,
            "depth": room.depth + 1,
            "prev_events": [room.last_event_id],
            "auth_events": room.auth_event_ids,
        },
    }
