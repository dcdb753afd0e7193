"""Users of this server are invited into rooms that it is not in."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from crypto.signatures import verify_json
from federation.answers import KnockAnswer, Template
from federation.errors import Refused, Unreachable
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import countersigned
from homeserver.ids import EventId, RoomId, UserId
from homeserver.services import remote_departures
from tests.client import error_of, refused
from tests.federation_api.remote import V1, V2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event
    from tests.client import Client
    from tests.federation_api.remote import Network, Remote
    from tests.server import Server

VERSIONS = ("1", "2", "6", "11", "12")
_numbers = itertools.count()


class FarRoom:
    """A room of Zoe's that the server under test knows nothing of."""

    def __init__(self, remote: Remote, version: str = "12") -> None:
        self.remote = remote
        self.version = ROOM_VERSIONS[version]
        self.zoe = remote.user("zoe")
        self._events = 0
        self.room_id: str | None = None
        if not self.version.room_id_is_create_hash:
            self.room_id = f"!far-{version}:{remote.name}"
        # No room is made like another.
        content: dict[str, Any] = {"room_version": version, "number": next(_numbers)}
        if not self.version.creator_is_sender:
            content["creator"] = self.zoe
        self.create = self.event("m.room.create", content, "")
        self.room_id = self.create.room_id
        self.name = self.event("m.room.name", {"name": "Far away"}, "", after=[self.create])

    def event(
        self,
        type: str,
        content: dict[str, Any],
        state_key: str,
        *,
        after: Sequence[Event] = (),
        **changed: Any,
    ) -> Event:
        """A state event of Zoe's."""
        self._events += 1
        given = self.version.event_ids_are_given
        fields: dict[str, Any] = {
            "origin_server_ts": self.remote.server.clock.now_ms(),
            "room_id": None if self.room_id is None else RoomId(self.room_id),
            "sender": UserId(self.zoe),
            "type": type,
            "state_key": state_key,
            "content": content,
            "key": self.remote.key,
            **changed,
        }
        return build(
            self.version,
            depth=1 + max((one.depth for one in after), default=0),
            prev_events=[EventReference(one.event_id, "x" if given else None) for one in after],
            auth_events=[EventReference(one.event_id, "x" if given else None) for one in after],
            server_name=self.remote.name,
            event_id=EventId(f"$far{self._events}:{self.remote.name}") if given else None,
            **fields,
        )

    def member(self, user_id: str, membership: str, *, after: Sequence[Event], **changed: Any) -> Event:
        return self.event("m.room.member", {"membership": membership}, user_id, after=after, **changed)

    def invite(self, user_id: str, membership: str = "invite", **changed: Any) -> Event:
        return self.member(user_id, membership, after=[self.name], **changed)

    async def send(self, invite: Event, state: Any = None, **changed: Any) -> Any:
        """Bring an invite; the answer is the event as it was signed."""
        body = {
            "room_version": self.version.identifier,
            "event": invite.pdu,
            "invite_room_state": [self.create.pdu, self.name.pdu] if state is None else state,
            **changed,
        }
        path = f"{V2}/invite/{quote(self.room_id or '', safe='')}/{quote(invite.event_id, safe='')}"
        return (await self.remote.call("PUT", path, body))["event"]


async def invited(client: Client, since: str | None = None) -> dict[str, dict[str, Any]]:
    """The rooms that a sync tells invites into, with the state by type and key."""
    answer = await client.sync(since, timeout=0)
    rooms = answer.get("rooms", {}).get("invite", {})
    return {
        room: {(event["type"], event["state_key"]): event for event in section["invite_state"]["events"]}
        for room, section in rooms.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_invited_user_is_told_with_the_state_that_came_with_it(
    server: Server, alice: Client, one: Remote, version: str
) -> None:
    far = FarRoom(one, version)
    invite = far.invite(alice.user_id)
    since = (await alice.sync(timeout=0))["next_batch"]
    signed = await far.send(invite)
    for where in (since, None):
        rooms = await invited(alice, where)
        state = rooms[far.room_id or ""]
        assert state["m.room.name", ""]["content"] == {"name": "Far away"}
        assert state["m.room.create", ""]["sender"] == far.zoe
        assert state["m.room.member", alice.user_id]["content"]["membership"] == "invite"
        assert state["m.room.member", alice.user_id]["sender"] == far.zoe
    key = server.application.remote.servers.keyring._own_keys[0]
    assert read_pdu(far.version, signed).event_id == invite.event_id
    assert {**signed, "signatures": None} == {**invite.pdu, "signatures": None}
    verify_json(redact(far.version, signed), "example.org", key.key_id, key.private.verify_key)
    verify_json(redact(far.version, signed), one.name, one.key.key_id, one.key.private.verify_key)


async def test_an_invite_wakes_who_waits(server: Server, alice: Client, one: Remote) -> None:
    far = FarRoom(one)
    since = (await alice.sync(timeout=0))["next_batch"]
    waiting = asyncio.create_task(alice.sync(since, timeout=30_000))
    await server.until_waiting()
    await far.send(far.invite(alice.user_id))
    assert list((await waiting)["rooms"]["invite"]) == [far.room_id]


async def test_an_invite_outlives_a_restart(server: Server, alice: Client, one: Remote) -> None:
    far = FarRoom(one)
    await far.send(far.invite(alice.user_id))
    await server.restart()
    alice = server.reconnect(alice)
    assert ("m.room.name", "") in (await invited(alice))[far.room_id or ""]


async def test_an_invite_that_comes_again_is_told_once(alice: Client, one: Remote) -> None:
    far = FarRoom(one)
    invite = far.invite(alice.user_id)
    first = await far.send(invite)
    since = (await alice.sync(timeout=0))["next_batch"]
    assert await far.send(invite) == first
    assert await invited(alice, since) == {}


async def test_the_first_version_of_the_endpoint_has_the_state_in_the_event(
    alice: Client, one: Remote
) -> None:
    far = FarRoom(one, "2")
    invite = far.invite(alice.user_id)
    path = f"{V1}/invite/{far.room_id}/{quote(invite.event_id, safe='')}"
    body = {**invite.pdu, "unsigned": {"invite_room_state": [far.name.pdu]}}
    status, answer = await one.call("PUT", path, body)
    assert status == 200
    assert set(answer["event"]["signatures"]) == {"example.org", "one.example"}
    assert ("m.room.name", "") in (await invited(alice))[far.room_id or ""]


async def test_who_wants_no_invites_gets_none_of_other_servers(alice: Client, one: Remote) -> None:
    path = f"/user/{alice.user_id}/account_data/m.invite_permission_config"
    await alice.put(path, {"default_action": "block"})
    far, old = FarRoom(one), FarRoom(one, "2")
    with refused(403, "M_INVITE_BLOCKED"):
        await far.send(far.invite(alice.user_id))
    invite = old.invite(alice.user_id)
    with refused(403, "M_INVITE_BLOCKED"):
        await one.call(
            "PUT",
            f"{V1}/invite/{old.room_id}/{quote(invite.event_id, safe='')}",
            {**invite.pdu, "unsigned": {}},
        )
    await alice.put(path, {})
    assert await invited(alice) == {}
    await far.send(far.invite(alice.user_id))
    assert list(await invited(alice)) == [far.room_id]


async def test_an_older_room_may_be_described_by_stripped_state(alice: Client, one: Remote) -> None:
    far = FarRoom(one, "10")
    name = {"type": "m.room.name", "state_key": "", "sender": far.zoe, "content": {"name": "Bare"}}
    await far.send(
        far.invite(alice.user_id), [name, "garbage", {"type": "m.room.topic"}, {**name, "sender": 1}]
    )
    state = (await invited(alice))[far.room_id or ""]
    assert set(state) == {("m.room.name", ""), ("m.room.member", alice.user_id)}


@pytest.mark.parametrize("wrong", ["none", "no create event", "stripped", "of another room", "not signed"])
async def test_a_new_room_is_described_by_its_signed_events(alice: Client, one: Remote, wrong: str) -> None:
    far, other = FarRoom(one), FarRoom(one, "12")
    forged = far.event("m.room.name", {"name": "Forged"}, "", after=[far.create], sender="@yan:two.example")
    state = {
        "none": [],
        "no create event": [far.name.pdu],
        "stripped": [
            far.create.pdu,
            {"type": "m.room.name", "state_key": "", "sender": far.zoe, "content": {}},
        ],
        "of another room": [far.create.pdu, other.event("m.room.name", {"name": "Other"}, "").pdu],
        "not signed": [far.create.pdu, forged.pdu],
    }[wrong]
    other.room_id = far.room_id
    error = await error_of(far.send(far.invite(alice.user_id), state))
    assert error.status == 400
    assert await invited(alice) == {}


async def test_what_is_no_invite_of_a_user_of_this_server_is_not_signed(
    alice: Client, one: Remote, two: Remote
) -> None:
    far = FarRoom(one)
    ours = alice.user_id
    for event in (
        far.invite(ours, "join"),
        far.invite(ours, "ban"),
        far.event("m.room.name", {"membership": "invite"}, ours, after=[far.name]),
        far.invite("@yan:two.example"),
        far.invite("nobody"),
        far.invite(ours, sender=two.user("yan")),
        far.invite(ours, sender="@bob:example.org"),
        far.invite(ours, key=two.key),
        far.invite(ours, room_id=RoomId("!" + "x" * 43)),
    ):
        with refused(400, "M_INVALID_PARAM"):
            await far.send(event)
    with refused(403, "M_FORBIDDEN"):
        await far.send(far.invite("@nobody:example.org"))
    error = await error_of(far.send(far.invite(ours), room_version="org.example"))
    assert (error.status, error.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert error.body["room_version"] == "org.example"
    assert await invited(alice) == {}


async def test_of_a_room_that_this_server_is_in_the_transaction_tells(
    alice: Client, bob: Client, one: Remote, room: str
) -> None:
    made = await one.make("leave", room, one.user("zoe"))
    content = {"membership": "invite"}
    invite = one.event_from(made, state_key=bob.user_id, content=content)
    body = {"room_version": "12", "event": invite.pdu, "invite_room_state": []}
    path = f"{V2}/invite/{room}/{quote(invite.event_id, safe='')}"
    signed = (await one.call("PUT", path, body))["event"]
    assert "example.org" in signed["signatures"]
    assert await invited(bob) == {}
    await alice.set_state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["one.example"]})
    with refused(403, "M_FORBIDDEN"):
        await one.call("PUT", path, body)


async def test_an_invite_that_overtakes_the_kick_before_it_is_not_lost(
    server: Server, alice: Client, bob: Client, one: Remote
) -> None:
    zoe = one.user("zoe")
    levels = {"users": {alice.user_id: 100, zoe: 100}}
    room_id = await alice.create_room(
        preset="public_chat", room_version="11", power_level_content_override=levels
    )
    await one.become("join", room_id, zoe)
    await bob.join(room_id)
    since = (await bob.sync())["next_batch"]
    made = await one.make("leave", room_id, zoe)
    kick = one.event_from(made, state_key=bob.user_id, content={"membership": "leave"})
    invite = one.event_from(
        made,
        state_key=bob.user_id,
        content={"membership": "invite"},
        prev_events=[kick.event_id],
        depth=kick.depth + 1,
    )
    body = {"room_version": "11", "event": invite.pdu, "invite_room_state": []}
    await one.call("PUT", f"{V2}/invite/{quote(room_id)}/{quote(invite.event_id, safe='')}", body)
    assert await invited(bob, since) == {}
    transaction = {"origin": one.name, "origin_server_ts": 1, "pdus": [kick.pdu], "edus": []}
    await one.call("PUT", f"{V1}/send/kick", transaction)
    async with asyncio.timeout(30):
        while room_id not in await invited(bob):
            since = (await bob.sync(since, timeout=1_000))["next_batch"]
    await bob.join(room_id)
    assert bob.user_id in (await alice.get(f"/rooms/{room_id}/joined_members"))["joined"]


async def taken(remote: Remote, event: Event) -> bool:
    """Bring an event in a transaction; whether it was taken in."""
    body = {"origin": remote.name, "origin_server_ts": 1, "pdus": [event.pdu]}
    answer = await remote.call("PUT", f"{V1}/send/{next(_numbers)}", body)
    return answer["pdus"].get(event.event_id) == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("membership", ["leave", "ban"])
async def test_an_invite_is_taken_back(alice: Client, one: Remote, version: str, membership: str) -> None:
    far = FarRoom(one, version)
    invite = far.invite(alice.user_id)
    await far.send(invite)
    since = (await alice.sync(timeout=0))["next_batch"]
    assert await taken(one, far.member(alice.user_id, membership, after=[invite]))
    answer = await alice.sync(since, timeout=0)
    assert list(answer["rooms"]["leave"]) == [far.room_id]
    assert await invited(alice) == {}


class Confirming:
    """Zoe's server says whether somebody is still invited."""

    def __init__(self, server: Server) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.answer: Exception | None = None
        server.application.remote.client.make_leave = self.make_leave  # type: ignore[method-assign]

    async def make_leave(self, *who: str) -> Any:
        self.asked.append(who)  # type: ignore[arg-type]
        if self.answer is not None:
            raise self.answer


async def test_another_server_ends_an_invite_only_if_that_of_the_inviter_agrees(
    server: Server, alice: Client, one: Remote, two: Remote
) -> None:
    far = FarRoom(one)
    invite = far.invite(alice.user_id)
    await far.send(invite)
    confirming = Confirming(server)

    async def kicked(number: int) -> bool:
        kick = far.member(
            alice.user_id, "leave", after=[invite], sender=two.user("yan"), origin_server_ts=number
        )
        return await taken(two, countersigned(kick, two.name, two.key))

    # It is still there, the server of the inviter says; or cannot be asked.
    assert not await kicked(1)
    assert confirming.asked == [(one.name, far.room_id, alice.user_id)]
    confirming.answer = Unreachable(one.name, "away")
    assert not await kicked(2)
    server.clock.offset_ms += 10_000
    confirming.answer = Refused(one.name, 429, "M_LIMIT_EXCEEDED", "slow down")
    assert not await kicked(3)
    assert list(await invited(alice)) == [far.room_id]
    server.clock.offset_ms += 10_000
    confirming.answer = Refused(one.name, 403, "M_FORBIDDEN", "not invited")
    assert await kicked(4)
    assert await invited(alice) == {}


async def test_a_knock_is_refused_by_a_server_that_the_description_of_the_room_names(
    server: Server, alice: Client, one: Remote, two: Remote
) -> None:
    far = FarRoom(one)
    elsewhere = Answering(server, far)
    await alice.post(f"/knock/{far.room_id}", {}, via=one.name)
    knock = read_pdu(far.version, elsewhere.came[0])
    confirming = Confirming(server)
    kick = far.member(alice.user_id, "leave", after=[knock], sender=two.user("yan"))
    assert not await taken(two, countersigned(kick, two.name, two.key))
    assert confirming.asked == [(one.name, far.room_id, alice.user_id)]
    assert await rooms_in(alice, "knock") == [far.room_id]
    assert await taken(one, far.member(alice.user_id, "leave", after=[knock]))
    assert await rooms_in(alice, "knock") == []


async def test_what_is_no_end_of_the_invite_ends_it_not(alice: Client, one: Remote, two: Remote) -> None:
    far = FarRoom(one)
    first, again = far.invite(alice.user_id), far.invite(alice.user_id, origin_server_ts=1)
    await far.send(first)
    for event in (
        far.member(alice.user_id, "leave", after=[first], key=two.key),
        far.member(alice.user_id, "leave", after=[first], sender=alice.user_id),
        far.member(alice.user_id, "join", after=[first]),
        far.member("@bob:example.org", "leave", after=[first]),
        far.event("m.room.name", {"membership": "leave"}, alice.user_id, after=[first]),
    ):
        assert not await taken(one, event)
    await far.send(again)
    assert not await taken(one, far.member(alice.user_id, "leave", after=[first]))
    assert list(await invited(alice)) == [far.room_id]


async def test_a_lie_about_the_version_of_a_room_keeps_nobody_out_of_it(
    network: Network, alice: Client, one: Remote, two: Remote
) -> None:
    far = FarRoom(one, "11")
    lie = FarRoom(two, "10")
    lie.room_id = far.room_id
    await lie.send(lie.invite(alice.user_id), [])
    with refused(400, "M_INVALID_PARAM"):
        await far.send(far.invite(alice.user_id))
    elsewhere = network.server.application.inbound.elsewhere
    await elsewhere.forget(RoomId(far.room_id or ""))
    assert await invited(alice) == {}
    await far.send(far.invite(alice.user_id))
    assert list(await invited(alice)) == [far.room_id]


# -- what becomes of them ----------------------------------------------------------------------------------


class Answering:
    """Lets Zoe's server take in what ours sends it about her room."""

    def __init__(self, server: Server, far: FarRoom) -> None:
        self.far = far
        self.came: list[dict[str, Any]] = []
        client = server.application.remote.servers.client
        client.make_leave = self.make_leave  # type: ignore[method-assign]
        client.send_leave = self.send  # type: ignore[method-assign,assignment]
        client.make_knock = self.make_knock  # type: ignore[method-assign]
        client.send_knock = self.send  # type: ignore[method-assign,assignment]

    def template(self, user_id: str, membership: str) -> Template:
        after = [] if self.far.version.event_ids_are_given else [self.far.name.event_id]
        return Template(
            event={
                "type": "m.room.member",
                "room_id": self.far.room_id,
                "sender": user_id,
                "state_key": user_id,
                "content": {"membership": membership},
                "depth": 5,
                "prev_events": after,
                "auth_events": after,
            },
            room_version=self.far.version.identifier,
        )

    async def make_leave(self, destination: str, room_id: str, user_id: str) -> Template:
        assert (destination, room_id) == (self.far.remote.name, self.far.room_id)
        return self.template(user_id, "leave")

    async def make_knock(self, destination: str, room_id: str, user_id: str, versions: Any) -> Template:
        assert self.far.version.identifier in versions
        return self.template(user_id, "knock")

    async def send(self, destination: str, room_id: str, event_id: str, event: Any) -> Any:
        self.came.append(event)
        return KnockAnswer(knock_room_state=[self.far.create.pdu, self.far.name.pdu])


async def rooms_in(client: Client, section: str, since: str | None = None) -> list[str]:
    return list((await client.sync(since, timeout=0)).get("rooms", {}).get(section, {}))


async def test_an_invite_is_not_accepted_by_way_of_the_server_that_brought_it(
    server: Server, alice: Client, one: Remote
) -> None:
    far = FarRoom(one)
    elsewhere = Answering(server, far)
    invite = far.invite(alice.user_id)
    await far.send(invite)
    since = (await alice.sync(timeout=0))["next_batch"]
    await alice.leave(far.room_id or "")
    (leave,) = elsewhere.came
    assert (leave["content"], leave["sender"]) == ({"membership": "leave"}, alice.user_id)
    key = server.application.remote.servers.keyring._own_keys[0]
    verify_json(redact(far.version, leave), "example.org", key.key_id, key.private.verify_key)
    assert await rooms_in(alice, "leave", since) == [far.room_id]
    assert await invited(alice) == {}
    again = far.invite(alice.user_id, origin_server_ts=1)
    await far.send(again)
    assert list(await invited(alice)) == [far.room_id]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_invite_is_not_accepted_though_nobody_can_be_told(
    alice: Client, one: Remote, version: str
) -> None:
    far = FarRoom(one, version)
    await far.send(far.invite(alice.user_id))
    since = (await alice.sync(timeout=0))["next_batch"]
    await alice.leave(far.room_id or "")
    assert await rooms_in(alice, "leave", since) == [far.room_id]
    assert await invited(alice) == {}


async def test_who_rejects_an_invite_does_not_wait_long_for_the_server_of_the_inviter(
    server: Server, alice: Client, one: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = FarRoom(one)
    elsewhere = Answering(server, far)
    asked = asyncio.Event()

    async def never(destination: str, room_id: str, user_id: str) -> Template:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    await far.send(far.invite(alice.user_id))
    since = (await alice.sync(timeout=0))["next_batch"]
    server.application.remote.servers.client.make_leave = never  # type: ignore[method-assign]
    monkeypatch.setattr(remote_departures, "_SECONDS", 0.05)
    async with asyncio.timeout(20):
        await alice.leave(far.room_id or "")
    assert asked.is_set()
    assert elsewhere.came == []
    assert await rooms_in(alice, "leave", since) == [far.room_id]
    assert await invited(alice) == {}


async def test_an_invite_is_taken_back_by_an_event_that_cites_it(
    alice: Client, one: Remote, two: Remote
) -> None:
    far = FarRoom(one)
    invite = far.invite(alice.user_id)
    await far.send(invite)
    since = (await alice.sync(timeout=0))["next_batch"]

    async def kick(after: Event, **changed: Any) -> dict[str, Any]:
        event = far.event("m.room.member", {"membership": "leave"}, alice.user_id, after=[after], **changed)
        body = {"origin": one.name, "origin_server_ts": 1, "pdus": [event.pdu], "edus": []}
        path = f"{V1}/send/{event.depth}{len(changed)}{after.type}"
        return (await one.call("PUT", path, body))["pdus"][event.event_id]

    assert "error" in await kick(far.name)
    assert "error" in await kick(invite, key=two.key)
    assert await invited(alice, since) == {}
    assert list(await invited(alice)) == [far.room_id]
    assert await kick(invite) == {}
    assert await rooms_in(alice, "leave", since) == [far.room_id]
    assert await invited(alice) == {}


async def test_a_user_knocks_at_a_room_elsewhere_and_takes_that_back(
    server: Server, alice: Client, one: Remote
) -> None:
    far = FarRoom(one)
    elsewhere = Answering(server, far)
    since = (await alice.sync(timeout=0))["next_batch"]
    await alice.post(f"/knock/{far.room_id}", {"reason": "let me in"}, via=one.name)
    (knock,) = elsewhere.came
    assert knock["content"] == {"membership": "knock", "reason": "let me in", "displayname": "alice"}
    for where in (since, None):
        section = (await alice.sync(where, timeout=0))["rooms"]["knock"][far.room_id or ""]
        state = {event["type"]: event["content"] for event in section["knock_state"]["events"]}
        assert state["m.room.name"] == {"name": "Far away"}
        assert state["m.room.member"]["membership"] == "knock"
    await alice.leave(far.room_id or "")
    assert elsewhere.came[1]["content"] == {"membership": "leave"}
    assert await rooms_in(alice, "knock") == []


@pytest.mark.parametrize("version", ["10", "12"])
async def test_who_knocks_is_shown_what_is_rightly_signed_only(
    server: Server, alice: Client, one: Remote, two: Remote, version: str
) -> None:
    far, other = FarRoom(one, version), FarRoom(two, version)
    Answering(server, far)
    forged = far.event("m.room.topic", {"topic": "Forged"}, "", after=[far.create], key=two.key)
    bare = {"type": "m.room.avatar", "state_key": "", "sender": far.zoe, "content": {"url": "mxc://a/b"}}
    unsigned = {name: value for name, value in forged.pdu.items() if name != "signatures"}
    told = [
        far.create.pdu,
        far.name.pdu,
        forged.pdu,
        other.name.pdu,
        bare,
        {**unsigned, "type": 5},
        "garbage",
    ]

    async def answer(*_: Any) -> KnockAnswer:
        return KnockAnswer.model_construct(knock_room_state=told)

    server.application.remote.client.send_knock = answer  # type: ignore[method-assign,assignment]
    await alice.post(f"/knock/{far.room_id}", {}, via=one.name)
    section = (await alice.sync(timeout=0))["rooms"]["knock"][far.room_id or ""]
    shown = [event["type"] for event in section["knock_state"]["events"]]
    # Before version 12 many servers tell less than whole events.
    expected = [
        "m.room.create",
        "m.room.name",
        *(["m.room.avatar"] if version == "10" else []),
        "m.room.member",
    ]
    assert shown == expected


async def test_a_knock_is_answered_by_an_invite(server: Server, alice: Client, one: Remote) -> None:
    far = FarRoom(one)
    Answering(server, far)
    await alice.post(f"/knock/{far.room_id}", {}, via=one.name)
    await far.send(far.invite(alice.user_id))
    assert list(await invited(alice)) == [far.room_id]
    assert await rooms_in(alice, "knock") == []


async def test_a_room_that_no_server_is_named_for_cannot_be_knocked_at(alice: Client, one: Remote) -> None:
    with refused(404, "M_NOT_FOUND"):
        await alice.post(f"/knock/{FarRoom(one).room_id}")


async def test_nothing_fails_at_a_room_of_which_only_an_invite_is_known(
    server: Server, alice: Client, bob: Client, one: Remote
) -> None:
    far = FarRoom(one)
    invite = far.invite(alice.user_id)
    await far.send(invite)
    values = {
        "{roomId}": quote(far.room_id or "", safe=""),
        "{roomIdOrAlias}": quote(far.room_id or "", safe=""),
        "{eventId}": quote(invite.event_id, safe=""),
        "{userId}": quote(alice.user_id, safe=""),
        "{eventType}": "m.room.member",
        "{stateKey}": quote(alice.user_id, safe=""),
    }
    bodies: list[dict[str, Any]] = [
        {},
        {"user_id": bob.user_id},
        {"membership": "join"},
        {"visibility": "public"},
        {"room_id": far.room_id},
        {"new_version": "12"},
        {"typing": True, "timeout": 1_000},
    ]
    asked = 0
    for route in server.application.api.routes(["client"]):
        if "{roomId" not in route.path or "/r0/" in route.path or "/leave" in route.path:
            continue
        path = route.path
        for name, value in values.items():
            path = path.replace(name, value)
        path = (
            path.replace("{receiptType}", "m.read")
            .replace("{relType}", "m.thread")
            .replace("{", "")
            .replace("}", "")
        )
        for client in (alice, bob):
            for body in bodies if route.method in ("PUT", "POST") else [None]:
                response = await server.http.request(
                    route.method,
                    path,
                    json=body,
                    params={"ts": "1", "dir": "b"},
                    headers={"Authorization": f"Bearer {client.access_token}"},
                )
                # What only other servers know they are asked for, and nobody answers.
                assert response.status_code < 500 or response.status_code == 502, (
                    route.path,
                    body,
                    response.text,
                )
                asked += 1
    assert asked > 100
