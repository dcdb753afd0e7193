"""Puts the rooms of events that tests make into a real database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.rooms.auth_chains import AuthChains
from homeserver.rooms.state_resolver import StatePoint, StateResolver
from homeserver.storage.events import EventStore
from homeserver.storage.interning import NumberStore
from homeserver.storage.raw_events import RawEventStore
from homeserver.storage.rooms import RoomRow, RoomStore
from homeserver.storage.state import GONE, StateStore
from homeserver.storage.stored_event import EventRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import EventId
    from homeserver.storage.database import Database, Transaction
    from tests.eventgraph.rooms import Room, State


@dataclass
class StoredRoom:
    """A room in a database: its events in their order, and nothing in memory yet."""

    room: Room
    room_nid: int
    database: Database
    state: StateStore
    resolver: StateResolver
    numbers: NumberStore

    async def resolve(self, states: Sequence[Mapping[StateKey, EventId]]) -> State:
        """Store these states and resolve them through the shell."""
        points = await self.store_states(states)
        resolved = await self.resolver.resolve(self.room.version, points)
        numbers = await self.state.load_numbers(resolved.snapshot_nid)
        keys = await self.state.load_keys(numbers)
        entries = {**{keys[key_nid]: event_nid for key_nid, event_nid in numbers.items()}, **resolved.changes}
        rows = await self.database.fetch_all(
            "SELECT event_nid, event_id FROM events WHERE room_nid = $1", self.room_nid
        )
        event_ids = dict(rows)
        return {key: event_ids[event_nid] for key, event_nid in entries.items() if event_nid != GONE}

    async def store_states(self, states: Sequence[Mapping[StateKey, EventId]]) -> list[StatePoint]:
        """Each state as a snapshot."""

        async def work(transaction: Transaction) -> list[StatePoint]:
            rows = await transaction.fetch_all(
                "SELECT event_id, event_nid FROM events WHERE room_nid = $1", self.room_nid
            )
            event_nids = dict(rows)
            keys = await self.numbers.number_keys(transaction, {key for state in states for key in state})
            points = []
            for state in states:
                snapshot_nid = await transaction.next_position()
                await self.state.add_snapshot(
                    transaction,
                    snapshot_nid=snapshot_nid,
                    room_nid=self.room_nid,
                    previous=None,
                    changes={keys[key]: event_nids[event_id] for key, event_id in state.items()},
                )
                points.append(StatePoint(snapshot_nid))
            return points

        return await self.database.write(work)


async def store_room(database: Database, room: Room) -> StoredRoom:
    """Store the accepted events of a room."""
    events = EventStore(database, 1_000_000)
    state, numbers = StateStore(database), NumberStore(database)
    accepted = [event for event in room.events.values() if not event.rejected]

    async def work(transaction: Transaction) -> int:
        room_nid = await transaction.next_position()
        rows = []
        for event in accepted:
            event_nid = await transaction.next_position()
            rows.append(
                EventRow(
                    event=event,
                    event_nid=event_nid,
                    stream_id=event_nid,
                    room_nid=room_nid,
                    sender_nid=0,
                    notifies=False,
                    thread_root=None,
                    state_after=0,
                    state_before=0,
                    replaces_state=None,
                    device_id=None,
                    transaction_id=None,
                )
            )
        await RoomStore(database).insert(
            transaction,
            RoomRow(
                room_nid=room_nid,
                room_id=room.room_id,
                version=room.version,
                head_version=room_nid,
                forward_extremities=(),
                depth=0,
                state_snapshot=0,
                last_position=rows[-1].event_nid,
                joined_members=0,
                invited_members=0,
            ),
        )
        await events.insert(transaction, rows)
        return room_nid

    room_nid = await database.write(work)
    resolver = StateResolver(events, state, numbers, AuthChains(events, RawEventStore(database)))
    return StoredRoom(room, room_nid, database, state, resolver, numbers)
