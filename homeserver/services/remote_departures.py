"""Knocking at rooms that nobody here is in, and going away from them: rejecting an invite, taking back a knock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from crypto import base64
from federation.errors import FederationError, Refused
from homeserver.errors import MatrixError, NotFound
from homeserver.eventgraph.builder import EventReference
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.hashing import reference_hash
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import ServerName, server_name_of
from homeserver.services.member_templates import UnknownVersion, version_of
from homeserver.services.other_servers import as_matrix_error, incompatible, what_failed
from homeserver.views.client_events import stripped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from federation.client import FederationClient
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.services.member_templates import MemberTemplates
    from homeserver.services.memberships_elsewhere import MembershipsElsewhere
    from homeserver.services.room_descriptions import RoomDescriptions
    from homeserver.storage.events import EventStore
    from homeserver.storage.memberships import MembershipRow

_MAX_SERVERS = 5
_SECONDS = 15.0

_log = structlog.get_logger(__name__)


class RemoteDepartures:
    """Knocks and leaves by way of servers that are in the room."""

    def __init__(
        self,
        server_name: ServerName,
        client: FederationClient,
        templates: MemberTemplates,
        live_rooms: LiveRooms,
        events: EventStore,
        elsewhere: MembershipsElsewhere,
        descriptions: RoomDescriptions,
    ) -> None:
        self._server_name = server_name
        self._client = client
        self._templates = templates
        self._live_rooms = live_rooms
        self._events = events
        self._elsewhere = elsewhere
        self._descriptions = descriptions

    async def knock(
        self, user_id: UserId, room_id: RoomId, servers: Sequence[ServerName], content: dict[str, Any]
    ) -> None:
        """Ask to be let in. Raises what the servers say where they refuse, 502 where none answers."""
        asked = self._others(servers)
        if not asked:
            raise NotFound("Unknown room, and no server is named that may know it")
        refusal: MatrixError | None = None
        failures: list[str] = []
        versions = [name for name, version in ROOM_VERSIONS.items() if version.has_knock]
        for server in asked:
            try:
                template = await self._client.make_knock(server, room_id, user_id, versions)
                version = version_of(template)
                event = self._templates.complete(
                    version, template, room_id, user_id, content, membership="knock"
                )
                answer = await self._client.send_knock(server, room_id, event.event_id, event.pdu)
            except Refused as error:
                refusal = as_matrix_error(error, of_our_making=True)
                _log.info("knock_refused", room_id=room_id, server=server, why=str(error))
            except UnknownVersion as error:
                refusal = refusal or incompatible(error.room_version)
                _log.info("knock_failed", room_id=room_id, server=server, why=str(error))
            except (FederationError, EventRefused) as error:
                failures.append(what_failed(server, error))
                _log.info("knock_failed", room_id=room_id, server=server, why=str(error))
            else:
                shown = await self._descriptions.shown(version, room_id, answer.knock_room_state)
                state = [*shown, stripped(event)]
                await self._elsewhere.note(version, event, state)
                return
        raise refusal or MatrixError(f"No server lets you knock: {'; '.join(failures)}", status=502)

    async def leave(self, row: MembershipRow, content: dict[str, Any]) -> None:
        """Reject an invite, or take back a knock. The user is rid of it, whether any other server answers or not.

        Waits for others for a quarter of a minute at most.
        """
        room = await self._live_rooms.get(row.room_id)
        (stored,) = (await self._events.load_numbered([row.event_nid])).values()
        event: Event | None = None
        try:
            async with asyncio.timeout(_SECONDS):
                event = await self._sent(room.version, row, content)
        except TimeoutError:
            _log.info("leave_not_sent", room_id=row.room_id, why="no server answered in time")
        if event is None:
            event = self._alone(stored.event, row.user_id, content)
        await self._elsewhere.note(room.version, event)

    async def _sent(self, version: RoomVersion, row: MembershipRow, content: dict[str, Any]) -> Event | None:
        """The leave that another server has taken in; None where none did."""
        for server in await self._may_be_there(row):
            try:
                template = await self._client.make_leave(server, row.room_id, row.user_id)
                event = self._templates.complete(
                    version, template, row.room_id, row.user_id, content, membership="leave"
                )
                await self._client.send_leave(server, row.room_id, event.event_id, event.pdu)
            except (FederationError, EventRefused) as error:
                _log.info("leave_not_sent", room_id=row.room_id, server=server, why=str(error))
            else:
                return event
        return None

    def _alone(self, before: Event, user_id: UserId, content: dict[str, Any]) -> Event:
        """A leave that no other server hears of, on what is known of the room."""
        version = before.version
        sha256 = None
        if version.event_ids_are_given:
            sha256 = base64.encode_unpadded(reference_hash(version, before.pdu))
        reference = EventReference(before.event_id, sha256)
        return self._templates.build(
            version,
            before.room_id,
            user_id,
            {**content, "membership": "leave"},
            depth=before.depth + 1,
            prev_events=[reference],
            auth_events=[reference],
        )

    async def _may_be_there(self, row: MembershipRow) -> list[ServerName]:
        """Servers that may be in a room: of whoever invited, of those whom its description names, its own."""
        return self._others([server_name_of(row.sender), *await self._elsewhere.servers_in(row)])

    def _others(self, servers: Sequence[ServerName]) -> list[ServerName]:
        names = [name for name in dict.fromkeys(servers) if name and name != self._server_name]
        return names[:_MAX_SERVERS]
