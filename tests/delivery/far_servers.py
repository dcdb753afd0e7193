"""Other servers as a server under test knows them: members of its rooms, who take what is sent to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from crypto import keys as signing_keys
from federation.answers import TransactionAnswer
from federation.errors import Refused, Unreachable
from homeserver.eventgraph.auth_rules import auth_types_for
from homeserver.eventgraph.builder import EventReference, build
from homeserver.ids import EventId, RoomId, UserId, random_string, server_name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crypto.keys import SigningKey
    from tests.client import Client
    from tests.server import Server

FAR = "far.example"
CAROL = UserId("@carol:far.example")
_KEY = signing_keys.generate("far")


class FarServers:
    """Takes the transactions for all other servers."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, list[Any], list[Any]]] = []
        """(destination, transaction id, PDUs, EDUs), but for empty ones"""
        self.greeted: list[str] = []
        """Who took an empty transaction."""
        self.tried = 0
        self.away: set[str] = set()
        self.refuses: Callable[[Sequence[Any], Sequence[Any]], bool] = lambda pdus, edus: False

    async def send_transaction(
        self,
        destination: str,
        transaction_id: str,
        *,
        origin: str,
        origin_server_ts: int,
        pdus: Sequence[Any],
        edus: Sequence[Any],
    ) -> TransactionAnswer:
        if not pdus and not edus:
            return self._greet(destination)
        self.tried += 1
        assert origin == "example.org"
        assert len(pdus) <= 50
        assert len(edus) <= 100
        if destination in self.away:
            raise Unreachable(destination, "it is away")
        if self.refuses(pdus, edus):
            raise Refused(destination, 400, "M_BAD_JSON", "no")
        self.taken.append((destination, transaction_id, list(pdus), list(edus)))
        return TransactionAnswer(pdus={})

    def _greet(self, destination: str) -> TransactionAnswer:
        if destination in self.away:
            raise Unreachable(destination, "it is away")
        self.greeted.append(destination)
        return TransactionAnswer(pdus={})

    def events(self, destination: str = FAR) -> list[Any]:
        return [pdu for name, _, pdus, _ in self.taken if name == destination for pdu in pdus]

    def bodies(self, destination: str = FAR) -> list[str]:
        """The texts of the messages that a server got."""
        return [pdu["content"]["body"] for pdu in self.events(destination) if pdu["type"] == "m.room.message"]

    def edus(self, edu_type: str, destination: str = FAR) -> list[Any]:
        return [
            edu["content"]
            for name, _, _, edus in self.taken
            if name == destination
            for edu in edus
            if edu["edu_type"] == edu_type
        ]


async def set_membership(
    server: Server,
    room_id: str,
    user_id: str,
    membership: str = "join",
    *,
    goes_out: bool = False,
    key: SigningKey = _KEY,
) -> EventId:
    """A user of another server, whose key this is, comes into a room of the server, or goes out."""
    application = server.application
    room = await application.rooms.live.get(RoomId(room_id))
    await application.writing.room_writes.settle(room)
    head = await application.rooms.live.load_head(room)
    content = {"membership": membership}
    auth_keys = auth_types_for(
        room.version, type="m.room.member", state_key=user_id, sender=UserId(user_id), content=content
    )
    state = await application.rooms.live.state_entries(room, auth_keys)
    event = build(
        room.version,
        room_id=RoomId(room_id),
        sender=UserId(user_id),
        type="m.room.member",
        state_key=user_id,
        content=content,
        origin_server_ts=server.clock.now_ms(),
        depth=head.depth + 1,
        prev_events=[EventReference(one.event_id, one.sha256) for one in head.extremities],
        auth_events=[
            EventReference(event.event_id, None)
            for state_key, event in sorted(state.items())
            if not (room.version.room_id_is_create_hash and state_key == ("m.room.create", ""))
        ],
        server_name=server_name_of(user_id),
        key=key,
        event_id=EventId(f"${random_string(10)}:far.example") if room.version.event_ids_are_given else None,
    )
    await application.inbound.events.place(room, event, goes_out=goes_out)
    return event.event_id


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Go on once something is so: what is delivered is delivered in the background."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def shared_room(server: Server, client: Client, *user_ids: str) -> str:
    """A room of a user of the server with users of other servers in it."""
    room_id = (await client.post("/createRoom", {"preset": "public_chat"}))["room_id"]
    for user_id in user_ids:
        await set_membership(server, room_id, user_id)
    return room_id
