"""Commits events: many rooms' writes in one transaction, each of them whole or not at all.

The order of the deeds in a commit:

1. compare every write's room with the head it was built on; a write that lost the race is left out;
2. look up transaction ids: a repeated one answers with the event that it made the first time;
3. give each event its place in the log, store it, its state snapshot, its relations, its memberships;
4. set the heads of the rooms;
5. after the commit, and only then, change what is held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from homeserver.ids import UserId, server_name_of
from homeserver.services.prepared_events import Outcome, Verdict
from homeserver.storage.announcements import Topic
from homeserver.storage.memberships import MembershipRow
from homeserver.storage.outgoing_events import OutgoingEvent
from homeserver.storage.relations import RelationRow
from homeserver.storage.rooms import SAYING, Head, RoomRow, dump_extremities
from homeserver.storage.state import GONE
from homeserver.storage.stored_event import EventRow, RoomPoint, with_redaction
from homeserver.views.push_rules import EVERYBODY, mentioned_users

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import ServerName
    from homeserver.metrics import Metrics
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.rooms.snapshots import SnapshotWriter
    from homeserver.services.prepared_events import Fork, PreparedEvent, RoomWrite
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.notifications import HighlightStore
    from homeserver.storage.outgoing_events import OutgoingEventStore
    from homeserver.storage.outliers import OutlierStore
    from homeserver.storage.relations import RelationStore
    from homeserver.storage.remote_device_lists import RemoteDeviceListStore
    from homeserver.storage.room_servers import Moves, RoomServerStore
    from homeserver.storage.rooms import RoomStore
    from homeserver.storage.shared_rooms import SharedRoomStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.transaction_ids import TransactionIdStore
    from homeserver.storage.typing import TypingStore

ENCRYPTION = ("m.room.encryption", "")
_OUT = frozenset({"leave", "ban"})
_MANY_MEMBERS = 500


@dataclass(slots=True)
class _Commit:
    """What one run of a transaction gathers."""

    outcomes: list[Outcome] = field(default_factory=list)
    rows: list[tuple[RoomWrite, PreparedEvent, EventRow]] = field(default_factory=list)
    memberships: list[MembershipRow] = field(default_factory=list)
    joined: dict[int, int] = field(default_factory=dict)
    invited: dict[int, int] = field(default_factory=dict)
    encrypted: dict[int, int] = field(default_factory=dict)
    """Rooms, each with the place of the first event that switched encryption on."""
    moved: set[int] = field(default_factory=set)
    """Rooms that somebody came into or went out of."""
    server_moves: Moves = field(default_factory=dict)
    written: list[RoomWrite] = field(default_factory=list)
    heads: dict[int, Head] = field(default_factory=dict)


class EventPersistence:
    """Writes batches of events and then tells the rest of the program."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        stores: EventStores,
        live_rooms: LiveRooms,
        memberships: Memberships,
        recent: RecentEvents,
        notifier: Notifier,
        metrics: Metrics,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._stores = stores
        self._live_rooms = live_rooms
        self._memberships = memberships
        self._recent = recent
        self._notifier = notifier
        self._metrics = metrics

    async def commit(self, writes: Sequence[RoomWrite]) -> list[Outcome]:
        """Commit these writes, in their order, in one transaction; one outcome for each."""

        async def work(transaction: Transaction) -> list[Outcome]:
            run = _Commit()
            await self._decide(transaction, writes, run)
            await self._store(transaction, run)
            transaction.after_commit(lambda: self._take_over(run))
            return run.outcomes

        return await self._database.write(work)

    async def _decide(self, transaction: Transaction, writes: Sequence[RoomWrite], run: _Commit) -> None:
        """Steps 1 and 2: which writes go in, and the places of their events."""
        known = list({write.room.room_nid for write in writes if write.built_on is not None})
        run.heads = heads = await self._stores.rooms.load_heads(transaction, known) if known else {}
        keys = [write.transaction_key for write in writes if write.transaction_key is not None]
        repeated = await self._stores.transaction_ids.find(transaction, keys) if keys else {}
        users = {prepared.event.sender for write in writes for prepared in write.events}
        numbers = await self._stores.numbers.number_users(transaction, users)
        for write in writes:
            if write.transaction_key in repeated:
                run.outcomes.append(Outcome(Verdict.REPEATED, repeated[write.transaction_key]))
                continue
            if write.built_on is None:
                write.room.room_nid = await transaction.next_position()
                heads[write.room.room_nid] = Head(write.head.head_version)
            head = heads.get(write.room.room_nid)
            if head is None or (write.built_on is not None and head.version != write.built_on):
                run.outcomes.append(Outcome(Verdict.CONFLICT))
                continue
            head.version = write.head.head_version
            for prepared in write.events:
                await self._place(transaction, write, prepared, numbers[prepared.event.sender], run)
            if write.transaction_key is not None:
                repeated[write.transaction_key] = write.events[-1].event.event_id
            run.written.append(write)
            run.outcomes.append(Outcome(Verdict.WRITTEN, write.events[-1].event.event_id))

    async def _place(
        self,
        transaction: Transaction,
        write: RoomWrite,
        prepared: PreparedEvent,
        sender_nid: int,
        run: _Commit,
    ) -> None:
        event, fork = prepared.event, prepared.fork
        position = await transaction.next_position()
        if fork is not None:
            await self._place_fork(transaction, write, prepared, fork, position, run)
        elif event.state_key is not None:
            room_nid = write.room.room_nid
            key_nid = (await self._stores.numbers.number_keys(transaction, [event.key]))[event.key]
            await self._stores.state.add_snapshot(
                transaction,
                snapshot_nid=position,
                room_nid=room_nid,
                previous=prepared.state_before.snapshot_nid,
                changes={key_nid: position},
            )
            prepared.state_after.snapshot_nid = position
            await self._stores.state.set_current(transaction, [(room_nid, key_nid, position)])
            if event.type == "m.room.member":
                _count_member(write, prepared.replaces, event, position, position, run)
            elif event.key == ENCRYPTION:
                run.encrypted.setdefault(room_nid, position)
        after, before = prepared.state_after.snapshot_nid, prepared.state_before.snapshot_nid
        head, older = run.heads[write.room.room_nid], fork.older if fork is not None else None
        if older is None:
            head.messages += prepared.notifies
            head.bytes += len(event.json)
            if event.type in SAYING:
                head.said = position
        run.rows.append(
            (
                write,
                prepared,
                EventRow(
                    event=event,
                    event_nid=position if fork is None else fork.event_nid,
                    # What is older than the log lies before its beginning, the last that came first.
                    stream_id=-position if older else position,
                    room_nid=write.room.room_nid,
                    sender_nid=sender_nid,
                    notifies=prepared.notifies,
                    thread_root=prepared.thread_root,
                    # The state before the create event is empty: it has no snapshot of its own.
                    state_after=position if after is None else after,
                    state_before=NO_STATE if before is None else before,
                    room_state=None if fork is None else fork.room_state.snapshot_nid,
                    redacted_by=prepared.redacted_by,
                    replaces_state=prepared.replaces.event_id if prepared.replaces else None,
                    device_id=write.device_id,
                    transaction_id=write.transaction_id,
                    messages_so_far=None if older else head.messages,
                    bytes_so_far=None if older else head.bytes,
                    missed_at=older.missed_at if older else None,
                ),
            )
        )

    async def _place_fork(
        self,
        transaction: Transaction,
        write: RoomWrite,
        prepared: PreparedEvent,
        fork: Fork,
        position: int,
        run: _Commit,
    ) -> None:
        """Store the snapshots that a fork needs, and what it changes in the current state."""
        stores, room_nid = self._stores, write.room.room_nid
        await stores.snapshots.store(transaction, room_nid, fork.snapshots)
        transaction.announce(Topic.REDACTED, prepared.event.event_id)
        numbers = await stores.numbers.number_keys(transaction, fork.changes)
        rows = []
        for key, (before, after) in fork.changes.items():
            rows.append((room_nid, numbers[key], after.event_nid if after is not None else GONE))
            if key[0] == "m.room.member":
                event, event_nid = prepared.event, fork.event_nid
                if after is not None:
                    event, event_nid = after.event, after.event_nid
                _count_member(write, before, event, event_nid, position, run, key=key, gone=after is None)
            elif key == ENCRYPTION and after is not None:
                run.encrypted.setdefault(room_nid, position)
        await stores.state.set_current(transaction, rows)

    async def _store(self, transaction: Transaction, run: _Commit) -> None:
        """Steps 3 and 4."""
        if not run.rows:
            return
        stores = self._stores
        await stores.events.insert(transaction, [row for _, prepared, row in run.rows if not prepared.fork])
        await stores.outliers.promote(transaction, [row for _, prepared, row in run.rows if prepared.fork])
        for write in run.written:
            if write.built_on is None:
                await stores.rooms.insert(transaction, _room_row(write, run))
            if write.extra is not None:
                await write.extra(transaction, write.room.room_id)
        relations, highlights, transaction_ids = [], [], []
        for _, prepared, row in run.rows:
            if prepared.relation is not None:
                relations.append(_relation_row(prepared, row))
            highlights += [
                (
                    user_id,
                    row.room_nid,
                    row.stream_id,
                    row.sender_nid,
                    row.thread_root,
                    int(prepared.notifies),
                )
                for user_id in prepared.highlights
            ]
            if prepared.redaction is not None:
                target, pruned = prepared.redaction
                await stores.events.redact(transaction, pruned, row.event.event_id)
                transaction.announce(Topic.REDACTED, pruned.event_id)
                await stores.relations.delete(transaction, pruned.event_id)
                highlighted = mentioned_users(target.event.content) | {EVERYBODY}
                await stores.highlights.delete_event(
                    transaction, target.room_nid, target.stream_id, highlighted
                )
        last_rows = {id(write): row for write, _, row in run.rows}
        for write in run.written:
            if write.transaction_key is not None:
                transaction_ids.append(
                    (write.transaction_key, last_rows[id(write)].event_nid, write.created_ts)
                )
        if relations:
            await stores.relations.insert(transaction, relations)
        if highlights:
            await stores.highlights.insert(transaction, highlights)
        if transaction_ids:
            await stores.transaction_ids.insert(transaction, transaction_ids)
        if run.memberships:
            latest = {(row.user_id, row.room_nid): row for row in run.memberships}
            await stores.memberships.set_latest(transaction, run.memberships, list(latest.values()))
            out = [row for row in latest.values() if row.membership in _OUT]
            await stores.typing.delete_of_members(transaction, [(row.room_id, row.user_id) for row in out])
            ours = [row for row in out if server_name_of(row.user_id) == self._server_name]
            # Whoever comes back counts from then on.
            await stores.highlights.delete_read_of_members(
                transaction, [(row.user_id, row.room_nid, row.stream_id) for row in ours]
            )
            await stores.remote_device_lists.note_left(
                transaction,
                [(row.user_id, row.room_nid) for row in run.memberships if row.membership in _OUT],
            )
        if run.encrypted or run.moved:
            await stores.shared_rooms.note(transaction, run.encrypted, run.moved)
        await stores.room_servers.move(transaction, run.server_moves)
        await stores.outgoing_events.insert(
            transaction, [_outgoing(prepared, row) for write, prepared, row in run.rows if write.goes_out]
        )
        await self._set_heads(transaction, run)
        for room_id in {write.room.room_id for write, _, row in run.rows if row.stream_id > 0}:
            transaction.announce(Topic.ROOM_EVENTS, room_id)
        told = run.memberships
        if len(told) > _MANY_MEMBERS:
            # A large room that this server comes into: of the others there nobody here has heard yet.
            for room_id in {row.room_id for row in told}:
                transaction.announce(Topic.MANY_MEMBERS, room_id)
            told = [row for row in told if server_name_of(row.user_id) == self._server_name]
        for user_id in {row.user_id for row in told}:
            transaction.announce(Topic.MEMBERSHIP, user_id)
        for user_id in {row.user_id for row in told if row.membership == "join"}:
            # Those in the room see whether they are about, and they see the others.
            transaction.announce(Topic.PRESENCE, user_id)

    async def _set_heads(self, transaction: Transaction, run: _Commit) -> None:
        last_rows = {write.room.room_nid: (write, row) for write, _, row in run.rows}
        created = {write.room.room_nid for write in run.written if write.built_on is None}
        heads = []
        for room_nid, (write, row) in last_rows.items():
            joined, invited = run.joined.get(room_nid, 0), run.invited.get(room_nid, 0)
            if room_nid in created:
                # The row was inserted with these counts.
                joined = invited = 0
            heads.append(
                (
                    room_nid,
                    write.head.head_version,
                    dump_extremities(write.head.extremities),
                    write.head.depth,
                    _snapshot_of(write, row),
                    abs(row.stream_id),
                    joined,
                    invited,
                    run.heads[room_nid].messages,
                    run.heads[room_nid].bytes,
                    run.heads[room_nid].said,
                )
            )
        await self._stores.rooms.update_heads(transaction, heads)

    def _take_over(self, run: _Commit) -> None:
        """Step 5: the caches follow the commit, before anybody is woken."""
        for write, prepared, row in run.rows:
            room = write.room
            stored = row.stored(room.room_id, prepared.highlights)
            self._stores.events.remember(stored)
            if stored.stream_id > 0:
                self._recent.add(stored)
            event = prepared.event
            if prepared.fork is not None:
                room.take_over(
                    {key: after and after.event for key, (_, after) in prepared.fork.changes.items()}
                )
            elif event.state_key is not None:
                room.state[event.key] = event
                if room.pending.get(event.key) is event:
                    del room.pending[event.key]
            if prepared.redaction is not None:
                target, pruned = prepared.redaction
                redacted = with_redaction(target, pruned, event.event_id)
                self._stores.events.remember(redacted)
                self._recent.replace(redacted)
                if pruned.state_key is not None:
                    current = room.state.get(pruned.key)
                    if current is not None and current.event_id == pruned.event_id:
                        room.state[pruned.key] = pruned
        with_moves = {row.room_nid for row in run.memberships}
        for write in run.written:
            write.room.state_version = write.head.head_version
            if write.room.room_nid in with_moves:
                write.room.is_hosted = None
            if write.generation != write.room.generation:
                # Given up for lost, and written after all: what was built meanwhile was built beside it.
                write.room.invalidate()
            held = self._live_rooms.peek(write.room.room_id)
            if held is not None and held is not write.room:
                # The room went out of memory while somebody waited for its lock, and came in again.
                held.invalidate()
        self._memberships.apply(run.memberships)
        self._notifier.answer_first(prepared.event.sender for _, prepared, _ in run.rows)
        self._metrics.events.inc(len(run.rows))


def _count_member(
    write: RoomWrite,
    before: Event | None,
    event: Event,
    event_nid: int,
    position: int,
    run: _Commit,
    *,
    key: StateKey | None = None,
    gone: bool = False,
) -> None:
    """Note a changed membership; where its event is `gone` from the state, the user is out of the room."""
    room = write.room
    was = before.content.get("membership") if before is not None else None
    membership = "leave" if gone else event.membership or "leave"
    for counts, counted in ((run.joined, "join"), (run.invited, "invite")):
        counts[room.room_nid] = counts.get(room.room_nid, 0) + (membership == counted) - (was == counted)
    if (membership == "join") != (was == "join"):
        run.moved.add(room.room_nid)
        move = (room.room_nid, server_name_of((key or event.key)[1]), position)
        run.server_moves[move] = run.server_moves.get(move, 0) + (1 if membership == "join" else -1)
    run.memberships.append(
        MembershipRow(
            user_id=UserId((key or event.key)[1]),
            room_nid=room.room_nid,
            room_id=room.room_id,
            membership=membership,
            event_nid=event_nid,
            stream_id=position,
            sender=event.sender,
            forgotten=False,
        )
    )


NO_STATE = 0
"""The snapshot number of the empty state before a room's create event."""


@dataclass(frozen=True, slots=True)
class EventStores:
    """The stores that an event touches."""

    rooms: RoomStore
    events: EventStore
    state: StateStore
    numbers: NumberStore
    memberships: MembershipStore
    outliers: OutlierStore
    snapshots: SnapshotWriter
    shared_rooms: SharedRoomStore
    room_servers: RoomServerStore
    outgoing_events: OutgoingEventStore
    relations: RelationStore
    remote_device_lists: RemoteDeviceListStore
    highlights: HighlightStore
    transaction_ids: TransactionIdStore
    typing: TypingStore


def _outgoing(prepared: PreparedEvent, row: EventRow) -> OutgoingEvent:
    event, target = prepared.event, None
    # An invite is brought by a request of its own.
    if event.type == "m.room.member" and event.membership != "invite":
        assert event.state_key is not None
        target = server_name_of(event.state_key)
        if target == server_name_of(event.sender):
            target = None
    return OutgoingEvent(row.room_nid, row.stream_id, row.event_nid, target)


def _room_row(write: RoomWrite, run: _Commit) -> RoomRow:
    room = write.room
    last = next(row for other, _, row in reversed(run.rows) if other is write)
    return RoomRow(
        room_nid=room.room_nid,
        room_id=room.room_id,
        version=room.version,
        head_version=write.head.head_version,
        forward_extremities=write.head.extremities,
        depth=write.head.depth,
        state_snapshot=_snapshot_of(write, last),
        last_position=last.stream_id,
        joined_members=run.joined.get(room.room_nid, 0),
        invited_members=run.invited.get(room.room_nid, 0),
    )


def _snapshot_of(write: RoomWrite, last: EventRow) -> int:
    """The state of a room after a write."""
    snapshot_nid = write.head.snapshot.snapshot_nid
    return last.state_after if snapshot_nid is None else snapshot_nid


def _relation_row(prepared: PreparedEvent, row: EventRow) -> RelationRow:
    assert prepared.relation is not None
    relates_to, relation_type = prepared.relation
    return RelationRow(
        event_nid=row.event_nid,
        room_nid=row.room_nid,
        relates_to=relates_to,
        relation_type=relation_type,
        event_type=prepared.event.type,
        sender_nid=row.sender_nid,
        point=RoomPoint(prepared.event.depth, row.stream_id),
    )
