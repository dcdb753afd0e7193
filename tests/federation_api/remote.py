"""A server elsewhere, with a key of its own: it signs requests and events, and asks the server under test."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from crypto import canonical_json
from crypto.keys import SigningKey, key_from_seed
from federation.errors import Unreachable
from federation.request_auth import NO_CONTENT, sign_request
from federation.server_keys import own_document
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.ids import EventId, RoomId, ServerName, UserId
from homeserver.services.event_writer import NewEvent
from tests import openapi
from tests.client import Refused

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.server import Server

V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
ALL_VERSIONS = list(ROOM_VERSIONS)
_numbers = itertools.count()


class Network:
    """Stands in for the network: the documents with which servers answer for their keys."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.documents: dict[str, Any] = {}
        server.application.remote.servers.client.server_keys = self.server_keys  # type: ignore[method-assign]

    async def server_keys(self, server_name: str) -> Any:
        if server_name not in self.documents:
            raise Unreachable(server_name, "nobody is there")
        return self.documents[server_name]

    def remote(self, name: str) -> Remote:
        """A server that can be asked for its keys."""
        key = key_from_seed("1", name.encode().ljust(32)[:32])
        self.documents[name] = own_document(name, [key], self.server.clock.now_ms())
        return Remote(self.server, name, key)


class Remote:
    """One server elsewhere."""

    def __init__(self, server: Server, name: str, key: SigningKey) -> None:
        self.server = server
        self.name = ServerName(name)
        self.key = key

    def user(self, localpart: str) -> UserId:
        return UserId(f"@{localpart}:{self.name}")

    # -- requests --------------------------------------------------------------------------------------

    async def call(
        self, method: str, path: str, content: Any = NO_CONTENT, *, origin: str | None = None, **query: Any
    ) -> Any:
        """Send a signed request; raises `Refused`. A list in the query stands there several times."""
        target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        destination = self.server.settings.server_name
        header = sign_request(self.key, origin or self.name, destination, method, target, content)
        body = None if content is NO_CONTENT else canonical_json.encode_message(content)
        response = await self.server.http.request(
            method, target, content=body, headers={"Authorization": header}
        )
        answer = response.json()
        openapi.check(method, path, response.status_code, answer)
        if response.status_code != 200:
            raise Refused(response.status_code, answer, dict(response.headers))
        return answer

    async def get(self, path: str, **query: Any) -> Any:
        return await self.call("GET", V1 + path, **query)

    async def post(self, path: str, content: Any) -> Any:
        return await self.call("POST", V1 + path, content)

    async def event(self, event_id: str) -> dict[str, Any]:
        """One event, as the server under test has it."""
        (pdu,) = (await self.get(f"/event/{_quoted(event_id)}"))["pdus"]
        return pdu

    # -- events ----------------------------------------------------------------------------------------

    def event_from(self, made: dict[str, Any], *, signed: bool = True, **changed: Any) -> Event:
        """The event that a template is of, with other fields where the test says so."""
        version = ROOM_VERSIONS[made["room_version"]]
        template = {**made["event"], **changed}

        def references(name: str) -> list[EventReference]:
            if version.event_ids_are_given:
                return [EventReference(one[0], one[1]["sha256"]) for one in template[name]]
            return [EventReference(one) for one in template[name]]

        return build(
            version,
            room_id=RoomId(template["room_id"]),
            sender=UserId(template["sender"]),
            type=template["type"],
            state_key=template.get("state_key"),
            content=template["content"],
            origin_server_ts=self.server.clock.now_ms(),
            depth=template["depth"],
            prev_events=references("prev_events"),
            auth_events=references("auth_events"),
            server_name=self.name,
            key=self.key if signed else key_from_seed("1", b"x" * 32),
            event_id=EventId(f"$e{next(_numbers)}:{self.name}") if version.event_ids_are_given else None,
        )

    async def make(self, membership: str, room_id: str, user_id: str) -> dict[str, Any]:
        """A template."""
        query = {} if membership == "leave" else {"ver": ALL_VERSIONS}
        return await self.get(f"/make_{membership}/{_quoted(room_id)}/{_quoted(user_id)}", **query)

    async def send(self, membership: str, event: Event, **query: Any) -> Any:
        """Bring a member event."""
        version = V1 if membership == "knock" else V2
        path = f"{version}/send_{membership}/{_quoted(event.room_id)}/{_quoted(event.event_id)}"
        return await self.call("PUT", path, event.pdu, **query)

    async def invited_by(self, client: Client, room_id: str, user_id: str) -> None:
        """A user of the server under test has invited one of ours; the invite is in the room."""
        invite = NewEvent(
            "m.room.member", {"membership": "invite"}, UserId(client.user_id), state_key=user_id
        )
        await self.server.application.writing.events.write(RoomId(room_id), invite)

    async def become(self, membership: str, room_id: str, user_id: str, **query: Any) -> Any:
        """Both halves of a handshake."""
        made = await self.make(membership, room_id, user_id)
        return await self.send(membership, self.event_from(made), **query)


def _quoted(text: str) -> str:
    return quote(text, safe="")
