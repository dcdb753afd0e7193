"""Events without a place in the timeline: cited by others, refused, or not yet placed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.announcements import Topic
from homeserver.storage.events import INSERT_EVENT, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from homeserver.storage.database import Transaction
    from homeserver.storage.events import EventRow, EventStore
    from homeserver.storage.interning import NumberStore


class OutlierStore:
    """Stores outliers, and gives them their place once it is known."""

    def __init__(self, events: EventStore, numbers: NumberStore) -> None:
        self._events = events
        self._numbers = numbers

    async def insert(
        self, transaction: Transaction, room_nid: int, events: Sequence[Event]
    ) -> dict[EventId, int]:
        """Store events of a room, those that are cited before those that cite them; the answer is their numbers.

        Those that are stored already keep what they have. The keys of state events get their numbers.
        """
        rows = await transaction.fetch_all(
            "SELECT event_id, event_nid FROM events WHERE event_id = ANY($1::text[])",
            [event.event_id for event in events],
        )
        known: dict[EventId, int] = dict(rows)
        new = [event for event in events if event.event_id not in known]
        senders = await self._numbers.number_users(transaction, {event.sender for event in new})
        await self._numbers.number_keys(
            transaction, {event.key for event in new if event.state_key is not None}
        )
        inserted = []
        for event in new:
            event_nid = known[event.event_id] = await transaction.next_position()
            inserted.append(
                (
                    event_nid,
                    0,
                    room_nid,
                    event.event_id,
                    event.depth,
                    senders[event.sender],
                    event.origin_server_ts,
                    int(Status.REJECTED if event.rejected else Status.OUTLIER),
                    0,
                    None,
                    0,
                    None,
                    None,
                    None,
                    None,
                    event.json,
                    None,
                    None,
                )
            )
        await transaction.execute_many(INSERT_EVENT, inserted)
        return known

    async def promote(self, transaction: Transaction, rows: Sequence[EventRow]) -> None:
        """Give outliers their place in the timeline."""
        await transaction.execute_many(
            "UPDATE events SET stream_id = $2, status = $3, notifies = $4, thread_root = $5, state_after = $6,"
            " state_before = $7, replaces_state = $8, room_state = $9, redacted_by = $10, json = $11,"
            " messages_so_far = $12, bytes_so_far = $13 WHERE event_nid = $1",
            [
                (
                    row.event_nid,
                    row.stream_id,
                    int(Status.TIMELINE),
                    int(row.notifies),
                    row.thread_root,
                    row.state_after,
                    row.state_before if row.state_before != row.state_after else None,
                    row.replaces_state,
                    row.room_state,
                    row.redacted_by,
                    row.event.json,
                    row.messages_so_far,
                    row.bytes_so_far,
                )
                for row in rows
            ],
        )

    async def settle(
        self,
        transaction: Transaction,
        event: Event,
        event_nid: int,
        status: Status,
        *,
        state_before: int,
        state_after: int,
    ) -> None:
        """Say what became of an event that has no place in the timeline, and the state at it."""
        await transaction.execute(
            "UPDATE events SET status = $2, state_before = $3, state_after = $4 WHERE event_nid = $1",
            event_nid,
            int(status),
            state_before if state_before != state_after else None,
            state_after,
        )
        await transaction.next_position()
        transaction.announce(Topic.REDACTED, event.event_id)
        transaction.after_commit(lambda: self._events.forget(event.event_id))
