"""Asks the policy servers of rooms for their signatures (SS "Policy Servers")."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from federation.errors import FederationError, Refused
from homeserver.errors import MatrixError
from homeserver.eventgraph.checks import check_size
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.policy import POLICY, is_policed, policy_server_of
from homeserver.eventgraph.signing import with_signatures_of
from homeserver.services.other_servers import as_matrix_error

if TYPE_CHECKING:
    from federation.client import FederationClient
    from homeserver.clock import Clock
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.policy import PolicyServer
    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.rooms.room_servers import RoomServers

_SECONDS = 10.0
_NOT_AGAIN_SECONDS = 30.0
_LONGEST_REST_SECONDS = 60.0
_MAX_FAILED = 1_000

_log = structlog.get_logger(__name__)


class PolicyServers:
    """Knows whether a room has one, and what it says."""

    def __init__(
        self, live_rooms: LiveRooms, servers: RoomServers, client: FederationClient, clock: Clock
    ) -> None:
        self._live_rooms = live_rooms
        self._servers = servers
        self._client = client
        self._clock = clock
        self._failed_until: OrderedDict[ServerName, float] = OrderedDict()

    async def of(self, room: LiveRoom) -> PolicyServer | None:
        """The policy server that a room uses now; from memory where the room is warm."""
        server = policy_server_of((await self._live_rooms.state_entries(room, [POLICY])).get(POLICY))
        # "Policy Servers MUST have at least one joined user in the room to give the Policy Server agency."
        if server is None or not await self._servers.is_in(room, server.name):
            return None
        return server

    async def lacking(self, room: LiveRoom, event: Event) -> PolicyServer | None:
        """The policy server that is still to be asked about an event; None where nothing is lacking."""
        server = await self.of(room) if is_policed(event) else None
        return None if server is None or server.recommends(event) else server

    async def signed(self, room: LiveRoom, event: Event) -> Event:
        """An event with the signature that its room wants, if it wants one.

        Raises `MatrixError`: what the policy server says where it refuses, 502 where it does not answer, or not as it
        must. One that did not is left alone for a while.
        """
        server = await self.lacking(room, event)
        return event if server is None else await self._ask(server, event)

    async def recommended(self, room: LiveRoom, event: Event) -> Event | None:
        """The same for an event of another server; None where its room is not to see it."""
        try:
            return await self.signed(room, event)
        except MatrixError as error:
            _log.info("event_not_recommended", event_id=event.event_id, why=error.message)
            return None

    async def _ask(self, server: PolicyServer, event: Event) -> Event:
        now = self._clock.monotonic()
        if self._failed_until.get(server.name, now) > now:
            raise _unreachable(server)
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._client.ask_policy_server(server.name, event.pdu)
        except Refused as error:
            if error.status == 429:
                self._rest(server, (error.retry_after_ms or 0) / 1_000)
            elif error.status >= 500:
                self._rest(server, _NOT_AGAIN_SECONDS)
            raise as_matrix_error(error, verbatim=True) from error
        except (FederationError, TimeoutError) as error:
            self._rest(server, _NOT_AGAIN_SECONDS)
            raise _unreachable(server) from error
        self._failed_until.pop(server.name, None)
        signed = with_signatures_of(server.name, event, {"signatures": answer})
        try:
            check_size(signed.json)
        except EventRefused as error:
            raise MatrixError(str(error), status=413, errcode="M_TOO_LARGE") from error
        # The specification says: "homeservers SHOULD validate the returned signature before continuing".
        if not server.recommends(signed):
            message = f"The policy server {server.name} did not sign with the key that the room names"
            raise MatrixError(message, status=502)
        return signed

    def _rest(self, server: PolicyServer, seconds: float) -> None:
        seconds = min(max(seconds, 1.0), _LONGEST_REST_SECONDS)
        self._failed_until[server.name] = self._clock.monotonic() + seconds
        self._failed_until.move_to_end(server.name)
        if len(self._failed_until) > _MAX_FAILED:
            self._failed_until.popitem(last=False)


def _unreachable(server: PolicyServer) -> MatrixError:
    return MatrixError(
        f"The policy server of this room, {server.name}, does not answer: nothing can be sent", status=502
    )
