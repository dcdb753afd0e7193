"""Rooms of events for tests of the room core: a graph grows event by event, without server or database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crypto import base64, keys
from homeserver.eventgraph.auth_rules import auth_types_for, check_auth_events, check_auth_rules
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.hashing import reference_hash
from homeserver.eventgraph.questions import EventNumber, NeedAuthEvents, NeedEvents, NeedState
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.state_res import resolve, split
from homeserver.ids import EventId, RoomId, ServerName, UserId, server_name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey

KEY = keys.key_from_seed("1", bytes(32))
ALICE = "@alice:one.example"
BOB = "@bob:two.example"
CHARLIE = "@charlie:three.example"
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")

State = dict[tuple[str, str], EventId]


def member(user_id: str) -> tuple[str, str]:
    return ("m.room.member", user_id)


class Room:
    """The events of a room in the order in which they came, with the state after each."""

    def __init__(
        self,
        version: str,
        *,
        creator: str = ALICE,
        content: dict[str, Any] | None = None,
        name: str = "room",
    ) -> None:
        self.version = ROOM_VERSIONS[version]
        self.events: dict[EventId, Event] = {}
        self.numbers: dict[EventId, EventNumber] = {}
        self.by_number: dict[EventNumber, Event] = {}
        self.state_after: dict[EventId, State] = {}
        self.why_rejected: dict[EventId, AuthRuleViolated] = {}
        self.clock = 1_000
        self.questions: list[NeedEvents | NeedAuthEvents | NeedState] = []
        self.name = name
        named = {} if self.version.creator_is_sender else {"creator": creator}
        content = {"room_version": version, "name": name, **named, **(content or {})}
        self.create = self.send("m.room.create", creator, content, state_key="", prev=[])
        self.room_id = self.create.room_id

    def send(
        self,
        type: str,
        sender: str,
        content: dict[str, Any],
        *,
        state_key: str | None = None,
        prev: Sequence[Event] | None = None,
        auth: Sequence[Event] | None = None,
        state: Mapping[StateKey, EventId] | None = None,
        redacts: str | None = None,
        ts: int | None = None,
        depth: int | None = None,
    ) -> Event:
        """Build an event, judge it, and put it into the graph, as rejected where the rules refuse it.

        It follows the newest event and cites what the state before it says, unless told otherwise. `state` is a
        state before it that does not follow from `prev`, as after a partial synchronisation.
        """
        self.clock += 1
        if prev is None:
            prev = [self.newest()]
        before = self.state_before(prev) if state is None else dict(state)
        if auth is None:
            wanted = auth_types_for(
                self.version, type=type, state_key=state_key, sender=sender, content=content
            )
            auth = [self.events[before[key]] for key in sorted(wanted) if key in before]
        is_create = type == "m.room.create" and state_key == "" and not self.events
        event = build(
            self.version,
            room_id=None
            if is_create and self.version.room_id_is_create_hash
            else RoomId(f"!{self.name}:{server_name_of(sender)}")
            if is_create
            else self.room_id,
            sender=UserId(sender),
            type=type,
            state_key=state_key,
            content=content,
            origin_server_ts=self.clock if ts is None else ts,
            depth=1 + max((event.depth for event in prev), default=0) if depth is None else depth,
            prev_events=[self.reference(event) for event in prev],
            auth_events=[self.reference(event) for event in auth],
            redacts=None if redacts is None else EventId(redacts),
            server_name=ServerName(server_name_of(sender)),
            key=KEY,
            event_id=EventId(f"${self.name}-{self.clock}:{server_name_of(sender)}")
            if self.version.event_ids_are_given
            else None,
        )
        return self.add(event, before)

    def add(self, event: Event, before: State) -> Event:
        """Judge an event by the state before it, and put it into the graph; one made alike is the same one."""
        if event.event_id in self.events:
            return self.events[event.event_id]
        try:
            check_auth_events(event, [self.events[event_id] for event_id in event.auth_event_ids])
            check_auth_rules(event, self.events_of(before))
        except AuthRuleViolated as error:
            self.why_rejected[event.event_id] = error
            event.rejected = True
        number = EventNumber(len(self.events) + 1)
        self.events[event.event_id] = self.by_number[number] = event
        self.numbers[event.event_id] = number
        self.state_after[event.event_id] = dict(before)
        if event.state_key is not None and not event.rejected:
            self.state_after[event.event_id][event.key] = event.event_id
        return event

    def newest(self) -> Event:
        """The last event that was not rejected."""
        return next(event for event in reversed(self.events.values()) if not event.rejected)

    def state_before(self, prev: Sequence[Event]) -> State:
        """The state that events with these `prev_events` have before them."""
        if not prev:
            return {}
        if len(prev) == 1:
            return dict(self.state_after[prev[0].event_id])
        return self.resolve([self.state_after[event.event_id] for event in prev])

    def events_of(self, state: Mapping[StateKey, EventId]) -> dict[StateKey, Event]:
        """A state with its events."""
        return {key: self.events[event_id] for key, event_id in state.items()}

    def reference(self, event: Event) -> EventReference:
        """How others name an event."""
        if not self.version.event_ids_are_given:
            return EventReference(event.event_id)
        return EventReference(event.event_id, base64.encode_unpadded(reference_hash(self.version, event.pdu)))

    def resolve(self, states: Sequence[Mapping[StateKey, EventId]]) -> State:
        """The resolved state of several; `questions` keeps what the resolution asked."""
        numbered = [{key: self.numbers[event_id] for key, event_id in state.items()} for state in states]
        unconflicted, conflicted = split(numbered)
        resolution = resolve(self.version, conflicted, list(unconflicted.values()))
        self.questions = []
        try:
            question = next(resolution)
            while True:
                self.questions.append(question)
                question = resolution.send(self._answer(question, unconflicted))
        except StopIteration as finished:
            resolved = {**unconflicted, **finished.value}
        return {key: self.by_number[number].event_id for key, number in resolved.items()}

    def renumber(self, order: Iterable[EventId]) -> None:
        """Number the events as a server does that stored them in another order."""
        self.numbers = {event_id: EventNumber(index) for index, event_id in enumerate(order, 1)}
        self.by_number = {number: self.events[event_id] for event_id, number in self.numbers.items()}

    def _answer(self, question: Any, unconflicted: Mapping[StateKey, EventNumber]) -> Mapping[Any, Any]:
        if isinstance(question, NeedEvents):
            return {number: self.by_number[number] for number in question.numbers}
        if isinstance(question, NeedAuthEvents):
            return {
                number: [self.numbers[event_id] for event_id in self.by_number[number].auth_event_ids]
                for number in question.numbers
            }
        return {key: unconflicted[key] for key in question.keys if key in unconflicted}

    # -- common events ---------------------------------------------------------------------------------

    def join(self, user_id: str, **options: Any) -> Event:
        return self.send("m.room.member", user_id, {"membership": "join"}, state_key=user_id, **options)

    def set_member(self, sender: str, user_id: str, membership: str, **options: Any) -> Event:
        return self.send("m.room.member", sender, {"membership": membership}, state_key=user_id, **options)

    def set_join_rule(self, sender: str, join_rule: str, **options: Any) -> Event:
        return self.send("m.room.join_rules", sender, {"join_rule": join_rule}, state_key="", **options)

    def set_levels(self, sender: str, content: dict[str, Any], **options: Any) -> Event:
        return self.send("m.room.power_levels", sender, content, state_key="", **options)

    def set_topic(self, sender: str, topic: str, **options: Any) -> Event:
        return self.send("m.room.topic", sender, {"topic": topic}, state_key="", **options)


def public_room(version: str, *others: str, users: dict[str, int] | None = None) -> Room:
    """A public room of Alice with others in it; `users` are the power levels that she gives."""
    room = Room(version)
    room.join(ALICE)
    levels = {} if room.version.creators_are_privileged else {ALICE: 100}
    room.set_levels(ALICE, {"users": {**levels, **(users or {})}})
    room.set_join_rule(ALICE, "public")
    for user_id in others:
        room.join(user_id)
    assert not room.why_rejected
    return room


def rule_of(room: Room, event: Event) -> str | None:
    """The rule that refused an event, None where it was allowed."""
    violation = room.why_rejected.get(event.event_id)
    return violation.rule if violation is not None else None
