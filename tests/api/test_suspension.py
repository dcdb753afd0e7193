"""Suspended accounts: what they may not do is refused with `M_USER_SUSPENDED`, everywhere; the rest goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import bodies, refused
from tests.keys import Device

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client
    from tests.server import Server


@pytest.fixture
def engine() -> str:
    """No SQL of its own: one engine says it all."""
    return "sqlite"


async def suspend(server: Server, client: Client, *, suspended: bool = True) -> Client:
    async def work(transaction: Any) -> None:
        await transaction.execute(
            "UPDATE accounts SET is_suspended = $2 WHERE user_id = $1", client.user_id, int(suspended)
        )

    await server.application.database.write(work)
    await server.restart()
    return server.reconnect(client)


class Rooms:
    """What a user is to rooms when they are suspended."""

    def __init__(self, own: str, others: str, invited: str, knockable: str, event_id: str) -> None:
        self.own, self.others, self.invited, self.knockable = own, others, invited, knockable
        self.others_event = event_id


async def rooms(alice: Client, bob: Client) -> Rooms:
    own = await alice.create_room(preset="public_chat", invite=[bob.user_id])
    await bob.join(own)
    others = await bob.create_room(preset="public_chat")
    invited = await bob.create_room(invite=[alice.user_id])
    knockable = await bob.create_room(
        initial_state=[{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    )
    return Rooms(own, others, invited, knockable, await bob.send(own, "of Bob's"))


REFUSED: dict[str, Callable[[Client, Client, Rooms], Awaitable[Any]]] = {
    "send": lambda alice, bob, at: alice.send(at.own, "hello"),
    "react": lambda alice, bob, at: alice.send(at.own, {"m.relates_to": {}}, "m.reaction"),
    "set state": lambda alice, bob, at: alice.set_state(at.own, "m.room.topic", {"topic": "Me"}),
    "redact others": lambda alice, bob, at: alice.redact(at.own, at.others_event),
    "redact others by send": lambda alice, bob, at: alice.send(
        at.own, {"redacts": at.others_event}, "m.room.redaction"
    ),
    "redact nothing": lambda alice, bob, at: alice.redact(at.own, "$nothing"),
    "create": lambda alice, bob, at: alice.create_room(),
    "join": lambda alice, bob, at: alice.join(at.others),
    "join by room": lambda alice, bob, at: alice.post(f"/rooms/{at.others}/join"),
    "join by state": lambda alice, bob, at: alice.set_state(
        at.others, "m.room.member", {"membership": "join"}, alice.user_id
    ),
    "join with a token": lambda alice, bob, at: alice.post(
        f"/join/{at.others}",
        {
            "third_party_signed": {
                "sender": bob.user_id,
                "mxid": alice.user_id,
                "token": "x",
                "signatures": {},
            }
        },
    ),
    "accept an invite": lambda alice, bob, at: alice.join(at.invited),
    "knock": lambda alice, bob, at: alice.post(f"/knock/{at.knockable}"),
    "invite": lambda alice, bob, at: alice.invite(at.own, "@carol:example.net"),
    "invite an address": lambda alice, bob, at: alice.post(
        f"/rooms/{at.own}/invite",
        {"id_server": "i.example", "id_access_token": "x", "medium": "email", "address": "a@example.org"},
    ),
    "kick": lambda alice, bob, at: alice.post(f"/rooms/{at.own}/kick", {"user_id": bob.user_id}),
    "ban": lambda alice, bob, at: alice.post(f"/rooms/{at.own}/ban", {"user_id": bob.user_id}),
    "unban": lambda alice, bob, at: alice.post(f"/rooms/{at.own}/unban", {"user_id": bob.user_id}),
    "kick by state": lambda alice, bob, at: alice.set_state(
        at.own, "m.room.member", {"membership": "leave"}, bob.user_id
    ),
    "rename in a room": lambda alice, bob, at: alice.set_state(
        at.own, "m.room.member", {"membership": "join", "displayname": "x"}, alice.user_id
    ),
    "upgrade": lambda alice, bob, at: alice.post(f"/rooms/{at.own}/upgrade", {"new_version": "11"}),
    "alias": lambda alice, bob, at: alice.put("/directory/room/%23a:example.org", {"room_id": at.own}),
    "publish": lambda alice, bob, at: alice.put(f"/directory/list/room/{at.own}", {"visibility": "public"}),
    "name": lambda alice, bob, at: alice.put(
        f"/profile/{alice.user_id}/displayname", {"displayname": "Somebody"}
    ),
    "avatar": lambda alice, bob, at: alice.put(
        f"/profile/{alice.user_id}/avatar_url", {"avatar_url": "mxc://example.org/a"}
    ),
    "status": lambda alice, bob, at: alice.put(
        f"/presence/{alice.user_id}/status", {"presence": "online", "status_msg": "buy my book"}
    ),
    "no name": lambda alice, bob, at: alice.call(
        "DELETE", f"/_matrix/client/v3/profile/{alice.user_id}/displayname"
    ),
}


async def events(client: Client, room_id: str) -> list[str]:
    return [event["event_id"] for event in (await client.messages(room_id, limit=100))["chunk"]]


async def test_what_others_see_is_refused(server: Server, alice: Client, bob: Client) -> None:
    at = await rooms(alice, bob)
    alice = await suspend(server, alice)
    bob = server.reconnect(bob)
    before = await events(bob, at.own)
    for name, deed in REFUSED.items():
        try:
            with refused(403, "M_USER_SUSPENDED"):
                await deed(alice, bob, at)
        except BaseException as error:
            error.add_note(name)
            raise
    assert await events(bob, at.own) == before
    assert (await alice.get("/joined_rooms"))["joined_rooms"] == [at.own]


async def test_what_the_specification_leaves_them_goes_on(server: Server, alice: Client, bob: Client) -> None:
    at = await rooms(alice, bob)
    mine, by_send = await alice.send(at.own, "mine"), await alice.send(at.own, "mine, too")
    alice = await suspend(server, alice)
    bob = server.reconnect(bob)
    # "Log in and create additional sessions (which are also suspended)."
    phone = await server.login(alice)
    with refused(403, "M_USER_SUSPENDED"):
        await phone.send(at.own, "hello")
    # "See and receive messages", and what goes with it.
    await bob.send(at.own, "can you hear me?")
    room = (await alice.sync())["rooms"]["join"][at.own]
    assert bodies(room["timeline"]["events"])[-1] == "can you hear me?"
    assert bodies((await alice.messages(at.own))["chunk"])
    await alice.post(f"/rooms/{at.own}/receipt/m.read/{at.others_event}")
    await alice.put(f"/user/{alice.user_id}/account_data/org.example", {"a": 1})
    await alice.put(f"/presence/{alice.user_id}/status", {"presence": "unavailable"})
    # "Verify other devices and write associated cross-signing data", "Populate their key backup."
    await Device(alice).upload()
    await alice.put("/sendToDevice/m.key.verification.start/1", {"messages": {alice.user_id: {"*": {}}}})
    await alice.post(
        "/room_keys/version",
        {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "a"}},
    )
    # "Redact their own events."
    await alice.redact(at.own, mine)
    await alice.send(at.own, {"redacts": by_send}, "m.room.redaction")
    assert [(await bob.event(at.own, event_id))["content"] for event_id in (mine, by_send)] == [{}, {}]
    # "Leave rooms and reject invites."
    await alice.post(f"/rooms/{at.invited}/leave")
    await alice.set_state(at.own, "m.room.member", {"membership": "leave"}, alice.user_id)
    assert (await alice.get("/joined_rooms"))["joined_rooms"] == []
    # "Log out or delete any device of theirs, including the current session."
    await phone.post("/logout")


async def test_who_is_suspended_no_more_goes_on_as_before(server: Server, alice: Client, bob: Client) -> None:
    at = await rooms(alice, bob)
    sent = await alice.send(at.own, "before", transaction_id="1")
    alice = await suspend(server, alice)
    # What was sent before is answered as it was.
    assert await alice.send(at.own, "before", transaction_id="1") == sent
    alice = await suspend(server, alice, suspended=False)
    await alice.send(at.own, "after")
    await alice.join(at.invited)
