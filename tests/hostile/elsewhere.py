"""A room that another server holds, and what that server answers about it: the truth, until the test says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import orjson

from federation.server_keys import own_document
from homeserver.eventgraph.auth_rules import auth_types_for
from homeserver.eventgraph.receiving import read_pdu
from homeserver.ids import EventId
from tests.eventgraph.rooms import KEY, Room
from tests.hostile.wire import Answered, Asked, Wire
from tests.inbound.foreign_rooms import auth_chain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.eventgraph.event import Event
    from tests.server import Server

EVIL = "evil.example"
HONEST = "honest.example"
MALLORY = f"@mallory:{EVIL}"
HELEN = f"@helen:{HONEST}"

Answer = Callable[["Elsewhere", Asked], Answered]


def room_elsewhere(version: str, *, creator: str = MALLORY, name: str = "room") -> Room:
    """A public room of one of them, with the other in it."""
    room = Room(version, creator=creator, name=name)
    room.join(creator)
    levels = {} if room.version.creators_are_privileged else {creator: 100}
    room.set_levels(creator, {"users": levels})
    room.set_join_rule(creator, "public")
    room.join(HELEN if creator == MALLORY else MALLORY)
    assert not room.why_rejected
    return room


class Elsewhere:
    """The server `evil.example` (or another) on the wire."""

    def __init__(self, wire: Wire, server: Server, *rooms: Room, name: str = EVIL) -> None:
        self.wire = wire
        self.server = server
        self.name = name
        self.rooms = {room.room_id: room for room in rooms}
        self.lies: dict[str, Answer] = {}
        """What is answered in the place of the truth, by endpoint."""
        self.joined: Event | None = None
        """The join that was brought last."""
        wire.sites[name] = self.answer

    async def answer(self, asked: Asked) -> Answered:
        endpoint = asked.path.split("/")[4] if asked.path.count("/") > 3 else ""
        if asked.path.startswith("/_matrix/key/v2/server"):
            endpoint = "keys"
        lie = self.lies.get(endpoint)
        if lie is not None:
            return lie(self, asked)
        return self.truth(asked)

    def truth(self, asked: Asked) -> Answered:
        """What an honest server answers."""
        if asked.path.startswith("/_matrix/key/v2/server"):
            return Answered.json(own_document(self.name, [KEY], self.server.clock.now_ms()))
        endpoint, *parameters = map(unquote, asked.path.split("/")[4:])
        answer = getattr(self, f"_{endpoint}", None)
        if answer is None:
            return Answered.json({"errcode": "M_UNRECOGNIZED", "error": "No"}, 404)
        try:
            result: Answered = answer(asked, *parameters)
        except KeyError:
            return Answered.json({"errcode": "M_NOT_FOUND", "error": "Unknown"}, 404)
        return result

    # -- joining ---------------------------------------------------------------------------------------

    def template(self, room: Room, user_id: str, membership: str = "join") -> dict[str, Any]:
        """A template of a member event."""
        newest = room.newest()
        state = room.state_after[newest.event_id]
        wanted = auth_types_for(
            room.version,
            type="m.room.member",
            state_key=user_id,
            sender=user_id,
            content={"membership": membership},
        )
        event = {
            "type": "m.room.member",
            "room_id": room.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": {"membership": membership},
            "depth": newest.depth + 1,
            "prev_events": [reference(room, newest)],
            "auth_events": [
                reference(room, room.events[state[key]]) for key in sorted(wanted) if key in state
            ],
        }
        return {"room_version": room.version.identifier, "event": event}

    def _make_join(self, _: Asked, room_id: str, user_id: str) -> Answered:
        return Answered.json(self.template(self.rooms[room_id], user_id))

    def send_join_answer(self, asked: Asked) -> dict[str, Any]:
        """The truth about the room that was joined."""
        room = self.rooms[unquote(asked.path.split("/")[5])]
        self.joined = read_pdu(room.version, asked.content)
        before = room.state_after[room.newest().event_id]
        state = {event_id: room.events[event_id] for event_id in before.values()}
        return {
            "origin": self.name,
            "members_omitted": False,
            "event": asked.content,
            "state": [event.pdu for event in state.values()],
            "auth_chain": [event.pdu for event in auth_chain(room, state).values()],
        }

    def _send_join(self, asked: Asked, *_: str) -> Answered:
        return Answered.json(self.send_join_answer(asked))

    # -- events ----------------------------------------------------------------------------------------

    def _backfill(self, asked: Asked, room_id: str) -> Answered:
        query = parse_qs(asked.target.partition("?")[2])
        room = self.rooms[room_id]
        found = before(room, query["v"], int(query["limit"][0]))
        return Answered.json({"origin": self.name, "origin_server_ts": 1, "pdus": [one.pdu for one in found]})

    def _get_missing_events(self, asked: Asked, room_id: str) -> Answered:
        content = asked.content
        room = self.rooms[room_id]
        latest = set(content["latest_events"])
        found = before(
            room, content["latest_events"], content["limit"] + len(latest), content["earliest_events"]
        )
        return Answered.json({"events": [one.pdu for one in found if one.event_id not in latest]})

    def _event(self, _: Asked, event_id: str) -> Answered:
        for room in self.rooms.values():
            event = room.events.get(EventId(event_id))
            if event is not None:
                return Answered.json({"origin": self.name, "origin_server_ts": 1, "pdus": [event.pdu]})
        return Answered.json({"errcode": "M_NOT_FOUND", "error": "No"}, 404)

    def _event_auth(self, _: Asked, room_id: str, event_id: str) -> Answered:
        chain = auth_chain(self.rooms[room_id], [EventId(event_id)])
        return Answered.json({"auth_chain": [one.pdu for one in chain.values()]})

    def _state(self, asked: Asked, room_id: str) -> Answered:
        room, state = self._state_before(asked, room_id)
        return Answered.json(
            {
                "pdus": [room.events[one].pdu for one in state.values()],
                "auth_chain": [one.pdu for one in auth_chain(room, state.values()).values()],
            }
        )

    def _state_ids(self, asked: Asked, room_id: str) -> Answered:
        room, state = self._state_before(asked, room_id)
        return Answered.json(
            {"pdu_ids": list(state.values()), "auth_chain_ids": list(auth_chain(room, state.values()))}
        )

    def _state_before(self, asked: Asked, room_id: str) -> tuple[Room, dict[Any, EventId]]:
        query = parse_qs(asked.target.partition("?")[2])
        room = self.rooms[room_id]
        event = room.events[EventId(query["event_id"][0])]
        return room, room.state_before([room.events[one] for one in event.prev_event_ids])

    def _send(self, *_: Any) -> Answered:
        return Answered.json({"pdus": {}})


def reference(room: Room, event: Event) -> Any:
    """How a PDU names an event."""
    named = room.reference(event)
    return [named.event_id, {"sha256": named.sha256}] if named.sha256 is not None else named.event_id


def before(room: Room, event_ids: Iterable[str], limit: int, known: Iterable[str] = ()) -> list[Event]:
    """Events and what they follow, as far as a limit."""
    found: dict[EventId, Event] = {}
    ahead = [EventId(one) for one in event_ids]
    stop = set(known)
    while ahead and len(found) < limit:
        event = room.events.get(ahead.pop(0))
        if event is not None and event.event_id not in stop:
            found[event.event_id] = event
            ahead += [one for one in event.prev_event_ids if one not in found]
    return list(found.values())


def changing(endpoint: str, change: Callable[[Any], Any]) -> Answer:
    """The truth of an endpoint, changed."""

    def lie(elsewhere: Elsewhere, asked: Asked) -> Answered:
        truth = elsewhere.truth(asked)
        assert isinstance(truth.body, bytes), endpoint
        return Answered.json(change(orjson.loads(truth.body)), truth.status)

    return lie
