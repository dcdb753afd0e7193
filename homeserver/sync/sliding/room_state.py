"""The part of a room's state that a client wants, whole or as far as it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.state import GONE
from homeserver.sync.sliding.required_state import MEMBER, StatePattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import StateKey
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.sliding.required_state import RequiredState

NAME: StateKey = ("m.room.name", "")
AVATAR: StateKey = ("m.room.avatar", "")
_EVERYTHING = StatePattern(None, None)


@dataclass(slots=True)
class StateChange:
    """What stands otherwise in the state of a room than at an earlier place."""

    entries: dict[StateKey, StoredEvent]
    gone: list[StateKey]

    def __contains__(self, key: StateKey) -> bool:
        return key in self.entries or key in self.gone

    @property
    def has_members(self) -> bool:
        """Whether a membership is among it."""
        return any(key[0] == MEMBER for key in (*self.entries, *self.gone))


class WantedState:
    """Reads snapshots of rooms."""

    def __init__(self, events: EventStore, state: StateStore, numbers: NumberStore) -> None:
        self._events = events
        self._state = state
        self._numbers = numbers

    async def prepare(self, snapshots: Iterable[int], *, keys: bool) -> None:
        """Have these snapshots in memory, and what their entries are called where they are looked for by type."""
        wanted = [snapshot for snapshot in snapshots if snapshot]
        await self._state.load_chains(wanted)
        if keys:
            await self._state.prepare_keys(wanted)

    async def prepare_entries(self, wanted: Mapping[int, Iterable[StateKey]]) -> list[StoredEvent]:
        """Have some entries of snapshots in memory that are there themselves; those entries."""
        key_nids = await self._numbers.load_key_numbers({key for keys in wanted.values() for key in keys})
        event_nids: set[int] = set()
        for snapshot, keys in wanted.items():
            if snapshot:
                nids = [key_nids[key] for key in keys if key in key_nids]
                event_nids.update((await self._state.get_numbers(snapshot, nids)).values())
        return list((await self._events.load_numbered(event_nids)).values())

    async def change(self, start: int, end: int) -> StateChange:
        """What snapshot `end` has otherwise than `start`."""
        numbers = await self._state.load_difference(start, end) if end not in (0, start) else {}
        stored = await self._events.load_numbered(n for n in numbers.values() if n != GONE)
        gone = [key_nid for key_nid, event_nid in numbers.items() if event_nid == GONE]
        keys = await self._state.load_keys(gone) if gone else {}
        return StateChange({one.event.key: one for one in stored.values()}, sorted(keys.values()))

    async def entries(self, snapshot: int, keys: Iterable[StateKey]) -> dict[StateKey, StoredEvent]:
        """Some entries of a snapshot; absent ones are left out."""
        wanted = list(keys)
        if snapshot == 0 or not wanted:
            return {}
        key_nids = await self._numbers.load_key_numbers(wanted)
        numbers = await self._state.get_numbers(snapshot, key_nids.values())
        stored = await self._events.load_numbered(numbers.values())
        return {one.event.key: one for one in stored.values()}

    async def numbered(self, event_nids: Iterable[int]) -> dict[int, StoredEvent]:
        """Events by their numbers."""
        return await self._events.load_numbered(event_nids)

    async def members(self, snapshot: int, user_ids: Iterable[str]) -> dict[StateKey, StoredEvent]:
        """The member events of some users in a snapshot."""
        return await self.entries(snapshot, [(MEMBER, user_id) for user_id in user_ids])

    async def whole(
        self, snapshot: int, wanted: RequiredState, *, but: RequiredState | None = None
    ) -> dict[StateKey, StoredEvent]:
        """The entries of a snapshot that are wanted, without those that were wanted before."""
        if snapshot == 0:
            return {}
        if but is not None:
            wanted = type(wanted)(wanted.rules - but.rules)
        found = await self._candidates(snapshot, wanted)
        return {
            key: one
            for key, one in found.items()
            if wanted.matches(key) and not (but is not None and but.matches(key))
        }

    async def _candidates(self, snapshot: int, wanted: RequiredState) -> Mapping[StateKey, StoredEvent]:
        """The entries of a snapshot among which are all that are wanted; of a large room few others."""
        patterns = wanted.patterns
        types = {one.type for one in patterns if one.type is not None and one.state_key is None}
        found = await self.entries(snapshot, wanted.named)
        if any(one.type is None for one in patterns):
            numbers: Sequence[int]
            if wanted.matches((MEMBER, "")) or any(
                one.type is None and one != _EVERYTHING for one in patterns
            ):
                numbers = list((await self._state.load_numbers(snapshot)).values())
            else:
                numbers = await self._state.load_numbers_of_type(snapshot, MEMBER, others=True)
            stored = await self._events.load_numbered(numbers)
            found.update((one.event.key, one) for one in stored.values())
        for event_type in sorted(types):
            numbers = await self._state.load_numbers_of_type(snapshot, event_type)
            stored = await self._events.load_numbered(numbers)
            found.update((one.event.key, one) for one in stored.values())
        return found
