"""Events that are cited or named as state, before or without a place in the timeline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from homeserver.eventgraph.auth_rules import check_auth_events, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.eventgraph.receiving import in_order, read_pdu
from homeserver.rooms.live_rooms import CREATE
from homeserver.services.jobs import Phase, Progress
from homeserver.storage.stored_event import NumberedEvent, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.services.inbound.sources import SignatureCheck
    from homeserver.storage.database import Database
    from homeserver.storage.events import EventStore
    from homeserver.storage.outliers import OutlierStore
    from homeserver.storage.stored_event import StoredEvent

_AT_ONCE = 500
_BETWEEN_RESTS = 200

_log = structlog.get_logger(__name__)


class Outliers:
    """Judges events by what they cite alone, and stores them."""

    def __init__(
        self, database: Database, events: EventStore, store: OutlierStore, signatures: SignatureCheck
    ) -> None:
        self._database = database
        self._events = events
        self._store = store
        self._signatures = signatures

    def read(
        self, version: RoomVersion, room_id: RoomId, pdus: Iterable[Any], *, any_references: bool = False
    ) -> dict[EventId, Event]:
        """The events in PDUs that are events of this room; the others are left out."""
        events: dict[EventId, Event] = {}
        for pdu in pdus:
            try:
                event = read_pdu(version, pdu, any_references=any_references)
            except EventRefused as error:
                _log.info("pdu_refused", room_id=room_id, reason=str(error))
                continue
            if event.room_id == room_id:
                events[event.event_id] = event
        return events

    async def read_many(
        self, version: RoomVersion, room_id: RoomId, pdus: Sequence[Any], *, any_references: bool = False
    ) -> dict[EventId, Event]:
        """The same for the many of a whole state: other work gets its turn in between."""
        events: dict[EventId, Event] = {}
        for start in range(0, len(pdus), _BETWEEN_RESTS):
            events.update(
                self.read(
                    version, room_id, pdus[start : start + _BETWEEN_RESTS], any_references=any_references
                )
            )
            await asyncio.sleep(0)
        return events

    async def rightly_signed(self, events: Collection[Event]) -> set[EventId]:
        """Those of these events that all servers have signed which must."""
        return await self._signatures.rightly_signed(events)

    async def take(
        self, room: LiveRoom, events: Mapping[EventId, Event], progress: Progress | None = None
    ) -> dict[EventId, NumberedEvent]:
        """Store those of these events that are new and rightly signed, refused ones as such.

        One that cites what is neither stored nor among them cannot be judged, and is left out. The answer has those that
        are stored in this room now, whether they are new or not.
        """
        known = await self._events.load(events)
        stored = {event_id: one for event_id, one in known.items() if one.status is not Status.NOTED}
        taken = {
            event_id: NumberedEvent(one.event, one.event_nid)
            for event_id, one in stored.items()
            if one.room_nid == room.room_nid
        }
        progress = progress or Progress()
        # What is stored was checked then.
        progress.phase, progress.received, progress.checked = Phase.CHECKING, len(events), len(stored)
        # What was only noted is judged now. In old versions an id does not say what is in an event: the stored one counts.
        new = {
            event_id: known[event_id].event if event_id in known else event
            for event_id, event in events.items()
            if event_id not in stored
        }
        judged = await self._judge(new, progress)
        progress.phase, progress.written = Phase.WRITING, len(stored)
        for start in range(0, len(judged), _AT_ONCE):
            batch = judged[start : start + _AT_ONCE]
            numbers = await self._database.write(
                lambda t, batch=batch: self._store.insert(t, room.room_nid, batch)  # type: ignore[misc]
            )
            progress.written += len(batch)
            taken.update((event.event_id, NumberedEvent(event, numbers[event.event_id])) for event in batch)
        return taken

    async def _judge(self, new: Mapping[EventId, Event], progress: Progress) -> list[Event]:
        """Those of these events that can be judged, what is cited first; refused ones are marked."""
        signed = await self._signatures.rightly_signed(new.values(), progress.count_checked)
        new = {event_id: event for event_id, event in new.items() if event_id in signed}
        cited = cited_by(new.values()) - new.keys()
        at_hand = at_hand_of(await self._events.load(cited))
        try:
            ordered = in_order(new)
        except EventRefused:
            return []
        judged = []
        for number, event in enumerate(ordered):
            if number % _BETWEEN_RESTS == 0:
                await asyncio.sleep(0)
            if all(event_id in at_hand for event_id in event.auth_event_ids):
                reason = refusal(event, at_hand)
                if reason is not None:
                    event.rejected = True
                    _log.info("event_rejected", event_id=event.event_id, reason=reason)
                at_hand[event.event_id] = event
                judged.append(event)
        return judged


def at_hand_of(stored: Mapping[EventId, StoredEvent]) -> dict[EventId, Event]:
    """The events among those that are stored by which others can be judged."""
    return {event_id: one.event for event_id, one in stored.items() if one.status is not Status.NOTED}


def refusal(event: Event, at_hand: Mapping[EventId, Event]) -> str | None:
    """Why what an event cites does not allow it, or None (rules 3 and on, by the auth events)."""
    cited = [at_hand[event_id] for event_id in event.auth_event_ids]
    try:
        check_auth_events(event, cited)
        check_auth_rules(event, with_create(event, {one.key: one for one in cited}, at_hand))
    except (AuthRuleViolated, EventRefused) as error:
        return str(error)
    return None


def with_create(
    event: Event, state: dict[StateKey, Event], at_hand: Mapping[EventId, Event]
) -> dict[StateKey, Event]:
    """From room version 12 on nobody cites the create event: the room's id names it."""
    if event.version.room_id_is_create_hash and event.type != "m.room.create":
        create = at_hand.get(create_event_id(event.room_id))
        if create is not None:
            state[CREATE] = create
    return state


def create_event_id(room_id: RoomId) -> EventId:
    """The id of the create event that a room is named after, from version 12 on."""
    return "$" + room_id[1:]  # type: ignore[return-value]


def cited_by(events: Collection[Event]) -> set[EventId]:
    """All that these events cite, the create event that they do not name included."""
    cited = {event_id for event in events for event_id in event.auth_event_ids}
    for event in events:
        if event.version.room_id_is_create_hash and event.type != "m.room.create":
            cited.add(create_event_id(event.room_id))
    return cited
