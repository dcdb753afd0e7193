"""What events cite, and what that cites, and so on: for state resolution, and for answers to other servers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.storage.events import EventStore
    from homeserver.storage.raw_events import RawEventStore

_AT_A_TIME = 500
_REMEMBERED = 200_000


class AuthChains:
    """Walks over auth events by number. What an event cites never changes, and is remembered."""

    def __init__(self, events: EventStore, raw: RawEventStore) -> None:
        self._events = events
        self._raw = raw
        self._cited: OrderedDict[int, tuple[int, ...]] = OrderedDict()

    async def of(self, event_nids: Iterable[int]) -> set[int]:
        """The auth chains of events: not the events themselves, but where they are cited by others of them.

        Raises `LookupError` where an event of it is not here.
        """
        chain: set[int] = set()
        walked: set[int] = set()
        ahead = set(event_nids)
        while ahead:
            walked |= ahead
            cited = {number for one in (await self.load_cited(ahead)).values() for number in one}
            chain |= cited
            ahead = cited - walked
        return chain

    async def load_cited(self, event_nids: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """What each of these events cites; `LookupError` where one of them, or what it cites, is not here."""
        cited: dict[int, tuple[int, ...]] = {}
        missing = []
        for event_nid in event_nids:
            known = self._cited.get(event_nid)
            if known is None:
                missing.append(event_nid)
            else:
                cited[event_nid] = known
        for start in range(0, len(missing), _AT_A_TIME):
            batch = missing[start : start + _AT_A_TIME]
            names = await self._raw.load_cited(batch)
            if len(names) < len(batch):
                message = f"event number {min(set(batch) - names.keys())} is not stored"
                raise LookupError(message)
            wanted = {event_id for one in names.values() for event_id in one}
            numbers = await self._events.load_event_numbers(wanted)
            if len(numbers) < len(wanted):
                message = f"the auth event {min(wanted - numbers.keys())} is not stored"
                raise LookupError(message)
            for event_nid, event_ids in names.items():
                found = tuple(numbers[event_id] for event_id in event_ids)
                cited[event_nid] = self._cited[event_nid] = found
            await asyncio.sleep(0)
        while len(self._cited) > _REMEMBERED:
            self._cited.popitem(last=False)
        return cited
