"""Random attacks: what Mallory's server sends into rooms, mostly nearly right, and what is looked at afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from crypto.errors import CanonicalJsonError
from homeserver.eventgraph.errors import EventRefused
from homeserver.ids import RoomId
from tests.client import Refused, bodies
from tests.hostile.mutations import GARBAGE, garbage, mutated

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from random import Random

    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.hostile.mallory import Mallory
    from tests.server import Server

_STATE_TYPES: dict[str, Any] = {
    "m.room.name": {"name": "A room"},
    "m.room.topic": {"topic": "Things", "m.topic": {"m.text": [{"body": "Things"}]}},
    "m.room.avatar": {"url": "mxc://evil.example/x", "info": {"w": 1, "h": 1}},
    "m.room.canonical_alias": {"alias": "#a:example.org", "alt_aliases": ["#b:example.org"]},
    "m.room.join_rules": {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": "!x:example.org"}],
    },
    "m.room.history_visibility": {"history_visibility": "shared"},
    "m.room.guest_access": {"guest_access": "can_join"},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 604_800_000},
    "m.room.server_acl": {"allow": ["*"], "deny": ["*.bad.example"], "allow_ip_literals": True},
    "m.room.tombstone": {"body": "Moved", "replacement_room": "!y:example.org"},
    "m.room.pinned_events": {"pinned": ["$x"]},
    "m.room.third_party_invite": {
        "display_name": "x",
        "key_validity_url": "https://x.example",
        "public_key": "x",
        "public_keys": [{"public_key": "x"}],
    },
    "m.space.child": {"via": ["evil.example"], "order": "a", "suggested": True},
    "m.space.parent": {"via": ["evil.example"], "canonical": True},
    "m.room.aliases": {"aliases": ["#a:evil.example"]},
    "m.room.create": {"room_version": "11", "creator": "@mallory:evil.example", "m.federate": True},
    "m.policy.rule.user": {"entity": "@x:y", "reason": "x", "recommendation": "m.ban"},
    "m.x": {"n": 1},
}
_MESSAGES: dict[str, Any] = {
    "m.room.message": {
        "msgtype": "m.text",
        "body": "Hello alice",
        "m.mentions": {"user_ids": ["@alice:example.org"], "room": True},
        "m.relates_to": {"rel_type": "m.thread", "event_id": "$x", "m.in_reply_to": {"event_id": "$y"}},
    },
    "m.reaction": {"m.relates_to": {"rel_type": "m.annotation", "event_id": "$x", "key": "+1"}},
    "m.room.encrypted": {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": "x",
        "session_id": "x",
        "m.relates_to": {"rel_type": "m.replace", "event_id": "$x"},
    },
    "m.sticker": {"body": "x", "url": "mxc://x/y", "info": {}},
    "m.call.invite": {
        "call_id": "x",
        "lifetime": 60000,
        "offer": {"sdp": "x", "type": "offer"},
        "version": 1,
    },
}


class Attacker:
    """Tells a server of events that are nearly right."""

    chance: Random

    def __init__(self, server: Server, mallory: Mallory, rooms: list[str], victim: str) -> None:
        self.server = server
        self.mallory = mallory
        self.rooms = rooms
        self.users = [mallory.user("mallory"), mallory.user("mallet"), victim, "@helen:honest.example"]
        self.known: list[str] = []
        """Ids of events that there are, or that were told of."""
        self.sent = 0

    # -- events ----------------------------------------------------------------------------------------

    async def event(self, room_id: str) -> Any:
        """A PDU; about a third of them are as they should be."""
        chance = self.chance
        event = await self._valid(room_id)
        kind = chance.random()
        if kind < 0.3:
            return event.pdu
        if kind < 0.55:
            # As an attacker makes them: rightly signed.
            return self._signed_again(event, self._twisted(event))
        if kind < 0.7:
            return self._signed_again(event, mutated(chance, event.pdu, self._words()))
        if kind < 0.8:
            # Nothing fits any more.
            return mutated(chance, event.pdu, self._words())
        if kind < 0.9:
            return self._misplaced(event)
        return {**event.pdu, "signatures": self._odd_signatures(event)}

    async def _valid(self, room_id: str) -> Event:
        chance, mallory = self.chance, self.mallory
        sender = chance.choice(self.users[:2])
        options: dict[str, Any] = {"sender": sender}
        kind = chance.random()
        if kind < 0.35:
            event_type = chance.choice(sorted(_MESSAGES))
            content = _MESSAGES[event_type]
        elif kind < 0.65:
            event_type = chance.choice(sorted(_STATE_TYPES))
            content = _STATE_TYPES[event_type]
            options["state_key"] = chance.choice(("", "", "", *self.users, "evil.example", "key"))
        elif kind < 0.85:
            event_type = "m.room.member"
            content = {
                "membership": chance.choice(("join", "leave", "invite", "ban", "knock")),
                "displayname": "M",
            }
            options["state_key"] = chance.choice((sender, *self.users))
            if chance.random() < 0.2:
                content["join_authorised_via_users_server"] = chance.choice(self.users)
            if chance.random() < 0.1:
                content["third_party_invite"] = {
                    "display_name": "x",
                    "signed": {"mxid": options["state_key"], "token": "key", "signatures": {}},
                }
        elif kind < 0.93:
            event_type = "m.room.redaction"
            content = {"redacts": chance.choice(self.known), "reason": "x"} if self.known else {}
        else:
            event_type = "m.room.power_levels"
            content = await self._levels(room_id)
            options["state_key"] = ""
        if chance.random() < 0.35:
            content = mutated(chance, content, self._words())
        if not isinstance(content, dict):
            content = {"content": content}
        if event_type == "m.room.encryption":
            # The descriptions of the answers know of one algorithm only.
            content = {**content, "algorithm": "m.megolm.v1.aes-sha2"}
        if chance.random() < 0.2 and self.known:
            options["prev"] = chance.sample(self.known, min(len(self.known), chance.choice((1, 1, 2, 20))))
        try:
            return await mallory.event_in(room_id, event_type, content, **options)
        except EventRefused:
            return await mallory.event_in(room_id, "m.room.message", {"body": "x"}, sender=sender)

    async def _levels(self, room_id: str) -> dict[str, Any]:
        live = await self.server.application.rooms.live.get(RoomId(room_id))
        key = ("m.room.power_levels", "")
        state = await self.server.application.rooms.live.state_entries(live, [key])
        content = dict(state[key].content) if key in state else {}
        users = content.get("users")
        users = dict(users) if isinstance(users, dict) else {}
        users[self.chance.choice(self.users)] = self.chance.choice((0, 50, 99, 100))
        return {**content, "users": users}

    def _words(self) -> list[Any]:
        return [*self.users, *self.rooms, *self.known[-20:], "evil.example", "example.org"]

    def _twisted(self, event: Event) -> dict[str, Any]:
        """One thing other than it should be, of the right form."""
        chance = self.chance
        pdu = dict(event.pdu)
        name = chance.choice(
            (
                "sender",
                "room_id",
                "auth_events",
                "prev_events",
                "depth",
                "origin_server_ts",
                "state_key",
                "type",
                "id",
            )
        )
        if name == "sender":
            pdu["sender"] = chance.choice(self.users)
        elif name == "room_id":
            pdu["room_id"] = chance.choice(self.rooms)
        elif name in ("auth_events", "prev_events") and self.known:
            references = list(pdu[name])
            some = [
                self._reference(event, one)
                for one in chance.choices(self.known, k=chance.choice((1, 1, 2, 10)))
            ]
            some += [self._reference(event, "$" + "x" * 43)] * (chance.random() < 0.1)
            pdu[name] = chance.choice((some, references + some, references[1:], [], references * 2))
        elif name == "depth":
            pdu["depth"] = chance.choice((0, 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63))
        elif name == "origin_server_ts":
            pdu["origin_server_ts"] = chance.choice(
                (0, -1, 1, 2**53 - 1, 2**62, -(2**53) + 1, 4_102_444_800_000)
            )
        elif name == "state_key":
            pdu["state_key"] = chance.choice((*self.users, "", "x" * 255, "@", "@x", "evil.example"))
        elif name == "type":
            pdu["type"] = chance.choice(
                (*_STATE_TYPES, *_MESSAGES, "m.room.member", "m.room.power_levels", "x" * 255)
            )
        elif event.version.event_ids_are_given and self.known:
            pdu["event_id"] = chance.choice(self.known)
        return pdu

    def _misplaced(self, event: Event) -> Any:
        """A right event whose content was changed on its way, or with what belongs nowhere beside it."""
        chance = self.chance
        pdu = dict(event.pdu)
        deed = chance.random()
        if deed < 0.5:
            pdu["content"] = mutated(chance, pdu["content"] or {"a": 1}, self._words())
        elif deed < 0.7:
            pdu["unsigned"] = garbage(chance)
        elif deed < 0.85:
            pdu["hashes"] = chance.choice(({}, {"sha256": "x"}, {"sha256": "é"}, {"sha256": 1}, {"md5": "x"}))
        else:
            pdu["content"] = {"x": chance.choice(("y" * 70_000, GARBAGE[-1], {"n": GARBAGE[-1]}))}
        return pdu

    def _signed_again(self, event: Event, pdu: Any) -> Any:
        if not isinstance(pdu, dict):
            return pdu
        try:
            return self.mallory.signed(event.version, pdu)
        except (CanonicalJsonError, KeyError, TypeError, AttributeError, ValueError):
            # Nobody can sign that.
            return pdu

    def _odd_signatures(self, event: Event) -> Any:
        right = event.pdu["signatures"][self.mallory.name]
        ((key_id, signature),) = right.items()
        return self.chance.choice(
            (
                {},
                {"honest.example": right},
                {self.mallory.name: {key_id: signature[:-2] + "xx"}},
                {self.mallory.name: {"ed25519:other": signature}},
                {self.mallory.name: {key_id: 5}},
                {self.mallory.name: signature},
                {self.mallory.name: {**{f"ed25519:{n}": signature for n in range(50)}, key_id: signature}},
                {"": right, "@": right, "x" * 300: right},
                {self.mallory.name: right, "example.org": {"ed25519:1": signature}},
                {self.mallory.name: {"": signature, "ed25519:\x00": signature, "rsa:1": signature}},
            )
        )

    def _reference(self, event: Event, event_id: str) -> Any:
        return [event_id, {"sha256": "x"}] if event.version.event_ids_are_given else event_id

    # -- transactions ----------------------------------------------------------------------------------

    async def attack(self, chance: Random) -> None:
        """One transaction; whatever is in it, it is answered, and each event by itself."""
        self.chance = chance
        room_ids = [chance.choice(self.rooms) for _ in range(chance.choice((1, 3, 8)))]
        pdus = [await self.event(room_id) for room_id in room_ids]
        edus = [self.edu() for _ in range(chance.choice((0, 1, 4)))]
        try:
            status, answer = await _outcome(self.mallory.tell(*pdus, edus=edus))
        except CanonicalJsonError:
            # Not even a request can be signed with that in it.
            return
        assert status == 200, answer
        self.sent += len(pdus)
        self.known = [*self.known, *answer][-200:]

    def edu(self) -> Any:
        """An EDU, mostly with something wrong in it."""
        chance = self.chance
        room_id, user = chance.choice(self.rooms), self.users[0]
        event_id = chance.choice(self.known) if self.known else "$x"
        contents: dict[str, Any] = {
            "m.typing": {"room_id": room_id, "user_id": user, "typing": True},
            "m.receipt": {
                room_id: {"m.read": {user: {"event_ids": [event_id], "data": {"ts": 5, "thread_id": "main"}}}}
            },
            "m.presence": {
                "push": [
                    {
                        "user_id": user,
                        "presence": "online",
                        "status_msg": "x",
                        "last_active_ago": 5,
                        "currently_active": True,
                    }
                ]
            },
            "m.direct_to_device": {
                "sender": user,
                "type": "m.x",
                "message_id": str(chance.random()),
                "messages": {self.users[2]: {"*": {"a": 1}}},
            },
            "m.device_list_update": {
                "user_id": user,
                "device_id": "D",
                "stream_id": 5,
                "prev_id": [4],
                "deleted": False,
                "device_display_name": "x",
                "keys": {"user_id": user, "device_id": "D", "algorithms": [], "keys": {"ed25519:D": "x"}},
            },
            "m.signing_key_update": {
                "user_id": user,
                "master_key": {"user_id": user, "usage": ["master"], "keys": {"ed25519:x": "x"}},
            },
        }
        edu_type = chance.choice(sorted(contents))
        edu: Any = {"edu_type": edu_type, "content": contents[edu_type]}
        for _ in range(chance.choice((0, 1, 1, 3))):
            edu = mutated(chance, edu, self._words())
        return edu


async def look_around(client: Client, room_ids: list[str]) -> None:
    """Read all that a client can read; the answers are checked against the specification, and none is a 5xx."""
    lazy = {"room": {"timeline": {"limit": 1}, "state": {"lazy_load_members": True}}}
    await _ask(client.sync(timeout=0))
    await _ask(client.sync(timeout=0, filter=lazy))
    await _ask(client.get("/publicRooms"))
    await _ask(client.get("/joined_rooms"))
    for room_id in room_ids:
        for path in ("state", "members", "joined_members", "aliases"):
            await _ask(client.get(f"/rooms/{room_id}/{path}"))
        for path in (f"rooms/{room_id}/hierarchy", f"rooms/{room_id}/threads", f"room_summary/{room_id}"):
            await _ask(client.get(f"/_matrix/client/v1/{path}"))
        page = await _ask(client.messages(room_id))
        for event in (page or {}).get("chunk", [])[:3]:
            await _ask(client.get(f"/rooms/{room_id}/context/{quote(event['event_id'], safe='')}"))


async def _ask(call: Awaitable[Any]) -> Any:
    status, answer = await _outcome(call)
    assert status < 500, answer
    return answer if status == 200 else None


async def _outcome(call: Awaitable[Any]) -> tuple[int, Any]:
    try:
        return 200, await call
    except Refused as error:
        return error.status, error.body


async def still_works(client: Client, other: Mallory, room_id: str) -> None:
    """A valid message of an honest server, and one of ours, come through in a room."""
    text = f"fine {id(object())}"
    event = await other.event_in(
        room_id, "m.room.message", {"msgtype": "m.text", "body": text}, sender=other.user("helen")
    )
    assert await other.tell(event) == {event.event_id: {}}
    said = bodies((await client.messages(room_id, limit=30))["chunk"])
    assert text in said
    await client.send(room_id, text + "!")
