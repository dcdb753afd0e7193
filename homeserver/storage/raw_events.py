"""Events as bytes and by what they cite, past the memory of events: for answers that hold very many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from homeserver.ids import EventId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database


class RawEventStore:
    """Reads events by their numbers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_json(self, event_nids: Sequence[int]) -> list[bytes]:
        """Events as they are stored, in no order."""
        rows = await self._database.fetch_all(
            "SELECT json FROM events WHERE event_nid = ANY($1::bigint[])", list(event_nids)
        )
        return [bytes(row[0]) for row in rows]

    async def load_ids(self, event_nids: Sequence[int]) -> list[EventId]:
        """The ids of events, in no order."""
        rows = await self._database.fetch_all(
            "SELECT event_id FROM events WHERE event_nid = ANY($1::bigint[])", list(event_nids)
        )
        return [EventId(row[0]) for row in rows]

    async def load_cited(self, event_nids: Sequence[int]) -> dict[int, tuple[EventId, ...]]:
        """What events cite (`auth_events`)."""
        rows = await self._database.fetch_all(
            "SELECT event_nid, json FROM events WHERE event_nid = ANY($1::bigint[])", list(event_nids)
        )
        return {event_nid: _cited(json) for event_nid, json in rows}


def _cited(json: bytes) -> tuple[EventId, ...]:
    references = orjson.loads(json)["auth_events"]
    # In room versions 1 and 2 with a hash beside the id.
    return tuple(EventId(one if isinstance(one, str) else one[0]) for one in references)
