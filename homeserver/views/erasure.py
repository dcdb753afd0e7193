"""Users who asked for their content to be erased when they closed their account (CS "Account deactivation").

"Erasure means that any users (or servers) which join the room after the erasure request are served redacted copies
of the events sent by this account. Users which had visibility on those events prior to the erasure are still able
to see unredacted copies."
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from homeserver.eventgraph.event import Event
from homeserver.eventgraph.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.ids import UserId
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.visibility import HistoryVisibility


class Erasure:
    """Knows who was erased, and shows newcomers what is left of their events."""

    def __init__(self, accounts: AccountStore, visibility: HistoryVisibility) -> None:
        self._accounts = accounts
        self._visibility = visibility
        # User -> the position of the log at which they were erased.
        self._erased: dict[UserId, int] = {}

    async def start(self) -> None:
        """Load the erased; there are few."""
        self._erased.update(await self._accounts.load_erased())

    def add(self, user_id: UserId, position: int) -> None:
        """A user was erased at a position."""
        self._erased.setdefault(user_id, position)

    async def apply(self, events: Iterable[StoredEvent], reader: UserId) -> list[StoredEvent]:
        """Events of one room as the reader may see them."""
        events = list(events)
        if not self._erased or not any(self.may_hide(stored) for stored in events):
            return events
        came = await self._visibility.first_joined(reader, events[0].room_id)
        return [_pruned(stored) if self.hides_from(stored, came) else stored for stored in events]

    def hides_from(self, stored: StoredEvent, came: int | None) -> bool:
        """Whether an event is hidden from those who came into its room at a position, or never did."""
        return self.may_hide(stored) and (came is None or came > self._erased[stored.event.sender])

    def may_hide(self, stored: StoredEvent) -> bool:
        """Whether an event is hidden from newcomers."""
        event = stored.event
        # Other state stays: a room has one name, one topic and one encryption for everybody.
        return event.sender in self._erased and event.state_key in (None, event.sender)


def _pruned(stored: StoredEvent) -> StoredEvent:
    event = stored.event
    pruned = Event.from_json(event.version, redact(event.version, event.pdu), event_id=event.event_id)
    return replace(stored, event=pruned)
