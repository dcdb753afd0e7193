"""What a user is shown of a room that they are invited to, or knock at (CS "Stripped state")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.views.client_events import stripped, stripped_state_keys

if TYPE_CHECKING:
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.stripped_state import StrippedStateStore


class StrippedStates:
    """Reads the state of a room as it is here, or as another server told it."""

    def __init__(self, reader: RoomReader, store: StrippedStateStore) -> None:
        self._reader = reader
        self._store = store

    async def of(self, row: MembershipRow) -> Any:
        """The events that the user of a membership is shown, as JSON."""
        told = await self._store.get(row.user_id, row.room_nid)
        if told is not None:
            return orjson.Fragment(told)
        keys = dict.fromkeys(stripped_state_keys(row.user_id, row.sender))
        state = await self._reader.state_entries(row.room_id, keys)
        return [stripped(state[key]) for key in keys if key in state]
