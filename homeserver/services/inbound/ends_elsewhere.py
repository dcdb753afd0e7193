"""Invites and knocks that somebody else brings to an end, in rooms that nobody of this server is in.

Nothing here says who in such a room may do that. A server speaks for what its own users did: so the server of whoever
invited ends the invite. Where another one says so, that server is asked whether the user can still say no (with
`make_leave`, which changes nothing): where they cannot, there is no invite any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from federation.errors import FederationError, Refused
from homeserver.ids import UserId, server_name_of

if TYPE_CHECKING:
    from federation.client import FederationClient
    from homeserver.eventgraph.event import Event
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.services.memberships_elsewhere import MembershipsElsewhere
    from homeserver.services.server_calls import ServerCalls
    from homeserver.storage.events import EventStore
    from homeserver.storage.memberships import MembershipRow

_SECONDS = 10.0
_MAX_ASKED = 2
_NOT_THERE = (403, 404)

_log = structlog.get_logger(__name__)


class EndsElsewhere:
    """Judges them, and takes those in that are right."""

    def __init__(
        self,
        elsewhere: MembershipsElsewhere,
        events: EventStore,
        client: FederationClient,
        calls: ServerCalls,
    ) -> None:
        self._elsewhere = elsewhere
        self._events = events
        self._client = client
        self._calls = calls

    async def ended_by(self, room: LiveRoom, event: Event) -> MembershipRow | None:
        """The invite or knock that an event says is over. It cites it: the user may be invited again."""
        if (
            event.type != "m.room.member"
            or event.state_key is None
            or event.membership not in ("leave", "ban")
        ):
            return None
        row = await self._elsewhere.membership(room.room_id, UserId(event.state_key))
        if row is None or row.membership not in ("invite", "knock"):
            return None
        (pending,) = (await self._events.load_numbered([row.event_nid])).values()
        return row if pending.event.event_id in event.auth_event_ids else None

    async def take(self, room: LiveRoom, event: Event, row: MembershipRow) -> bool:
        """Take in a rightly signed event that ends an invite or a knock; False where that is not believed."""
        servers = await self._who_knows(row)
        if server_name_of(event.sender) not in servers and not await self._is_over(row, servers):
            _log.info("end_not_believed", room_id=room.room_id, event_id=event.event_id)
            return False
        await self._elsewhere.note(room.version, event)
        return True

    async def _who_knows(self, row: MembershipRow) -> list[ServerName]:
        """The server of whoever invited; of a knock, those that the room's description shows to be in it."""
        if row.membership == "invite":
            return [server_name_of(row.sender)]
        return await self._elsewhere.servers_in(row)

    async def _is_over(self, row: MembershipRow, servers: list[ServerName]) -> bool:
        for server in servers[:_MAX_ASKED]:
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._ask(server, row.room_id, row.user_id)
            except Refused as error:
                return error.status in _NOT_THERE
            except (FederationError, TimeoutError):
                continue
            return False
        return False

    async def _ask(self, server: ServerName, room_id: RoomId, user_id: UserId) -> None:
        await self._calls.ask(server, lambda: self._client.make_leave(server, room_id, user_id))
