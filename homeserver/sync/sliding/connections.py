"""The connections of devices: what each client holds, in memory for those that are about, and in the database.

A `pos` names a position of the log and the stored answer that tells what the client holds there. An answer that
changes nothing of that is not stored: its `pos` names a later position and the same answer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from homeserver.sync.sliding.holdings import Holdings, pack, put_together
from homeserver.views.tokens import UnknownPos

if TYPE_CHECKING:
    from collections.abc import Collection

    from homeserver.clock import Clock
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.sliding_sync import ConnectionKey, SlidingSyncStore
    from homeserver.sync.sliding.holdings import HoldingChanges

_CACHED_ROOMS = 100_000
_ANSWERS_IN_MEMORY = 3
_MAX_REQUIRED_STATES = 100
_MAX_REQUIRED_STATE_BYTES = 1 << 18
_FEW_CHANGES = 64
_DAY_MS = 24 * 3_600 * 1000


class Connections:
    """Remembers what clients hold."""

    def __init__(self, database: Database, store: SlidingSyncStore, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._known: OrderedDict[ConnectionKey, OrderedDict[int, Holdings]] = OrderedDict()
        self._touched: OrderedDict[ConnectionKey, int] = OrderedDict()
        self._cached = 0

    async def find(self, key: ConnectionKey, answer_nid: int) -> Holdings:
        """What a client holds that comes back with an answer; `UnknownPos` where that is not known any more."""
        known = self._known.get(key)
        holdings = known.get(answer_nid) if known is not None else None
        if holdings is None:
            rows = await self._store.load_answers(key, answer_nid)
            if not rows:
                raise UnknownPos
            holdings = put_together((row.answer_nid, row.changes) for row in rows)
        self._remember(key, holdings)
        now = self._clock.now_ms()
        if self._touched.get(key, 0) < now - _DAY_MS:
            await self._database.write(lambda transaction: self._store.touch(transaction, key, now))
            self._note_touched(key, now)
        return holdings

    async def note(
        self, key: ConnectionKey, held: Holdings, changes: HoldingChanges, room_nids: Collection[int]
    ) -> Holdings:
        """Store what an answer changes for a client that holds `held`; what it holds with the answer.

        `room_nids` are all rooms that the user has. Raises `UnknownPos` where the client has been answered with
        something else meanwhile, and is not waiting for this.
        """
        now = self._clock.now_ms()
        packed = pack(changes)
        if not held.answer_nid:
            begun = await self._database.write(lambda t: self._store.begin(t, key, packed, now))
            self._forget(key)
            self._note_touched(key, now)
            holdings = held.after(begun, changes)
            self._remember(key, holdings)
            return holdings
        whole = None
        if held.stored_changes > max(_FEW_CHANGES, len(held.rooms)) or _asks_for_too_much(held):
            held = held.tidied(room_nids)
            whole = pack(held)
            if _asks_for_too_much(held):
                # Whoever asks for something else each time begins anew now and then.
                raise UnknownPos

        async def go_on(transaction: Transaction) -> int | None:
            answer_nid = await self._store.go_on(transaction, key, held.answer_nid, packed, now)
            if answer_nid is not None and whole is not None:
                await self._store.put_together(transaction, key, held.answer_nid, whole)
            return answer_nid

        answer_nid = await self._database.write(go_on)
        if answer_nid is None:
            self._forget(key)
            raise UnknownPos
        holdings = held.after(answer_nid, changes)
        self._remember(key, holdings)
        return holdings

    # -- in memory -------------------------------------------------------------------------------------

    def _remember(self, key: ConnectionKey, holdings: Holdings) -> None:
        answers = self._known.setdefault(key, OrderedDict())
        self._known.move_to_end(key)
        if holdings.answer_nid not in answers:
            self._cached += len(holdings.rooms) + 1
        answers[holdings.answer_nid] = holdings
        answers.move_to_end(holdings.answer_nid)
        while len(answers) > _ANSWERS_IN_MEMORY:
            self._cached -= len(answers.popitem(last=False)[1].rooms) + 1
        while self._cached > _CACHED_ROOMS and len(self._known) > 1:
            self._forget(next(iter(self._known)))

    def _forget(self, key: ConnectionKey) -> None:
        for holdings in self._known.pop(key, {}).values():
            self._cached -= len(holdings.rooms) + 1

    def _note_touched(self, key: ConnectionKey, now: int) -> None:
        self._touched[key] = now
        self._touched.move_to_end(key)
        while len(self._touched) > _CACHED_ROOMS:
            self._touched.popitem(last=False)


def _asks_for_too_much(held: Holdings) -> bool:
    states = held.required_states
    return len(states) > _MAX_REQUIRED_STATES or (
        sum(len(wanted.packed) for wanted in states.values()) > _MAX_REQUIRED_STATE_BYTES
    )
