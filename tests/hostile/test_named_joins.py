"""Servers that lie to who joins a room: the join fails, or ends with a room that can be; nothing is half-written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from homeserver.storage.stored_event import Status
from tests.client import bodies, error_of
from tests.eventgraph.rooms import KEY, Room
from tests.federation_api.remote import Remote
from tests.hostile.elsewhere import (
    EVIL,
    HELEN,
    HONEST,
    MALLORY,
    Elsewhere,
    changing,
    room_elsewhere,
)
from tests.hostile.oracle import check_database
from tests.hostile.wire import Answered, Wire

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

Change = Callable[[Any], Any]


class Joining:
    """Alice, and a room of Mallory's that she wants to join."""

    def __init__(self, server: Server, alice: Client, room: Room) -> None:
        self.server = server
        self.alice = alice
        self.room = room
        self.wire = Wire()
        self.wire.plug_in(server)
        self.evil = Elsewhere(self.wire, server, room)
        self.honest = Elsewhere(self.wire, server, room, name=HONEST)

    async def join(self) -> None:
        await self.alice.post(f"/join/{self.room.room_id}?via={EVIL}")

    async def fails(self, status: int = 502) -> None:
        """The join is answered with an error that is not ours, and nothing of it is left."""
        error = await error_of(self.join())
        assert error.status == status, error
        assert self.room.room_id not in (await self.alice.get("/joined_rooms"))["joined_rooms"]
        await self.is_sound()

    async def is_sound(self) -> None:
        keys = {(name, KEY.key_id): KEY.private.verify_key for name in (EVIL, HONEST)}
        for own in self.server.application.remote.servers.keyring._own_keys:
            keys[self.server.settings.server_name, own.key_id] = own.private.verify_key
        await check_database(self.server, keys)

    async def works(self) -> None:
        """Told the truth, Alice comes into the room and talks."""
        self.evil.lies.clear()
        await self.join()
        await self.alice.send(self.room.room_id, "hello")
        assert bodies((await self.alice.messages(self.room.room_id))["chunk"]) == ["hello"]
        await self.is_sound()


def set_in(*path: Any, to: Any) -> Change:
    """An answer with something else in a place."""

    def change(answer: Any) -> Any:
        inside = answer
        for name in path[:-1]:
            inside = inside[name]
        inside[path[-1]] = to
        return answer

    return change


TEMPLATES: dict[str, Change] = {
    "no content": set_in("event", "content", to=None),
    "a list as content": set_in("event", "content", to=[1]),
    "another user": set_in("event", "sender", to="@alice:evil.example"),
    "another room": set_in("event", "room_id", to="!other:evil.example"),
    "a version that nobody knows": set_in("room_version", to="900"),
    "a depth below nothing": set_in("event", "depth", to=-1),
    "a number as a reference": set_in("event", "prev_events", to=[5]),
    "a thousand references": set_in("event", "prev_events", to=["$x"] * 1000),
    "a hash that is none": set_in("event", "prev_events", to=[["$x", {"sha256": 1.5}]]),
    "no event": set_in("event", to={}),
    "auth events that nobody has": set_in("event", "auth_events", to=["$" + "x" * 43]),
    "previous events that are no ids": set_in("event", "prev_events", to=["x"]),
}


@pytest.mark.parametrize("lie", TEMPLATES)
@pytest.mark.parametrize("version", ["1", "11"])
async def test_a_template_that_is_none_ends_the_join(
    server: Server, alice: Client, version: str, lie: str
) -> None:
    joining = Joining(server, alice, room_elsewhere(version))
    joining.evil.lies["make_join"] = changing("make_join", TEMPLATES[lie])
    # That this server does not know the version is for the client to know.
    await joining.fails(400 if lie == "a version that nobody knows" else 502)
    await joining.works()


def without(event_type: str) -> Change:
    def change(answer: Any) -> Any:
        answer["state"] = [one for one in answer["state"] if one["type"] != event_type]
        answer["auth_chain"] = [one for one in answer["auth_chain"] if one["type"] != event_type]
        return answer

    return change


def unsigned(answer: Any) -> Any:
    for one in (*answer["state"], *answer["auth_chain"]):
        one["signatures"] = {}
    return answer


ANSWERS: dict[str, Change] = {
    "no create event": without("m.room.create"),
    "no power levels, which the join cites": without("m.room.power_levels"),
    "nothing that is signed": unsigned,
    "members left out that we asked for": set_in("members_omitted", to=True),
    "no state": set_in("state", to=[]),
    "numbers as state": set_in("state", to=[1, None, "x", [], {}]),
    "a state that is no list": set_in("state", to={}),
}


@pytest.mark.parametrize("lie", ANSWERS)
@pytest.mark.parametrize("version", ["1", "11"])
async def test_an_answer_with_which_nobody_could_be_in_the_room_ends_the_join(
    server: Server, alice: Client, version: str, lie: str
) -> None:
    joining = Joining(server, alice, room_elsewhere(version))
    joining.evil.lies["send_join"] = changing("send_join", ANSWERS[lie])
    await joining.fails()
    await joining.works()


async def test_a_state_with_two_events_for_one_key_is_none(server: Server, alice: Client) -> None:
    room = room_elsewhere("11")
    first = room.set_topic(MALLORY, "one")
    room.set_topic(MALLORY, "two")
    joining = Joining(server, alice, room)

    def both(answer: Any) -> Any:
        answer["state"].append(first.pdu)
        return answer

    joining.evil.lies["send_join"] = changing("send_join", both)
    await joining.fails()
    await joining.works()


async def test_a_second_create_event_makes_no_second_room(server: Server, alice: Client) -> None:
    """The server whose name is in the id of a room can make as many create events for it as it likes."""
    joining = Joining(server, alice, room_elsewhere("11"))
    other = room_elsewhere("11", name="room")
    other.set_topic(MALLORY, "another room, of the same name")
    await joining.works()
    await alice.leave(joining.room.room_id)
    forged = Room("11", creator=MALLORY, content={"forged": True})
    forged.join(MALLORY)
    forged.set_join_rule(MALLORY, "public")
    forged.join(HELEN)
    assert forged.room_id == joining.room.room_id
    joining.evil.rooms[forged.room_id] = forged
    await joining.fails()


@pytest.mark.parametrize("version", ["1", "11"])
async def test_of_a_join_only_signatures_are_taken_from_who_authorised_it(
    server: Server, alice: Client, version: str
) -> None:
    joining = Joining(server, alice, room_elsewhere(version))

    def authorised(answer: Any) -> Any:
        answer["event"]["content"]["join_authorised_via_users_server"] = MALLORY
        return answer

    def another(answer: Any) -> Any:
        answer["event"] = {
            **answer["event"],
            "sender": MALLORY,
            "state_key": MALLORY,
            "content": {**answer["event"]["content"], "displayname": "Mallory"},
            "signatures": {EVIL: {"ed25519:1": "x", **{f"ed25519:{n}": "x" * 80 for n in range(400)}}},
        }
        return answer

    joining.evil.lies["make_join"] = changing("make_join", authorised)
    joining.evil.lies["send_join"] = changing("send_join", another)
    if version == "1":
        # Nobody authorises joins there: what the template and the answer say of it is passed over.
        await joining.join()
        members = (await alice.get(f"/rooms/{joining.room.room_id}/joined_members"))["joined"]
        assert members.keys() == {alice.user_id, MALLORY, HELEN}
        await joining.is_sound()
    else:
        # The signature is wrong, so no other server would believe that Alice is in the room.
        await joining.fails()
        await joining.works()


async def test_what_another_server_says_does_not_log_anybody_out(server: Server, alice: Client) -> None:
    joining = Joining(server, alice, room_elsewhere("11"))
    for status, errcode in (
        (401, "M_UNKNOWN_TOKEN"),
        (403, "M_UNKNOWN_TOKEN"),
        (403, "M_USER_DEACTIVATED"),
        (400, "M_" + "X" * 50_000),
        (403, "M_USER_LOCKED"),
    ):
        joining.evil.lies["make_join"] = lambda *_, status=status, errcode=errcode: Answered.json(
            {"errcode": errcode, "error": "Go away", "soft_logout": True}, status
        )
        error = await error_of(joining.join())
        assert error.errcode in ("M_UNKNOWN", "M_FORBIDDEN"), error
        assert "soft_logout" not in error.body


@pytest.mark.parametrize("version", ["1", "11"])
async def test_an_invite_that_came_before_its_room_is_judged_with_it(
    server: Server, alice: Client, version: str
) -> None:
    """When it came nobody here could; and from then on it stands behind what it cites, as state resolution needs it."""
    room = room_elsewhere(version)
    joining = Joining(server, alice, room)
    invite = room.set_member(MALLORY, alice.user_id, "invite")
    body = {"room_version": version, "event": invite.pdu, "invite_room_state": []}
    path = f"/_matrix/federation/v2/invite/{quote(room.room_id, safe='')}/{quote(invite.event_id, safe='')}"
    await Remote(server, EVIL, KEY).call("PUT", path, body)
    assert list((await alice.sync())["rooms"]["invite"]) == [room.room_id]
    await joining.works()
    stored = await server.application.stores.events.get(invite.event_id)
    assert stored is not None
    assert stored.status is not Status.NOTED


async def test_an_invite_that_nobody_may_send_is_found_out_with_its_room(
    server: Server, alice: Client
) -> None:
    room = room_elsewhere("11")
    room.set_levels(MALLORY, {"users": {MALLORY: 100}, "invite": 50})
    joining = Joining(server, alice, room)
    invite = room.set_member(HELEN, alice.user_id, "invite")
    assert invite.rejected
    body = {"room_version": "11", "event": invite.pdu, "invite_room_state": []}
    path = f"/_matrix/federation/v2/invite/{quote(room.room_id, safe='')}/{quote(invite.event_id, safe='')}"
    await Remote(server, HONEST, KEY).call("PUT", path, body)

    def with_invite(answer: Any) -> Any:
        answer["state"].append(invite.pdu)
        return answer

    for server_elsewhere in (joining.evil, joining.honest):
        server_elsewhere.lies["send_join"] = changing("send_join", with_invite)
    await joining.join()
    await joining.is_sound()
    stored = await server.application.stores.events.get(invite.event_id)
    assert stored is not None
    assert stored.status is Status.REJECTED
