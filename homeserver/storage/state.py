"""The state of rooms: snapshots at events, and the current state.

A snapshot is the whole state after some state event. It is stored as what differs from an ancestor: snapshot
number `height` of a chain of changes hangs on the one at `height & (height - 1)` (its height with the lowest
bit cleared), so that any snapshot is read in at most log2(height) rows and a chain of n changes takes
n * log2(n) / 2 entries, however many members the room has.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import EventId

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.storage.database import Database, Transaction

_CACHED_ENTRIES = 500_000
_CACHED_KEYS = 100_000
_MOST_KEYS_AT_ONCE = 5_000
"""The members of a larger room would drive out what is asked for again and again."""
GONE = 0
"""The event number of an entry that a snapshot no longer has."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One stored snapshot: `delta` maps key numbers to event numbers, on top of `parent_nid`."""

    snapshot_nid: int
    room_nid: int
    height: int
    parent_nid: int | None
    delta: Mapping[int, int]


def _pack(delta: Mapping[int, int]) -> bytes:
    flat = array("q")
    for key_nid, event_nid in delta.items():
        flat.append(key_nid)
        flat.append(event_nid)
    return flat.tobytes()


def _unpack(packed: bytes) -> dict[int, int]:
    flat = array("q")
    flat.frombytes(packed)
    return dict(zip(flat[::2], flat[1::2], strict=True))


_COLUMNS = "snapshot_nid, room_nid, height, parent_nid, delta"


def _read(row: tuple) -> Snapshot:  # type: ignore[type-arg]
    snapshot_nid, room_nid, height, parent_nid, delta = row
    return Snapshot(snapshot_nid, room_nid, height, parent_nid, _unpack(delta))


def _missing(snapshot_nid: int) -> LookupError:
    return LookupError(f"state snapshot {snapshot_nid} is not in the database")


class StateStore:
    """Snapshots and the current state of rooms."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshots: OrderedDict[int, Snapshot] = OrderedDict()
        self._cached_entries = 0
        self._keys: dict[int, StateKey] = {}

    # -- writing ---------------------------------------------------------------------------------------

    async def add_snapshot(
        self,
        transaction: Transaction,
        *,
        snapshot_nid: int,
        room_nid: int,
        previous: int | None,
        changes: Mapping[int, int],
    ) -> Snapshot:
        """Store the state that differs from snapshot `previous` by `changes` (key number -> event number)."""
        if previous is None:
            snapshot = Snapshot(snapshot_nid, room_nid, 0, None, dict(changes))
        else:
            ancestor = await self._snapshot(previous, transaction)
            height = ancestor.height + 1
            parent_height = height & (height - 1)
            delta = dict(changes)
            while ancestor.height > parent_height and ancestor.parent_nid is not None:
                for key_nid, event_nid in ancestor.delta.items():
                    delta.setdefault(key_nid, event_nid)
                ancestor = await self._snapshot(ancestor.parent_nid, transaction)
            snapshot = Snapshot(snapshot_nid, room_nid, height, ancestor.snapshot_nid, delta)
        await transaction.execute(
            "INSERT INTO state_snapshots (snapshot_nid, room_nid, height, parent_nid, delta)"
            " VALUES ($1, $2, $3, $4, $5)",
            snapshot.snapshot_nid,
            snapshot.room_nid,
            snapshot.height,
            snapshot.parent_nid,
            _pack(snapshot.delta),
        )
        return snapshot

    async def set_current(self, transaction: Transaction, changes: Sequence[tuple[int, int, int]]) -> None:
        """Set entries of the current state: rows of (room number, key number, event number or `GONE`)."""
        gone = [(room_nid, key_nid) for room_nid, key_nid, event_nid in changes if event_nid == GONE]
        kept = [change for change in changes if change[2] != GONE]
        if gone:
            await transaction.execute_many(
                "DELETE FROM current_state WHERE room_nid = $1 AND key_nid = $2", gone
            )
        if kept:
            await transaction.execute_many(
                "INSERT INTO current_state (room_nid, key_nid, event_nid) VALUES ($1, $2, $3)"
                " ON CONFLICT (room_nid, key_nid) DO UPDATE SET event_nid = excluded.event_nid",
                kept,
            )

    # -- reading ---------------------------------------------------------------------------------------

    async def load_numbers(self, snapshot_nid: int) -> dict[int, int]:
        """The whole state of a snapshot, key number -> event number."""
        state: dict[int, int] = {}
        current: int | None = snapshot_nid
        while current is not None:
            snapshot = await self._snapshot(current, None)
            for key_nid, event_nid in snapshot.delta.items():
                state.setdefault(key_nid, event_nid)
            current = snapshot.parent_nid
        return {key_nid: event_nid for key_nid, event_nid in state.items() if event_nid != GONE}

    async def get_number(self, snapshot_nid: int, key_nid: int) -> int | None:
        """The event number of one entry of a snapshot."""
        current: int | None = snapshot_nid
        while current is not None:
            snapshot = await self._snapshot(current, None)
            event_nid = snapshot.delta.get(key_nid)
            if event_nid is not None:
                return event_nid if event_nid != GONE else None
            current = snapshot.parent_nid
        return None

    async def get_numbers(self, snapshot_nid: int, key_nids: Iterable[int]) -> dict[int, int]:
        """The event numbers of some entries of a snapshot, by key number; absent ones are left out."""
        missing, found = set(key_nids), {}
        current: int | None = snapshot_nid
        while current is not None and missing:
            snapshot = await self._snapshot(current, None)
            here = missing & snapshot.delta.keys()
            found.update({key_nid: snapshot.delta[key_nid] for key_nid in here})
            missing -= here
            current = snapshot.parent_nid
        return {key_nid: event_nid for key_nid, event_nid in found.items() if event_nid != GONE}

    async def load_number_in_each(self, snapshot_nids: Iterable[int], key_nid: int) -> dict[int, int]:
        """The event number of one entry in each of these snapshots, by snapshot; absent ones are left out.

        A question to the database for each step towards the roots of the snapshots, not for each snapshot.
        """
        found: dict[int, int] = {}
        places = {snapshot_nid: snapshot_nid for snapshot_nid in snapshot_nids}
        while places:
            here = await self._load_snapshots(set(places.values()))
            above: dict[int, int] = {}
            for snapshot_nid, place in places.items():
                snapshot = here[place]
                event_nid = snapshot.delta.get(key_nid)
                if event_nid is not None:
                    found[snapshot_nid] = event_nid
                elif snapshot.parent_nid is not None:
                    above[snapshot_nid] = snapshot.parent_nid
            places = above
        return {snapshot_nid: event_nid for snapshot_nid, event_nid in found.items() if event_nid != GONE}

    async def load_chains(self, snapshot_nids: Iterable[int]) -> None:
        """Have snapshots in memory, with those that they hang on: a question for each step towards the roots of all."""
        places = set(snapshot_nids)
        while places:
            here = await self._load_snapshots(places)
            places = {snapshot.parent_nid for snapshot in here.values() if snapshot.parent_nid is not None}

    async def load_numbers_of_type(
        self, snapshot_nid: int, event_type: str, *, others: bool = False
    ) -> list[int]:
        """The event numbers of the entries of one type in a snapshot, or of all `others`."""
        numbers = await self.load_numbers(snapshot_nid)
        if len(numbers) <= _MOST_KEYS_AT_ONCE:
            keys = await self.load_keys(numbers)
            return [numbers[key_nid] for key_nid, key in keys.items() if (key[0] == event_type) is not others]
        sign = "<>" if others else "="
        rows = await self._database.fetch_all(
            f"SELECT key_nid FROM state_keys WHERE key_nid = ANY($1::bigint[]) AND type {sign} $2",
            list(numbers),
            event_type,
        )
        return [numbers[row[0]] for row in rows]

    async def load_difference(self, old: int, new: int) -> dict[int, int]:
        """What snapshot `new` has otherwise than `old`, key number -> event number (`GONE`: no longer there).

        Costs as much as lies between the two, not as much as the room's state.
        """
        if old == new:
            return {}
        if old == 0:
            return await self.load_numbers(new)
        old_chain, new_chain = await self._chain(old), await self._chain(new)
        common = {snapshot.snapshot_nid for snapshot in old_chain} & {s.snapshot_nid for s in new_chain}
        keys: set[int] = set()
        for chain in (old_chain, new_chain):
            for snapshot in chain:
                if snapshot.snapshot_nid in common:
                    break
                keys.update(snapshot.delta)
        difference = {}
        for key_nid in keys:
            event_nid = await self.get_number(new, key_nid)
            if event_nid != await self.get_number(old, key_nid):
                difference[key_nid] = GONE if event_nid is None else event_nid
        return difference

    async def _chain(self, snapshot_nid: int) -> list[Snapshot]:
        chain = [await self._snapshot(snapshot_nid, None)]
        while chain[-1].parent_nid is not None:
            chain.append(await self._snapshot(chain[-1].parent_nid, None))
        return chain

    async def load_event_ids(self, snapshot_nid: int) -> dict[StateKey, EventId]:
        """The whole state of a snapshot by name."""
        numbers = await self.load_numbers(snapshot_nid)
        rows = await self._database.fetch_all(
            "SELECT event_nid, event_id FROM events WHERE event_nid = ANY($1::bigint[])",
            list(numbers.values()),
        )
        event_ids = {event_nid: EventId(event_id) for event_nid, event_id in rows}
        keys = await self.load_keys(numbers)
        return {keys[key_nid]: event_ids[event_nid] for key_nid, event_nid in numbers.items()}

    async def load_keys(self, key_nids: Iterable[int]) -> dict[int, StateKey]:
        """The state keys that have these numbers."""
        wanted = list(key_nids)
        found = {key_nid: self._keys[key_nid] for key_nid in wanted if key_nid in self._keys}
        missing = [key_nid for key_nid in wanted if key_nid not in found]
        if missing:
            rows = await self._database.fetch_all(
                "SELECT key_nid, type, state_key FROM state_keys WHERE key_nid = ANY($1::bigint[])", missing
            )
            read = {key_nid: (event_type, state_key) for key_nid, event_type, state_key in rows}
            found.update(read)
            if len(read) <= _MOST_KEYS_AT_ONCE:
                if len(self._keys) > _CACHED_KEYS:
                    self._keys.clear()
                # A number, once given, never changes.
                self._keys.update(read)
        return found

    async def prepare_keys(self, snapshot_nids: Iterable[int]) -> None:
        """Have in memory what the entries of these snapshots are called, of those that are not large."""
        wanted: set[int] = set()
        for snapshot_nid in snapshot_nids:
            numbers = await self.load_numbers(snapshot_nid)
            if len(numbers) <= _MOST_KEYS_AT_ONCE // 10:
                wanted |= numbers.keys() - self._keys.keys()
        missing = list(wanted)
        for start in range(0, len(missing), _MOST_KEYS_AT_ONCE):
            await self.load_keys(missing[start : start + _MOST_KEYS_AT_ONCE])

    async def load_current(self, room_nid: int) -> dict[int, int]:
        """The current state of a room, key number -> event number."""
        rows = await self._database.fetch_all(
            "SELECT key_nid, event_nid FROM current_state WHERE room_nid = $1", room_nid
        )
        return dict(rows)

    async def _snapshot(self, snapshot_nid: int, transaction: Transaction | None) -> Snapshot:
        cached = self._snapshots.get(snapshot_nid)
        if cached is not None:
            self._snapshots.move_to_end(snapshot_nid)
            return cached
        row = await (transaction or self._database).fetch_one(
            f"SELECT {_COLUMNS} FROM state_snapshots WHERE snapshot_nid = $1", snapshot_nid
        )
        if row is None:
            raise _missing(snapshot_nid)
        # A snapshot read inside a write may yet be rolled back, and is not remembered.
        return _read(row) if transaction is not None else self._remember(_read(row))

    async def _load_snapshots(self, snapshot_nids: Collection[int]) -> dict[int, Snapshot]:
        found: dict[int, Snapshot] = {}
        for snapshot_nid in snapshot_nids:
            cached = self._snapshots.get(snapshot_nid)
            if cached is not None:
                found[snapshot_nid] = cached
        missing = [snapshot_nid for snapshot_nid in snapshot_nids if snapshot_nid not in found]
        if missing:
            rows = await self._database.fetch_all(
                f"SELECT {_COLUMNS} FROM state_snapshots WHERE snapshot_nid = ANY($1::bigint[])", missing
            )
            found.update({row[0]: self._remember(_read(row)) for row in rows})
            if len(found) < len(snapshot_nids):
                raise _missing(next(nid for nid in missing if nid not in found))
        return found

    def _remember(self, snapshot: Snapshot) -> Snapshot:
        known = self._snapshots.get(snapshot.snapshot_nid)
        if known is not None:
            return known
        self._snapshots[snapshot.snapshot_nid] = snapshot
        self._cached_entries += len(snapshot.delta) + 1
        while self._cached_entries > _CACHED_ENTRIES and len(self._snapshots) > 1:
            _, dropped = self._snapshots.popitem(last=False)
            self._cached_entries -= len(dropped.delta) + 1
        return snapshot
