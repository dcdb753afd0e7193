"""Events without a place in the timeline: cited by others, refused, or not yet placed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.announcements import Topic
from homeserver.storage.events import INSERT_EVENT
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId
    from homeserver.storage.database import Transaction
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.stored_event import EventRow


class OutlierStore:
    """Stores outliers, and gives them their place once it is known."""

    def __init__(self, events: EventStore, numbers: NumberStore) -> None:
        self._events = events
        self._numbers = numbers
        self.on_renumbered: Callable[[UserId], None] = _nobody_listens
        """Hears of users whose memberships name an event that has another number now."""

    async def insert(
        self, transaction: Transaction, room_nid: int, events: Sequence[Event], *, judged: bool = True
    ) -> dict[EventId, int]:
        """Store events of a room, those that are cited before those that cite them; the answer is their numbers.

        Those that are stored already keep what they have. The keys of state events get their numbers.
        With `judged=False` they are only noted; what was noted before becomes an outlier once it comes judged.
        """
        rows = await transaction.fetch_all(
            "SELECT event_id, event_nid, status FROM events WHERE event_id = ANY($1::text[])",
            [event.event_id for event in events],
        )
        known: dict[EventId, int] = {event_id: event_nid for event_id, event_nid, _ in rows}
        noted = {event_id for event_id, _, status in rows if judged and status == Status.NOTED}
        new = [event for event in events if event.event_id not in known]
        senders = await self._numbers.number_users(transaction, {event.sender for event in new})
        await self._numbers.number_keys(
            transaction, {event.key for event in new if event.state_key is not None}
        )
        inserted = []
        for event in events:
            if event.event_id in noted:
                known[event.event_id] = await self._take(transaction, event, known[event.event_id])
            if event.event_id in known:
                continue
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
                    int(_status(event) if judged else Status.NOTED),
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

    async def _take(self, transaction: Transaction, event: Event, noted_nid: int) -> int:
        """Make an outlier of an event that was noted; the answer is its new number.

        Its number is to be above those of the events that it cites: whoever walks over auth events rests on that.
        """
        event_nid = await transaction.next_position()
        await transaction.execute(
            "UPDATE events SET event_nid = $2, status = $3 WHERE event_nid = $1",
            noted_nid,
            event_nid,
            int(_status(event)),
        )
        user_id = UserId(event.key[1])
        for table in ("memberships", "membership_log"):
            await transaction.execute(
                f"UPDATE {table} SET event_nid = $3 WHERE user_id = $1 AND event_nid = $2",
                user_id,
                noted_nid,
                event_nid,
            )
        transaction.announce(Topic.REDACTED, event.event_id)
        transaction.announce(Topic.MEMBERSHIP, user_id)

        def follow() -> None:
            self._events.forget(event.event_id)
            self.on_renumbered(user_id)

        transaction.after_commit(follow)
        return event_nid

    async def promote(self, transaction: Transaction, rows: Sequence[EventRow]) -> None:
        """Give outliers their place in the timeline."""
        await transaction.execute_many(
            "UPDATE events SET stream_id = $2, status = $3, notifies = $4, thread_root = $5, state_after = $6,"
            " state_before = $7, replaces_state = $8, room_state = $9, redacted_by = $10, json = $11,"
            " messages_so_far = $12, bytes_so_far = $13, missed_at = $14 WHERE event_nid = $1",
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
                    row.missed_at,
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


def _status(event: Event) -> Status:
    return Status.REJECTED if event.rejected else Status.OUTLIER


def _nobody_listens(user_id: UserId) -> None:
    """Until the program has said who listens."""
