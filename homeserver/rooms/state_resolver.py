"""The shell of state resolution: fetches what the room core asks for, in batches, from the stores.

Resolutions work on stored snapshots, and their answer is what a new snapshot has otherwise than the first of them.
Where a room's state is large and the conflict small, only the conflict is loaded.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

from homeserver.eventgraph.questions import EventNumber, NeedAuthEvents, NeedEvents
from homeserver.eventgraph.state_res import resolve, split
from homeserver.storage.state import GONE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.questions import Question, Resolution
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.state import StateStore

_AT_A_TIME = 1_000
_REMEMBERED_AUTH_EVENTS = 200_000


class StateResolver:
    """Resolves snapshots of one room. Event numbers are the order of storing: auth events are stored first."""

    def __init__(self, events: EventStore, state: StateStore, numbers: NumberStore) -> None:
        self._events = events
        self._state = state
        self._numbers = numbers
        # What an event cites never changes, and is asked for again with every fork of its room.
        self._auth_events: OrderedDict[EventNumber, tuple[EventNumber, ...]] = OrderedDict()

    async def resolve(self, version: RoomVersion, snapshots: Sequence[int]) -> dict[StateKey, int]:
        """What the resolved state has otherwise than the first snapshot: the number of an event, or `GONE`.

        By key and not by the key's number, since an event may win that was in no snapshot before. Raises
        `LookupError` where an event of the auth chains is not stored, or was stored too late.
        """
        states = [
            cast("dict[int, EventNumber]", await self._state.load_numbers(snapshot)) for snapshot in snapshots
        ]
        unconflicted, conflicted = split(states)
        keys = await self._state.load_keys({key_nid for state in conflicted for key_nid in state})
        named = [{keys[key_nid]: number for key_nid, number in state.items()} for state in conflicted]
        resolved = await self._run(resolve(version, named, unconflicted.values()), unconflicted)
        return {
            key: resolved.get(key, GONE)
            for key in {*keys.values(), *resolved}
            if resolved.get(key, GONE) != named[0].get(key, GONE)
        }

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
        cited: dict[EventNumber, tuple[EventNumber, ...]] = {}
        missing = []
        for number in numbers:
            known = self._auth_events.get(number)
            if known is None:
                missing.append(number)
            else:
                cited[number] = known
        for start in range(0, len(missing), _AT_A_TIME):
            events = await self._load_events(missing[start : start + _AT_A_TIME])
            event_ids = {event_id for event in events.values() for event_id in event.auth_event_ids}
            stored = await self._events.load_event_numbers(event_ids)
            if len(stored) < len(event_ids):
                message = f"the auth event {min(event_ids - stored.keys())} is not stored"
                raise LookupError(message)
            for number, event in events.items():
                found = tuple(EventNumber(stored[event_id]) for event_id in event.auth_event_ids)
                if max(found, default=0) >= number:
                    # The walks rest on that order; without it they would go wrong in silence.
                    message = f"event number {number} was stored before what it cites"
                    raise LookupError(message)
                cited[number] = self._auth_events[number] = found
        while len(self._auth_events) > _REMEMBERED_AUTH_EVENTS:
            self._auth_events.popitem(last=False)
        return cited
