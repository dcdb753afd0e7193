"""States beside the stored ones, and the shell of state resolution, which fetches what the room core asks for.

A state is told by what it has otherwise than a stored snapshot. Where a room's state is large and the conflict small,
only the events of the conflict are loaded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from homeserver.eventgraph.questions import EventNumber, NeedAuthEvents, NeedEvents
from homeserver.eventgraph.state_res import resolve, split
from homeserver.storage.state import GONE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.questions import Question, Resolution
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.rooms.auth_chains import AuthChains
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.stored_event import StoredEvent

_AT_A_TIME = 1_000


@dataclass(frozen=True, slots=True)
class StatePoint:
    """A state: a stored snapshot (0: the empty one) with changes, by event number or `GONE`."""

    snapshot_nid: int
    changes: Mapping[StateKey, int] = field(default_factory=dict)

    def changed(self, changes: Mapping[StateKey, int]) -> StatePoint:
        """This state with further changes."""
        return StatePoint(self.snapshot_nid, {**self.changes, **changes})


class StateResolver:
    """Reads and resolves states of one room. Event numbers are the order of storing: auth events are stored first."""

    def __init__(
        self, events: EventStore, state: StateStore, numbers: NumberStore, chains: AuthChains
    ) -> None:
        self._events = events
        self._state = state
        self._numbers = numbers
        self._chains = chains

    async def entries(self, point: StatePoint, keys: Iterable[StateKey]) -> dict[StateKey, StoredEvent]:
        """Some entries of a state; absent ones are left out."""
        wanted = set(keys)
        numbers = {key: number for key, number in point.changes.items() if key in wanted and number != GONE}
        below = await self._numbers.load_key_numbers(wanted - point.changes.keys())
        if below and point.snapshot_nid:
            found = await self._state.get_numbers(point.snapshot_nid, below.values())
            numbers.update({key: found[key_nid] for key, key_nid in below.items() if key_nid in found})
        events = await self._events.load_numbered(numbers.values())
        return {key: events[number] for key, number in numbers.items()}

    async def difference(self, old: StatePoint, new: StatePoint) -> dict[StateKey, int]:
        """What a state has otherwise than another: the number of an event, or `GONE`."""
        if new.snapshot_nid == 0:
            whole_before, whole_after = await self._load(old), await self._load(new)
            changed = {key for key, _ in whole_before.items() ^ whole_after.items()}
            names = await self._state.load_keys(changed)
            return {names[key]: whole_after.get(key, GONE) for key in changed}
        below = await self._state.load_difference(old.snapshot_nid, new.snapshot_nid)
        names = await self._state.load_keys(below)
        difference = {names[key_nid]: number for key_nid, number in below.items()}
        beside = {*old.changes, *new.changes}
        before, after = await self._some(old, beside), await self._some(new, beside)
        for key in beside:
            difference.pop(key, None)
            if before.get(key, GONE) != after.get(key, GONE):
                difference[key] = after.get(key, GONE)
        return difference

    async def resolve(self, version: RoomVersion, points: Sequence[StatePoint]) -> StatePoint:
        """The resolved state, told from the first of these.

        By key and not by the key's number, since an event may win that was in no state before. Raises `LookupError`
        where an event of the auth chains is not stored, or was stored too late.
        """
        first = points[0]
        states = [cast("dict[int, EventNumber]", await self._load(point)) for point in points]
        unconflicted, conflicted = split(states)
        keys = await self._state.load_keys({key_nid for state in conflicted for key_nid in state})
        named = [{keys[key_nid]: number for key_nid, number in state.items()} for state in conflicted]
        resolved = await self._run(resolve(version, named, unconflicted.values()), unconflicted)
        return first.changed(
            {
                key: resolved.get(key, GONE)
                for key in {*keys.values(), *resolved}
                if resolved.get(key, GONE) != named[0].get(key, GONE)
            }
        )

    async def _load(self, point: StatePoint) -> dict[int, int]:
        """The whole of a state, key number -> event number. Every changed key has its number."""
        numbers = await self._state.load_numbers(point.snapshot_nid) if point.snapshot_nid else {}
        if point.changes:
            for key, key_nid in (await self._numbers.load_key_numbers(point.changes)).items():
                if point.changes[key] == GONE:
                    numbers.pop(key_nid, None)
                else:
                    numbers[key_nid] = point.changes[key]
        return numbers

    async def _some(self, point: StatePoint, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        return {key: stored.event_nid for key, stored in (await self.entries(point, keys)).items()}

    async def _run(
        self, resolution: Resolution[dict[StateKey, EventNumber]], unconflicted: Mapping[int, EventNumber]
    ) -> dict[StateKey, EventNumber]:
        try:
            question = next(resolution)
            while True:
                answer = await self._answer(question, unconflicted)
                # Also where memory had the answer, other work goes first.
                await asyncio.sleep(0)
                question = resolution.send(answer)
        except StopIteration as finished:
            found: dict[StateKey, EventNumber] = finished.value
            return found

    async def _answer(self, question: Question, unconflicted: Mapping[int, EventNumber]) -> Mapping[Any, Any]:
        if isinstance(question, NeedEvents):
            return await self._load_events(question.numbers)
        if isinstance(question, NeedAuthEvents):
            return await self._load_auth_events(question.numbers)
        numbers = await self._numbers.load_key_numbers(question.keys)
        return {key: unconflicted[key_nid] for key, key_nid in numbers.items() if key_nid in unconflicted}

    async def _load_events(self, numbers: Collection[EventNumber]) -> dict[EventNumber, Event]:
        events: dict[EventNumber, Event] = {}
        wanted = list(numbers)
        for start in range(0, len(wanted), _AT_A_TIME):
            batch = wanted[start : start + _AT_A_TIME]
            stored = await self._events.load_numbered(batch)
            if len(stored) < len(batch):
                missing = min(set(batch) - stored.keys())
                message = f"event number {missing} is not stored"
                raise LookupError(message)
            events.update({number: stored[number].event for number in batch})
        return events

    async def _load_auth_events(
        self, numbers: Collection[EventNumber]
    ) -> dict[EventNumber, tuple[EventNumber, ...]]:
        cited = cast("dict[EventNumber, tuple[EventNumber, ...]]", await self._chains.load_cited(numbers))
        for number, found in cited.items():
            if max(found, default=0) >= number:
                # The walks rest on that order; without it they would go wrong in silence.
                message = f"event number {number} was stored before what it cites"
                raise LookupError(message)
        return cited
