"""Invites to addresses, and what becomes of them on either side (SS "Third-party invites")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from federation.answers import Invited
from federation.errors import Refused, Unreachable
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import countersigned
from homeserver.services import third_party_invites
from tests.client import refused
from tests.federation_api.identity_server import IdentityServer
from tests.federation_api.remote import V1, Network
from tests.federation_api.test_invites import FarRoom, invited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client import Client
    from tests.conftest import StartServer
    from tests.federation_api.remote import Remote
    from tests.server import Server

ADDRESS = "bob@elsewhere.example"
_INVITE = "m.room.third_party_invite"


@pytest.fixture
def engine() -> str:
    """No SQL of its own: one engine says it all."""
    return "sqlite"


@pytest.fixture
async def identity() -> AsyncIterator[IdentityServer]:
    server = IdentityServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server(http_client={"verify_tls": False, "allow_private_addresses": True})


def to(identity: IdentityServer, address: str = ADDRESS, **changed: Any) -> dict[str, Any]:
    who = {"id_server": identity.name, "id_access_token": "secret", "medium": "email", "address": address}
    return {**who, **changed}


async def with_invite(alice: Client, identity: IdentityServer, room_id: str) -> str:
    """A room with an invite to an address; the answer is the token."""
    await alice.post(f"/rooms/{room_id}/invite", to(identity))
    return f"token{len(identity.stored)}"


def exchanged(room_id: str, sender: str, target: str, signed: Any, **changed: Any) -> dict[str, Any]:
    """The body of `PUT /exchange_third_party_invite/{roomId}`."""
    invite = {"display_name": "Somebody else", "signed": signed}
    content = {"membership": "invite", "third_party_invite": invite, **changed.pop("content", {})}
    event = {"type": "m.room.member", "room_id": room_id, "sender": sender, "state_key": target}
    return {**event, "content": content, **changed}


async def exchange(remote: Remote, room_id: str, body: Any) -> Any:
    return await remote.call("PUT", f"{V1}/exchange_third_party_invite/{quote(room_id, safe='')}", body)


class Signing:
    """Lets other servers sign the invites of their users."""

    def __init__(self, server: Server, *remotes: Remote) -> None:
        self.remotes = {remote.name: remote for remote in remotes}
        self.came: list[dict[str, Any]] = []
        server.application.remote.client.invite = self.invite  # type: ignore[method-assign]

    async def invite(self, destination: str, room_id: str, event_id: str, **options: Any) -> Invited:
        self.came.append(options["event"])
        event = read_pdu(ROOM_VERSIONS[options["room_version"]], options["event"])
        remote = self.remotes[destination]  # type: ignore[index]
        return Invited(event=countersigned(event, remote.name, remote.key).pdu)


# -- the inviting side -------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithms", [["none", "sha256"], ["none"]])
async def test_who_is_known_to_have_the_address_is_invited(
    alice: Client, bob: Client, identity: IdentityServer, algorithms: list[str]
) -> None:
    identity.users[ADDRESS] = bob.user_id
    identity.algorithms = algorithms
    room_id = await alice.create_room()
    await alice.post(f"/rooms/{room_id}/invite", to(identity, address="Bob@Elsewhere.Example"))
    assert list(await invited(bob)) == [room_id]
    assert identity.stored == []
    assert identity.tokens == ["Bearer secret"]


async def test_an_invite_to_an_address_that_is_nobodys_yet_stands_in_the_room(
    alice: Client, identity: IdentityServer
) -> None:
    room_id = await alice.create_room(name="Tea", creation_content={"type": "m.space"})
    await with_invite(alice, identity, room_id)
    assert identity.stored == [
        {
            "medium": "email",
            "address": ADDRESS,
            "room_id": room_id,
            "sender": alice.user_id,
            "sender_display_name": "alice",
            "room_name": "Tea",
            "room_join_rules": "invite",
            "room_type": "m.space",
        }
    ]
    stored = identity.invite()
    assert await alice.get_state(room_id, _INVITE, "token1") == {
        "display_name": "b...@e...",
        "public_keys": stored["public_keys"],
        **stored["public_keys"][0],
    }


async def test_a_new_room_comes_with_invites_to_addresses(alice: Client, identity: IdentityServer) -> None:
    room_id = await alice.create_room(invite_3pid=[to(identity), to(identity, address="else@x.example")])
    assert [stored["address"] for stored in identity.stored] == [ADDRESS, "else@x.example"]
    for token in ("token1", "token2"):
        assert await alice.get_state(room_id, _INVITE, token)
    # The room is there, whatever becomes of the invites.
    identity.refusal = (403, {"errcode": "M_FORBIDDEN"})
    assert await alice.create_room(invite_3pid=[to(identity)])


async def test_the_identity_server_is_not_asked_for_what_the_room_would_refuse(
    alice: Client, bob: Client, identity: IdentityServer
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/rooms/{room_id}/invite", to(identity))
    await bob.join(room_id)
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/rooms/{room_id}/invite", to(identity))
    assert identity.tokens == []


async def test_what_the_identity_server_says_is_passed_on_and_garbage_is_a_failure_of_its_own(
    alice: Client, identity: IdentityServer
) -> None:
    room_id = await alice.create_room()
    for refusal, status, errcode in (
        ((403, {"errcode": "M_TERMS_NOT_SIGNED", "error": "terms"}), 403, "M_TERMS_NOT_SIGNED"),
        # Not the token of the client with us.
        ((401, {"errcode": "M_UNKNOWN_TOKEN", "error": "no"}), 403, "M_FORBIDDEN"),
        ((500, {"errcode": "M_UNKNOWN"}), 502, "M_UNKNOWN"),
        ((404, ["garbage"]), 502, "M_UNKNOWN"),
        ((200, {"lookup_pepper": 5}), 502, "M_UNKNOWN"),
    ):
        identity.refusal = refusal
        with refused(status, errcode):
            await alice.post(f"/rooms/{room_id}/invite", to(identity))
    identity.refusal = None
    for changed in (
        {"token": "not a token"},
        {"token": "x" * 256},
        {"public_keys": []},
        {"public_keys": [{}]},
        {"display_name": 5},
    ):
        identity.changed = changed
        with refused(502, "M_UNKNOWN"):
            await alice.post(f"/rooms/{room_id}/invite", to(identity))
    for wrong, errcode in (
        ({"id_server": "no name/path"}, "M_INVALID_PARAM"),
        ({"id_server": "a@127.0.0.1"}, "M_INVALID_PARAM"),
        ({"id_access_token": "a\r\nb"}, "M_INVALID_PARAM"),
        ({"id_access_token": None}, "M_BAD_JSON"),
        ({"medium": 5}, "M_BAD_JSON"),
    ):
        with refused(400, errcode):
            await alice.post(f"/rooms/{room_id}/invite", to(identity, **wrong))
    await identity.stop()
    with refused(502, "M_UNKNOWN"):
        await alice.post(f"/rooms/{room_id}/invite", to(identity))
    assert not [one for one in await alice.get(f"/rooms/{room_id}/state") if one["type"] == _INVITE]


async def test_no_identity_server_leads_into_the_network_of_this_one(
    start_server: StartServer, identity: IdentityServer
) -> None:
    server = await start_server()
    alice = await server.register("alice")
    room_id = await alice.create_room()
    with refused(502, "M_UNKNOWN"):
        await alice.post(f"/rooms/{room_id}/invite", to(identity))
    assert identity.tokens == []


# -- the exchange ------------------------------------------------------------------------------------------


async def test_the_server_of_whoever_has_the_address_exchanges_it_for_an_invite(
    server: Server, alice: Client, one: Remote, two: Remote, identity: IdentityServer
) -> None:
    signing = Signing(server, two)
    room_id = await alice.create_room(preset="public_chat")
    await one.become("join", room_id, one.user("zoe"))
    token = await with_invite(alice, identity, room_id)
    yan = two.user("yan")
    signed = identity.signed(yan, token, sender=alice.user_id)
    body = exchanged(room_id, alice.user_id, yan, signed)
    assert await exchange(two, room_id, body) == {}
    (invite,) = signing.came
    # The name is that which the room says.
    shown = {"display_name": "b...@e...", "signed": signed}
    assert invite["content"] == {"membership": "invite", "third_party_invite": shown}
    assert invite["sender"] == alice.user_id
    assert await alice.get_state(room_id, "m.room.member", yan) == invite["content"]
    # Once more does nothing, and the invite is good for coming in.
    assert await exchange(two, room_id, body) == {}
    assert len(signing.came) == 1
    await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"})
    await two.become("join", room_id, yan)


async def test_what_does_not_hold_is_not_exchanged(
    server: Server, alice: Client, bob: Client, one: Remote, two: Remote, identity: IdentityServer
) -> None:
    signing = Signing(server, two)
    room_id = await alice.create_room()
    token = await with_invite(alice, identity, room_id)
    yan = two.user("yan")
    right = identity.signed(yan, token)
    forged = {**right, "signatures": {"identity.example": {"ed25519:0": "x" * 86}}}

    def body(signed: Any = right, sender: str = alice.user_id, **changed: Any) -> dict[str, Any]:
        return {**exchanged(room_id, sender, yan, signed), **changed}

    for wrong, status, errcode in (
        (body(type="m.room.name"), 400, "M_INVALID_PARAM"),
        (body(content={**body()["content"], "membership": "join"}), 400, "M_INVALID_PARAM"),
        (body(room_id="!other:example.org"), 400, "M_INVALID_PARAM"),
        (body(sender="nobody"), 400, "M_INVALID_PARAM"),
        (body(signed={**right, "mxid": two.user("xena")}), 400, "M_INVALID_PARAM"),
        (body(signed={"mxid": yan}), 400, "M_INVALID_PARAM"),
        (body(content={"membership": "invite", "third_party_invite": 5}), 400, "M_BAD_JSON"),
        ({}, 400, "M_MISSING_PARAM"),
        (body(signed=forged), 403, "M_FORBIDDEN"),
        (body(signed=identity.signed(yan, "other")), 403, "M_FORBIDDEN"),
        (body(sender=bob.user_id), 403, "M_FORBIDDEN"),
    ):
        with refused(status, errcode):
            await exchange(two, room_id, wrong)
    # Nobody but the server of the invited user, and not in a room that this server is not in.
    with refused(403, "M_FORBIDDEN"):
        await exchange(one, room_id, body())
    with refused(404, "M_NOT_FOUND"):
        await exchange(two, "!other:example.org", body(room_id="!other:example.org"))
    for valid in ({"valid": False}, {}, ["garbage"]):
        identity.valid = valid
        with refused(403, "M_FORBIDDEN"):
            await exchange(two, room_id, body())
    identity.valid = {"valid": True}
    await alice.ban(room_id, yan)
    with refused(403, "M_FORBIDDEN"):
        await exchange(two, room_id, body())
    await alice.set_state(room_id, "m.room.server_acl", {"allow": ["*"], "deny": ["two.example"]})
    with refused(403, "M_FORBIDDEN"):
        await exchange(two, room_id, body())
    assert signing.came == []


async def test_an_invite_that_was_taken_back_is_not_exchanged(
    server: Server, alice: Client, two: Remote, identity: IdentityServer
) -> None:
    room_id = await alice.create_room()
    token = await with_invite(alice, identity, room_id)
    await alice.set_state(room_id, _INVITE, {}, token)
    signed = identity.signed(two.user("yan"), token)
    with refused(403, "M_FORBIDDEN"):
        await exchange(two, room_id, exchanged(room_id, alice.user_id, two.user("yan"), signed))


# -- the invited side --------------------------------------------------------------------------------------


async def bound(server: Server, mxid: str, *invites: dict[str, Any], **changed: Any) -> Any:
    """An identity server tells that somebody has an address."""
    common = {"medium": "email", "address": ADDRESS, "mxid": mxid}
    body = {**common, "invites": [{**common, **invite} for invite in invites], **changed}
    return await server.nobody().put(f"{V1}/3pid/onbind", body)


async def test_who_binds_the_address_is_invited_into_a_room_of_this_server(
    server: Server, alice: Client, bob: Client, identity: IdentityServer
) -> None:
    room_id = await alice.create_room()
    token = await with_invite(alice, identity, room_id)
    invite = {"room_id": room_id, "sender": alice.user_id, "signed": identity.signed(bob.user_id, token)}
    wrong = {**invite, "signed": identity.signed(bob.user_id, "other")}
    assert await bound(server, bob.user_id, wrong, {}, invite) == {}
    assert list(await invited(bob)) == [room_id]
    await bob.join(room_id)
    # It is told again where the identity server is not sure that it was heard.
    assert await bound(server, bob.user_id, invite) == {}
    assert (await alice.get_state(room_id, "m.room.member", bob.user_id))["membership"] == "join"


async def test_the_server_of_whoever_invited_is_asked_about_a_room_elsewhere(
    server: Server, alice: Client, one: Remote
) -> None:
    far = FarRoom(one)
    asked: list[Any] = []
    failure: list[Exception] = [Unreachable(one.name, "away")]

    async def ask(destination: str, room_id: str, event: Any) -> None:
        asked.append((destination, room_id, event))
        if failure:
            raise failure[0]

    server.application.remote.client.exchange_third_party_invite = ask  # type: ignore[method-assign]
    signed = {"mxid": alice.user_id, "token": "t", "signatures": {}}
    invite = {"room_id": far.room_id, "sender": far.zoe, "signed": signed}
    # It is to be told again.
    with refused(502, "M_UNKNOWN"):
        await bound(server, alice.user_id, invite)
    failure[0] = Refused(one.name, 403, "M_FORBIDDEN", "no")
    assert await bound(server, alice.user_id, invite) == {}
    failure.clear()
    assert await bound(server, alice.user_id, invite) == {}
    destination, room_id, event = asked[-1]
    assert (destination, room_id) == (one.name, far.room_id)
    assert event == exchanged(
        far.room_id or "",
        far.zoe,
        alice.user_id,
        signed,
        content={"third_party_invite": {"display_name": "", "signed": signed}},
    )


async def test_many_invites_are_exchanged_at_once_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, server: Server, alice: Client, one: Remote
) -> None:
    monkeypatch.setattr(third_party_invites, "_SECONDS", 0.1)
    under_way = most = 0

    async def ask(*_: Any) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(3600)

    server.application.remote.client.exchange_third_party_invite = ask  # type: ignore[method-assign]
    signed = {"mxid": alice.user_id, "token": "t", "signatures": {}}
    invites = [
        {"room_id": f"!r{number}:one.example", "sender": one.user("zoe"), "signed": signed}
        for number in range(50)
    ]
    with refused(502, "M_UNKNOWN"):
        await bound(server, alice.user_id, *invites)
    assert most == 10


async def test_so_many_keys_are_asked_about_only(
    server: Server, alice: Client, bob: Client, identity: IdentityServer
) -> None:
    room_id = await alice.create_room()
    url = f"https://{identity.name}/_matrix/identity/v2/pubkey/isvalid"
    keys = [
        {"public_key": identity.public_key, "key_validity_url": f"{url}?number={number}"}
        for number in range(100)
    ]
    await alice.set_state(room_id, _INVITE, {"display_name": "b", "public_keys": keys}, "token1")
    identity.valid = {"valid": False}
    invite = {"room_id": room_id, "sender": alice.user_id, "signed": identity.signed(bob.user_id)}
    assert await bound(server, bob.user_id, invite) == {}
    assert identity.validity_asked == 5
    assert await invited(bob) == {}


async def test_nothing_is_done_for_a_user_of_nobody(server: Server, alice: Client) -> None:
    for mxid in ("@nobody:example.org", "@zoe:one.example", "garbage"):
        with refused(404, "M_NOT_FOUND"):
            await bound(server, mxid)
    with refused(400, "M_BAD_JSON"):
        await bound(server, alice.user_id, invites=[{}] * 101)
    with refused(400, "M_BAD_JSON"):
        await bound(server, alice.user_id, invites=["garbage"])
    assert await bound(server, alice.user_id, {"room_id": "garbage"}) == {}


async def test_who_joins_may_show_the_signed_token(
    alice: Client, bob: Client, identity: IdentityServer
) -> None:
    room_id = await alice.create_room()
    token = await with_invite(alice, identity, room_id)
    signed = identity.signed(bob.user_id, token, sender=alice.user_id)
    with refused(400, "M_INVALID_PARAM"):
        await bob.join(room_id, third_party_signed=identity.signed(alice.user_id, token))
    with refused(403, "M_FORBIDDEN"):
        await bob.join(room_id, third_party_signed={**signed, "token": "other"})
    assert await bob.join(room_id, third_party_signed=signed) == room_id


async def test_an_invite_of_a_user_here_by_a_user_elsewhere_is_signed_by_this_server_alone(
    server: Server, alice: Client, bob: Client, one: Remote, identity: IdentityServer, network: Network
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    zoe = one.user("zoe")
    await alice.set_state(
        room_id, "m.room.power_levels", {**await alice.get_state(room_id, "m.room.power_levels"), "invite": 0}
    )
    await one.become("join", room_id, zoe)
    made = await one.make("leave", room_id, zoe)
    made["event"] |= {"type": _INVITE, "state_key": "token1", "content": identity.invite()}
    offer = one.event_from(made)
    body = {"origin": one.name, "origin_server_ts": 1, "pdus": [offer.pdu]}
    answer = await one.call("PUT", f"{V1}/send/1", body)
    assert answer["pdus"] == {offer.event_id: {}}
    invite = {"room_id": room_id, "sender": zoe, "signed": identity.signed(bob.user_id)}
    assert await bound(server, bob.user_id, invite) == {}
    assert list(await invited(bob)) == [room_id]
    event_id = next(
        event["event_id"]
        for event in await alice.get(f"/rooms/{room_id}/state")
        if event.get("state_key") == bob.user_id
    )
    pdu = await one.event(event_id)
    assert (pdu["sender"], list(pdu["signatures"])) == (zoe, ["example.org"])
