"""What other servers show of rooms to whoever knocks at them (SS "Knocking upon a room", `knock_room_state`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.receiving import read_pdu
from homeserver.services.memberships_elsewhere import shown_of
from homeserver.views.client_events import stripped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId
    from homeserver.services.inbound.sources import SignatureCheck

_MAX_EVENTS = 50


class RoomDescriptions:
    """Checks the events that a room is described by."""

    def __init__(self, signatures: SignatureCheck) -> None:
        self._signatures = signatures

    async def shown(self, version: RoomVersion, room_id: RoomId, told: Sequence[Any]) -> list[dict[str, Any]]:
        """What a user is shown of a room, in its stripped form.

        "Entries which are improperly signed or formatted SHOULD be removed." Of rooms before version 12 many servers
        tell less than whole events: these are shown as they are.
        """
        events: list[Event] = []
        bare: list[Any] = []
        for entry in told[:_MAX_EVENTS]:
            try:
                event = read_pdu(version, entry)
            except EventRefused:
                if isinstance(entry, dict) and "signatures" not in entry:
                    bare.append(entry)
                continue
            if event.room_id == room_id and event.state_key is not None:
                events.append(event)
        signed = await self._signatures.rightly_signed(events)
        shown = [stripped(event) for event in events if event.event_id in signed]
        return shown if version.room_id_is_create_hash else [*shown, *shown_of(bare)]
