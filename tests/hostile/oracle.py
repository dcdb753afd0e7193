"""Judges what a server holds, from scratch: every event by the room core, every state by what went before, every row
by the rows that it names.

Nothing that the server keeps in memory is asked: only its database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from crypto.errors import CryptoError
from crypto.signatures import verify_json
from homeserver.eventgraph.auth_rules import check_auth_events, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.questions import EventNumber, NeedAuthEvents, NeedEvents
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import servers_that_sign
from homeserver.eventgraph.state_res import resolve, split
from homeserver.storage.state import StateStore
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import nacl.signing

    from homeserver.eventgraph.event import StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.storage.database import Database
    from tests.server import Server

    Keys = Mapping[tuple[str, str], nacl.signing.VerifyKey]

CREATE = ("m.room.create", "")
_PLACED = (Status.TIMELINE, Status.SOFT_FAILED)


@dataclass(slots=True)
class Row:
    """An event as it is stored."""

    event: Event
    event_nid: int
    room_nid: int
    status: Status
    before: int
    after: int
    redacted_by: str | None
    stream_id: int


class Oracle:
    """What the database of a server says, read once."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._database = database
        self._keys = keys
        self._state = StateStore(database)
        self.rows: dict[str, Row] = {}
        self.by_number: dict[int, Row] = {}
        self._snapshots: dict[int, dict[StateKey, int]] = {0: {}}

    async def check(self) -> None:
        """Raise `AssertionError` for whatever cannot be."""
        rooms = await self._database.fetch_all(
            "SELECT room_nid, room_id, room_version, forward_extremities, state_snapshot, joined_members,"
            " invited_members FROM rooms"
        )
        versions = {room[0]: ROOM_VERSIONS[room[2]] for room in rooms}
        for row in await self._database.fetch_all(
            "SELECT event_id, event_nid, room_nid, status, state_before, state_after, redacted_by,"
            " stream_id, json FROM events"
        ):
            self._read(versions, *row)
        for row in self.rows.values():
            await self._check_event(row)
        for room in rooms:
            await self._check_room(*room)
        await self._check_snapshots()

    def _read(
        self,
        versions: Mapping[int, RoomVersion],
        event_id: Any,
        event_nid: int,
        room_nid: int,
        status: int,
        before: int | None,
        after: int,
        redacted_by: str | None,
        stream_id: int,
        json: bytes,
    ) -> None:
        assert room_nid in versions, f"{event_id} is of no room"
        version = versions[room_nid]
        found = read_pdu(version, orjson.loads(json))
        assert version.event_ids_are_given or found.event_id == event_id
        event = Event.from_json(version, json, event_id=event_id, rejected=status == Status.REJECTED)
        row = Row(
            event,
            event_nid,
            room_nid,
            Status(status),
            after if before is None else before,
            after,
            redacted_by,
            stream_id,
        )
        self.rows[event_id] = self.by_number[event_nid] = row

    # -- events ----------------------------------------------------------------------------------------

    async def _check_event(self, row: Row) -> None:
        event = row.event
        if row.status in (Status.REJECTED, Status.NOTED):
            return
        # What it cites is stored, was stored before, and allows it.
        cited = []
        for event_id in event.auth_event_ids:
            assert event_id in self.rows, f"{event} cites {event_id}, which is not here"
            assert self.rows[event_id].event_nid < row.event_nid, f"{event} was stored before what it cites"
            cited.append(self.rows[event_id])
        self._check_signatures(event)
        if row.redacted_by is None or event.type == "m.room.member":
            self._allowed(event, {one.event.key: one.event for one in cited}, "what it cites")
            try:
                check_auth_events(event, [one.event for one in cited])
            except AuthRuleViolated as error:
                raise AssertionError(f"{event} cites what it must not: {error}") from error
        if row.status not in _PLACED:
            return
        before = await self._snapshot(row.before)
        after = await self._snapshot(row.after)
        if event.type != "m.room.create":
            assert before, f"{event} has no state before it"
        if row.redacted_by is None:
            self._allowed(event, self._events_of(before), "the state before it")
        expected = dict(before)
        if event.state_key is not None:
            expected[event.key] = row.event_nid
        assert after == expected, f"the state after {event} is not what it makes of that before it"
        await self._check_state_before(row, before)

    async def _check_state_before(self, row: Row, before: Mapping[StateKey, int]) -> None:
        """It follows from the states after those that the event follows, where these were known when it came.

        Before what was fetched later stood a state that another server told.
        """
        followed = [self.rows.get(event_id) for event_id in row.event.prev_event_ids]
        for one in followed:
            assert one is None or one.room_nid == row.room_nid, (
                f"{row.event} follows an event of another room"
            )
        known = [one for one in followed if one is not None and one.after and one.stream_id >= 0]
        if not followed or len(known) < len(followed):
            return
        states = [await self._snapshot(one.after) for one in known]
        assert self._resolved(row.event.version, states) == before, f"the state before {row.event} is another"

    def _allowed(self, event: Event, state: Mapping[StateKey, Event], by: str) -> None:
        state = dict(state)
        if event.version.room_id_is_create_hash and event.type != "m.room.create":
            create = self.rows.get("$" + event.room_id[1:])
            assert create is not None, f"the create event of {event} is not here"
            state[CREATE] = create.event
        try:
            check_auth_rules(event, state)
        except (AuthRuleViolated, EventRefused) as error:
            raise AssertionError(f"{event} is not allowed by {by}: {error}") from error

    def _check_signatures(self, event: Event) -> None:
        redacted = redact(event.version, event.pdu)
        for server_name in servers_that_sign(event):
            by_key = event.pdu["signatures"].get(server_name)
            assert isinstance(by_key, dict), f"{event} is not signed by {server_name}"
            for key_id in by_key:
                key = self._keys.get((server_name, key_id))
                if key is None:
                    continue
                try:
                    verify_json(redacted, server_name, key_id, key, encode=encoder_of(event.version))
                except CryptoError:
                    continue
                break
            else:
                raise AssertionError(f"{event} is not signed by {server_name}")

    # -- rooms -----------------------------------------------------------------------------------------

    async def _check_room(
        self,
        room_nid: int,
        room_id: str,
        room_version: str,
        extremities: str,
        snapshot: int,
        joined: int,
        invited: int,
    ) -> None:
        ends = []
        for event_id, _ in orjson.loads(extremities):
            end = self.rows.get(event_id)
            assert end is not None, f"the extremity {event_id} is not here"
            assert end.room_nid == room_nid, f"the extremity {event_id} is of another room"
            assert end.status is Status.TIMELINE, f"the extremity {event_id} has no place"
            ends.append(end)
        state = await self._snapshot(snapshot)
        keys = await self._state.load_keys((await self._state.load_current(room_nid)).keys())
        current = {keys[key]: number for key, number in (await self._state.load_current(room_nid)).items()}
        assert state == current, f"the current state of {room_id} is not that of its snapshot"
        if ends:
            states = [await self._snapshot(end.after) for end in ends]
            resolved = self._resolved(ROOM_VERSIONS[room_version], states)
            assert resolved == state, f"the state of {room_id} is not that after its ends"
            members = [row.event.membership for row in map(self.by_number.__getitem__, state.values())]
            types = [row.event.type for row in map(self.by_number.__getitem__, state.values())]
            counted = [m for m, t in zip(members, types, strict=True) if t == "m.room.member"]
            assert (counted.count("join"), counted.count("invite")) == (joined, invited)

    async def _check_snapshots(self) -> None:
        for snapshot_nid, room_nid in await self._database.fetch_all(
            "SELECT snapshot_nid, room_nid FROM state_snapshots"
        ):
            for key, number in (await self._snapshot(snapshot_nid)).items():
                row = self.by_number.get(number)
                assert row is not None, f"a state names event number {number}, which is not here"
                assert row.room_nid == room_nid, f"{row.event} is in a state of another room"
                assert row.event.state_key is not None, f"{row.event} is in a state"
                assert row.event.key == key, f"{row.event} is in a state as {key}"
                assert row.status not in (Status.REJECTED, Status.NOTED), f"{row.event} is in a state"

    # -- states ----------------------------------------------------------------------------------------

    async def _snapshot(self, snapshot_nid: int) -> dict[StateKey, int]:
        known = self._snapshots.get(snapshot_nid)
        if known is None:
            numbers = await self._state.load_numbers(snapshot_nid)
            keys = await self._state.load_keys(numbers.keys())
            known = self._snapshots[snapshot_nid] = {keys[key]: number for key, number in numbers.items()}
        return known

    def _events_of(self, state: Mapping[StateKey, int]) -> dict[StateKey, Event]:
        return {key: self.by_number[number].event for key, number in state.items()}

    def _resolved(
        self, version: RoomVersion, states: Sequence[Mapping[StateKey, int]]
    ) -> dict[StateKey, int]:
        unconflicted, conflicted = split(states)  # type: ignore[type-var]
        resolution = resolve(version, conflicted, list(unconflicted.values()))  # type: ignore[arg-type]
        try:
            question = next(resolution)
            while True:
                question = resolution.send(self._answer(question, unconflicted))
        except StopIteration as finished:
            return {**unconflicted, **finished.value}

    def _answer(self, question: Any, unconflicted: Mapping[Any, int]) -> Mapping[Any, Any]:
        if isinstance(question, NeedEvents):
            return {number: self.by_number[number].event for number in question.numbers}
        if isinstance(question, NeedAuthEvents):
            return {
                number: [
                    EventNumber(self.rows[event_id].event_nid)
                    for event_id in self.by_number[number].event.auth_event_ids
                ]
                for number in question.numbers
            }
        return {key: unconflicted[key] for key in question.keys if key in unconflicted}


async def check_database(server: Server, keys: Keys) -> None:
    """Judge all that a server holds."""
    await Oracle(server.application.database, keys).check()
