"""Spaces and previews of rooms that nobody here is in: asked of servers that are (CS, SS "Spaces")."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from federation.answers import Hierarchy, PublicRooms
from federation.errors import Refused, Unreachable
from homeserver.services import remote_spaces, spaces
from tests.api.test_spaces import add, ids, public, space_of, tree
from tests.client import refused
from tests.federation_api.test_invites import FarRoom

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Network, Remote
    from tests.server import Server

V1 = "/_matrix/client/v1"


@pytest.fixture
def engine() -> str:
    """No SQL of its own: one engine says it all."""
    return "sqlite"


def described(room_id: str, **changed: Any) -> dict[str, Any]:
    """A public room as its server describes it."""
    return {
        "room_id": room_id,
        "num_joined_members": 3,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        **changed,
    }


def child(room_id: str, *via: str, **content: Any) -> dict[str, Any]:
    return {
        "type": "m.space.child",
        "state_key": room_id,
        "content": {"via": list(via or ("one.example",)), **content},
        "sender": "@zoe:one.example",
        "origin_server_ts": 1,
    }


class Elsewhere:
    """Servers that describe rooms."""

    def __init__(self, server: Server) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        """By server and room: an answer, or an error."""
        self.asked: list[tuple[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.slow = False
        server.application.remote.client.hierarchy = self.hierarchy  # type: ignore[method-assign]

    async def hierarchy(self, server: str, room_id: str, *, suggested_only: bool = False) -> Hierarchy:
        self.asked.append((server, room_id))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(3600 if self.slow else 0)
        finally:
            self.at_once -= 1
        answer = self.answers.get((server, room_id), Refused(server, 404, "M_NOT_FOUND", "unknown"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tells(
        self,
        room: dict[str, Any],
        *children: dict[str, Any],
        known: tuple[dict[str, Any], ...] = (),
        inaccessible: tuple[str, ...] = (),
        server: str = "one.example",
    ) -> None:
        """A server knows a room; with children it is a space."""
        kind = {"room_type": "m.space"} if children else {}
        room = {**room, **kind, "children_state": list(children)}
        answer = Hierarchy(room=room, children=list(known), inaccessible_children=list(inaccessible))
        self.answers[server, room["room_id"]] = answer


@pytest.fixture
def elsewhere(server: Server) -> Elsewhere:
    return Elsewhere(server)


def room(name: str) -> str:
    return f"!{name}:one.example"


# -- previews ----------------------------------------------------------------------------------------------


async def test_a_room_elsewhere_is_described_by_a_server_that_the_client_names(
    alice: Client, elsewhere: Elsewhere
) -> None:
    told = described(
        "!" + "x" * 43, name="Far away", topic="Tea", room_version="12", encryption="m.megolm.v1.aes-sha2"
    )
    elsewhere.tells({**told, "secret": "x", "avatar_url": "https://tracker.example"}, server="two.example")
    path = f"{V1}/room_summary/{told['room_id']}"
    query = {"via": ["gone.example", "two.example"]}
    assert await alice.get(path, **query) == {**told, "membership": "leave"}
    assert await alice.get(path, **query) == {**told, "membership": "leave"}
    # What is said, and that nothing is, is remembered for a while.
    assert elsewhere.asked == [("gone.example", told["room_id"]), ("two.example", told["room_id"])]
    with refused(404, "M_NOT_FOUND"):
        await alice.get(f"{V1}/room_summary/!{'y' * 43}", via="two.example")
    with refused(404, "M_NOT_FOUND"):
        await alice.get(f"{V1}/room_summary/!{'z' * 43}", via="no name")


async def test_what_was_said_is_asked_again_after_a_while(
    server: Server, alice: Client, elsewhere: Elsewhere
) -> None:
    elsewhere.tells(described(room("a"), name="Before"))
    path = f"{V1}/room_summary/{room('a')}"
    assert (await alice.get(path))["name"] == "Before"
    elsewhere.tells(described(room("a"), name="After"))
    assert (await alice.get(path))["name"] == "Before"
    server.clock.offset_ms += 301_000
    assert (await alice.get(path))["name"] == "After"


async def test_what_one_server_makes_up_is_not_told_to_who_asks_another(
    alice: Client, bob: Client, elsewhere: Elsewhere
) -> None:
    elsewhere.tells(described(room("a"), name="Lies"), server="mallory.example")
    elsewhere.tells(described(room("a"), name="Truth"))
    path = f"{V1}/room_summary/{room('a')}"
    assert (await alice.get(path, via="mallory.example"))["name"] == "Lies"
    assert (await bob.get(path, via="one.example"))["name"] == "Truth"


async def test_only_who_may_know_of_a_room_is_told(
    server: Server, alice: Client, bob: Client, elsewhere: Elsewhere
) -> None:
    club = await public(alice)
    nobody = server.nobody()
    for number, (more, expected) in enumerate(
        (
            ({"join_rule": "public"}, (True, True, True)),
            ({"join_rule": "knock"}, (True, True, True)),
            ({"join_rule": "invite"}, (False, False, False)),
            ({"join_rule": "invite", "allowed_room_ids": [club]}, (False, False, False)),
            ({"join_rule": "restricted", "allowed_room_ids": [club]}, (True, False, False)),
            ({"join_rule": "private", "world_readable": True}, (True, True, True)),
            ({"join_rule": 5}, (False, False, False)),
        )
    ):
        room_id = room(f"r{number}")
        elsewhere.tells(described(room_id, **more))
        for client, may_know in zip((alice, bob, nobody), expected, strict=True):
            if may_know:
                assert (await client.get(f"{V1}/room_summary/{room_id}"))["room_id"] == room_id
            else:
                with refused(404, "M_NOT_FOUND"):
                    await client.get(f"{V1}/room_summary/{room_id}")


async def test_who_is_invited_sees_what_the_server_of_the_inviter_says(
    alice: Client, one: Remote, elsewhere: Elsewhere
) -> None:
    far = FarRoom(one)
    await far.send(far.invite(alice.user_id))
    elsewhere.tells(described(far.room_id or "", join_rule="invite", name="Secret"))
    answer = await alice.get(f"{V1}/room_summary/{far.room_id}")
    assert (answer["name"], answer["membership"]) == ("Secret", "invite")


async def test_another_room_than_was_asked_for_is_no_answer(alice: Client, elsewhere: Elsewhere) -> None:
    elsewhere.tells(described(room("a")))
    elsewhere.answers["one.example", room("b")] = elsewhere.answers["one.example", room("a")]
    with refused(404, "M_NOT_FOUND"):
        await alice.get(f"{V1}/room_summary/{room('b')}")


async def test_of_a_list_of_another_server_only_what_describes_rooms_is_passed_on(
    server: Server, alice: Client
) -> None:
    async def public_rooms(_: str, **__: Any) -> PublicRooms:
        return PublicRooms(chunk=[{**described(room("a")), "script": "x"}, {"room_id": 5}, {}])

    server.application.remote.client.public_rooms = public_rooms  # type: ignore[method-assign]
    answer = await alice.get("/publicRooms", server="one.example")
    assert answer == {"chunk": [described(room("a"))]}


# -- spaces ------------------------------------------------------------------------------------------------


async def test_rooms_elsewhere_stand_in_the_tree_in_their_place(
    alice: Client, bob: Client, elsewhere: Elsewhere
) -> None:
    here, last = await public(alice), await public(alice)
    sub = room("sub")
    space = await space_of(alice, here)
    await add(alice, space, sub, order="01", via=["gone.example", "one.example"])
    await add(alice, space, room("lost"), order="02", via=["one.example", 5, {}])
    await add(alice, space, last, order="03")
    elsewhere.tells(
        described(sub, name="Below"),
        child(room("b"), order="2"),
        child(room("a"), order="1"),
        child(room("deep")),
        child(room("private")),
        child("!garbage", content=5),
        {**child(room("x")), "sender": 5},
        known=(described(room("a"), name="A"), described(room("deep"), room_type="m.space")),
        inaccessible=(room("private"),),
    )
    elsewhere.tells(described(room("b"), name="B"))
    elsewhere.tells(
        described(room("deep"), name="Deep"), child(here, "example.org", order="1"), child(room("c"))
    )
    elsewhere.tells(described(room("c"), name="C"))
    expected = [space, here, sub, room("a"), room("b"), room("deep"), room("c"), last]
    for limit in (50, 3, 1):
        rooms = await tree(bob, space, limit=limit)
        assert ids(rooms) == expected
    told = rooms[2]["children_state"]
    assert [one["state_key"] for one in told] == [room("a"), room("b"), room("deep"), room("private")]
    # Of what was told along with its space nobody is asked, and not of what nobody here may see.
    asked = [room_id for _, room_id in elsewhere.asked]
    assert room("a") not in asked
    assert room("private") not in asked
    assert len(asked) == len(set(elsewhere.asked))
    # Whoever has come across a space may ask for its tree; no server is named then.
    assert ids(await tree(bob, sub)) == [
        sub,
        room("a"),
        room("b"),
        room("deep"),
        here,
        room("c"),
    ]


async def test_in_a_space_elsewhere_only_what_is_suggested_and_may_be_known_is_shown(
    alice: Client, bob: Client, elsewhere: Elsewhere
) -> None:
    club = await public(alice)
    sub = room("sub")
    elsewhere.tells(
        described(sub),
        child(room("a"), suggested=True),
        child(room("b")),
        child(room("c"), suggested=True),
        known=(
            described(room("a")),
            described(room("b")),
            described(room("c"), join_rule="restricted", allowed_room_ids=[club]),
        ),
    )
    assert ids(await tree(alice, sub, suggested_only=True)) == [sub, room("a"), room("c")]
    assert ids(await tree(bob, sub, suggested_only=True)) == [sub, room("a")]
    assert ids(await tree(bob, sub)) == [sub, room("a"), room("b")]
    elsewhere.tells(described(room("private"), join_rule="invite"), child(room("a")))
    with refused(403, "M_FORBIDDEN"):
        await tree(bob, room("private"))


async def test_what_one_space_says_of_a_room_holds_in_that_space_alone(
    alice: Client, elsewhere: Elsewhere
) -> None:
    """A space must not be able to take a room out of another one."""
    space = await space_of(alice)
    await add(alice, space, "!sub:mallory.example", order="01", via=["mallory.example"])
    await add(alice, space, room("a"), order="02", via=["one.example"])
    elsewhere.tells(
        described("!sub:mallory.example"),
        child(room("b")),
        inaccessible=(room("a"),),
        server="mallory.example",
    )
    elsewhere.tells(described(room("a"), name="A"))
    assert ids(await tree(alice, space)) == [space, "!sub:mallory.example", room("a")]


async def test_many_servers_are_asked_at_once_and_so_many_only(
    monkeypatch: pytest.MonkeyPatch, alice: Client, elsewhere: Elsewhere
) -> None:
    monkeypatch.setattr(spaces, "_MAX_ASKED", 20)
    space = await space_of(alice)
    for number in range(40):
        elsewhere.tells(described(room(f"r{number:02}")))
        await add(alice, space, room(f"r{number:02}"), order=f"{number:02}", via=["one.example"])
    rooms = await tree(alice, space)
    assert ids(rooms) == [space, *(room(f"r{number:02}") for number in range(20))]
    assert (len(elsewhere.asked), elsewhere.most_at_once) == (20, 10)


async def test_servers_that_do_not_answer_are_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, alice: Client, elsewhere: Elsewhere
) -> None:
    monkeypatch.setattr(spaces, "_SECONDS_AT_ONCE", 0.01)
    elsewhere.slow = True
    here = await public(alice)
    space = await space_of(alice, here)
    await add(alice, space, room("a"), order="0", via=["one.example"])
    assert ids(await tree(alice, space)) == [space, here]


async def test_a_server_that_is_away_is_left_alone_for_a_while(
    server: Server, alice: Client, elsewhere: Elsewhere
) -> None:
    space = await space_of(alice)
    for name in ("a", "b", "c"):
        elsewhere.answers["one.example", room(name)] = Unreachable("one.example", "away")
    await add(alice, space, room("a"), via=["one.example"])
    assert ids(await tree(alice, space)) == [space]
    await add(alice, space, room("b"), via=["one.example"])
    assert ids(await tree(alice, space)) == [space]
    assert len(elsewhere.asked) == 1


async def test_what_is_remembered_is_bounded(
    monkeypatch: pytest.MonkeyPatch, server: Server, network: Network, elsewhere: Elsewhere
) -> None:
    remote = server.application.remote.spaces
    monkeypatch.setattr(remote_spaces, "_MAX_KEPT_BYTES", 20_000)
    monkeypatch.setattr(remote_spaces, "_MAX_ROUTES", 5)
    for number in range(30):
        elsewhere.tells(described(room(f"r{number}"), topic="x" * 3_000))
        assert await remote.look_up(room(f"r{number}"), [])  # type: ignore[arg-type]
        remote.note_route(room(f"r{number}"), ["one.example"])  # type: ignore[arg-type]
    assert len(remote._kept) <= 6
    assert remote._kept_bytes == sum(size for _, size, _ in remote._kept.values()) <= 20_000
    assert len(remote._routes) == 5
