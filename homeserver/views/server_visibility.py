"""Events as another server may see them: those that none of its users may see, redacted.

What is left of an event, its place in the graph among it, is no secret to a server that is in the room.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.eventgraph.hashing import encoder_of
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.visibility import may_see

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import ServerName, UserId
    from homeserver.storage.memberships import MembershipChange, MembershipStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.erasure import Erasure
    from homeserver.views.visibility import HistoryVisibility


_MAX_USERS = 100
"""So many of a server's users are looked for in the states at old events: each costs a question."""


@dataclass(slots=True)
class _Presence:
    """How many users of a server were in a room, and invited to it, from each position on."""

    positions: list[int]
    joined: list[int]
    invited: list[int]

    def at(self, position: int) -> set[str]:
        """The memberships that users of the server had."""
        index = bisect_right(self.positions, position) - 1
        if index < 0:
            return set()
        counts = (("join", self.joined[index]), ("invite", self.invited[index]))
        return {membership for membership, count in counts if count}

    def first_joined(self) -> int | None:
        """When the server came into the room for the first time."""
        return next((at for at, count in zip(self.positions, self.joined, strict=True) if count), None)


class ServerVisibility:
    """Decides by what held at each event (CS "Room history visibility"), for all users of a server together."""

    def __init__(self, visibility: HistoryVisibility, memberships: MembershipStore, erasure: Erasure) -> None:
        self._visibility = visibility
        self._memberships = memberships
        self._erasure = erasure

    async def shown(self, server_name: ServerName, events: Sequence[StoredEvent]) -> list[bytes]:
        """The JSON of events of one room, in their order, for a server that is in it now."""
        hidden = await self.hidden(server_name, events)
        return [
            redacted_json(stored.event) if stored.event_nid in hidden else stored.event.json
            for stored in events
        ]

    async def hidden(self, server_name: ServerName, events: Sequence[StoredEvent]) -> set[int]:
        """The numbers of those of these events, all of one room, that nobody of a server in it may see."""
        settings = await self._visibility.settings_at(events)
        asked = [
            stored
            for stored in events
            if settings[stored.event_nid].isdisjoint({"shared", "world_readable"})
            or self._erasure.may_hide(stored)
        ]
        if not asked:
            return set()
        log = await self._memberships.load_log_of_server(asked[0].room_nid, server_name)
        presence = _presence(server_name, log)
        older = await self._memberships_of_older(
            {change.user_id for change in log if _is_of(server_name, change.user_id)}, asked
        )
        hidden = set()
        for stored in asked:
            # It is in the room now: so it joined later, where it was not there at the event.
            memberships = presence.at(stored.stream_id) | older.get(stored.event_nid, set())
            if stored.event.type == "m.room.member" and _is_of(server_name, stored.event.state_key):
                memberships.add("join")
            seen = may_see(settings[stored.event_nid], memberships, joins_later=True)
            if not seen or self._erasure.hides_from(stored, presence.first_joined()):
                hidden.add(stored.event_nid)
        return hidden

    async def _memberships_of_older(
        self, user_ids: Collection[UserId], events: Sequence[StoredEvent]
    ) -> dict[int, set[str]]:
        """What some users were at those of these events that were fetched later: the state at them says it."""
        older = [stored for stored in events if stored.stream_id < 0]
        found: dict[int, set[str]] = {}
        for user_id in sorted(user_ids)[:_MAX_USERS] if older else ():
            for event_nid, membership in (
                await self._visibility.memberships_of_older(user_id, older)
            ).items():
                found.setdefault(event_nid, set()).add(membership)
        return found


def redacted_json(event: Event) -> bytes:
    """What is left of an event."""
    return encoder_of(event.version)(redact(event.version, event.pdu))


def _is_of(server_name: ServerName, user_id: str | None) -> bool:
    return user_id is not None and user_id.endswith(f":{server_name}")


def _presence(server_name: ServerName, log: Sequence[MembershipChange]) -> _Presence:
    last: dict[UserId, str] = {}
    counts = {"join": 0, "invite": 0}
    presence = _Presence([], [], [])
    for change in log:
        if not _is_of(server_name, change.user_id):
            continue
        for membership, difference in ((last.get(change.user_id), -1), (change.membership, 1)):
            if membership in counts:
                counts[membership] += difference
        last[change.user_id] = change.membership
        presence.positions.append(change.stream_id)
        presence.joined.append(counts["join"])
        presence.invited.append(counts["invite"])
    return presence
