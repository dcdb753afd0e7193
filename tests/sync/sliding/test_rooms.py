"""Sliding sync tells of rooms what was asked for, and then what changed (MSC4186 "Room results")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import bodies
from tests.sync.sliding.client import DEPLOYED, EVERYTHING, Sliding, a_list, state_of, texts

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

# The queries are run on both engines by the test of exactness.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

ALL = {"all": a_list(3, EVERYTHING)}
LAZY = {"include": [{}], "lazy_members": True}


async def test_a_room_comes_whole_and_then_what_is_new(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", name="Tea")
    await bob.join(room_id)
    for number in range(5):
        await alice.send(room_id, f"{number}")
    device = Sliding(bob, lists=ALL)
    answer = await device.sync()
    assert answer["lists"] == {"all": {"count": 1}}
    room = answer["rooms"][room_id]
    assert (room["initial"], room["name"], room["membership"], room["lists"]) == (
        True,
        "Tea",
        "join",
        ["all"],
    )
    assert (room["joined_count"], room["invited_count"]) == (2, 0)
    assert "heroes" not in room
    assert texts(room) == ["2", "3", "4"]
    assert (room["limited"], room["num_live"]) == (True, 0)
    assert state_of(room)["m.room.name", ""] == {"name": "Tea"}
    older = await bob.messages(room_id, **{"from": room["prev_batch"], "limit": 2})
    assert bodies(older["chunk"]) == ["1", "0"]

    assert (await device.sync())["rooms"] == {}
    await alice.send(room_id, "5")
    await alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
    news = (await device.sync())["rooms"][room_id]
    assert (texts(news), news["num_live"], news["name"]) == (["5"], 2, "Coffee")
    assert news["bump_stamp"] > room["bump_stamp"]
    assert state_of(news) == {("m.room.name", ""): {"name": "Coffee"}}
    assert not news.keys() & {"initial", "limited", "heroes", "avatar", "is_dm", "membership"}


async def test_what_did_not_fit_is_limited_and_can_be_read_back(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(bob, lists=ALL)
    await device.sync()
    for number in range(8):
        await alice.send(room_id, f"{number}")
    room = (await device.sync())["rooms"][room_id]
    assert (texts(room), room["limited"], room["num_live"]) == (["5", "6", "7"], True, 3)
    older = await bob.messages(room_id, **{"from": room["prev_batch"], "limit": 6})
    assert bodies(older["chunk"]) == ["4", "3", "2", "1", "0"]


async def test_a_room_without_a_name_has_heroes(alice: Client, bob: Client) -> None:
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(alice, lists=ALL)
    room = (await device.sync())["rooms"][room_id]
    assert room["heroes"] == [{"user_id": bob.user_id, "displayname": "Bob"}]
    assert "name" not in room
    await alice.set_state(room_id, "m.room.name", {"name": "A name"})
    assert "heroes" not in (await device.sync())["rooms"][room_id]
    await alice.set_state(room_id, "m.room.name", {})
    unnamed = (await device.sync())["rooms"][room_id]
    assert unnamed["name"] is None
    assert [hero["user_id"] for hero in unnamed["heroes"]] == [bob.user_id]


async def test_a_larger_timeline_limit_brings_older_events_at_once(alice: Client) -> None:
    room_id = await alice.create_room()
    for number in range(6):
        await alice.send(room_id, f"{number}")
    device = Sliding(alice)
    room = (await device.sync(lists={"all": a_list(2)}))["rooms"][room_id]
    assert texts(room) == ["4", "5"]
    expanded = (await device.sync(lists={"all": a_list(4)}, timeout=10_000))["rooms"][room_id]
    assert (texts(expanded), expanded["expanded_timeline"], expanded["num_live"]) == (
        ["2", "3", "4", "5"],
        True,
        0,
    )
    assert "initial" not in expanded
    # The client holds these: less of them, and as many again, bring nothing.
    assert (await device.sync(lists={"all": a_list(1)}))["rooms"] == {}
    assert (await device.sync(lists={"all": a_list(4)}))["rooms"] == {}
    await alice.send(room_id, "6")
    assert texts((await device.sync(lists={"all": a_list(4)}))["rooms"][room_id]) == ["6"]


async def test_a_room_with_fewer_events_than_the_larger_limit_has_nothing_to_add(alice: Client) -> None:
    room_id = await alice.create_room()
    device = Sliding(alice)
    room = (await device.sync(lists={"all": a_list(50)}))["rooms"][room_id]
    assert "limited" not in room
    assert (await device.sync(lists={"all": a_list(60)}))["rooms"] == {}


async def test_more_required_state_brings_what_was_not_wanted_before(alice: Client) -> None:
    room_id = await alice.create_room(name="Tea", topic="tea")
    name, topic = ({"type": f"m.room.{one}", "state_key": ""} for one in ("name", "topic"))
    device = Sliding(alice)
    room = (await device.sync(lists={"all": a_list(1, {"include": [name]})}))["rooms"][room_id]
    assert state_of(room).keys() == {("m.room.name", "")}
    both = {"all": a_list(1, {"include": [name, topic]})}
    more = (await device.sync(lists=both, timeout=10_000))["rooms"][room_id]
    assert state_of(more).keys() == {("m.room.topic", "")}
    assert "timeline" not in more
    assert (await device.sync(lists=both))["rooms"] == {}
    # What changes while it is not wanted comes when it is wanted again.
    await device.sync(lists={"all": a_list(1, {"include": [name]})})
    await alice.set_state(room_id, "m.room.topic", {"topic": "coffee"})
    less = (await device.sync(lists={"all": a_list(1, {"include": [name]})}))["rooms"][room_id]
    assert "required_state" not in less
    again = (await device.sync(lists=both))["rooms"][room_id]
    assert state_of(again)["m.room.topic", ""]["topic"] == "coffee"


async def test_required_state_is_included_and_excluded(alice: Client) -> None:
    room_id = await alice.create_room(name="Tea")
    wanted = {"include": [{}], "exclude": [{"type": "m.room.create"}, {"state_key": alice.user_id}]}
    state = state_of((await Sliding(alice, lists={"all": a_list(1, wanted)}).sync())["rooms"][room_id])
    assert ("m.room.name", "") in state
    assert ("m.room.create", "") not in state
    assert ("m.room.member", alice.user_id) not in state


async def test_members_are_loaded_lazily(server: Server, alice: Client, bob: Client) -> None:
    carol, dave = await server.register("carol"), await server.register("dave")
    room_id = await alice.create_room(preset="public_chat")
    for person in (bob, carol, dave):
        await person.join(room_id)
    for number in range(3):
        await bob.send(room_id, f"{number}")

    def members(room: dict[str, Any]) -> set[str]:
        return {key for kind, key in state_of(room) if kind == "m.room.member"}

    device = Sliding(alice, lists={"all": a_list(3, LAZY)})
    room = (await device.sync())["rooms"][room_id]
    assert members(room) == {bob.user_id}
    assert ("m.room.create", "") in state_of(room)
    await bob.send(room_id, "known already")
    await carol.send(room_id, "new")
    assert members((await device.sync())["rooms"][room_id]) == {carol.user_id}
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
    assert members((await device.sync())["rooms"][room_id]) == {bob.user_id}
    for number in range(4):
        await carol.send(room_id, f"{number}")
    # After a gap the client has forgotten who they are.
    assert members((await device.sync())["rooms"][room_id]) == {carol.user_id}


async def test_members_that_are_named_come_always(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    named = {"type": "m.room.member", "state_key": alice.user_id}
    wanted = {"include": [named], "lazy_members": True}
    device = Sliding(alice, lists={"all": a_list(1, wanted)})
    state = state_of((await device.sync())["rooms"][room_id])
    assert state.keys() == {("m.room.member", alice.user_id), ("m.room.member", bob.user_id)}


async def test_invites_and_knocks_come_with_stripped_state_only(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(name="Tea", topic="secret", invite=[bob.user_id])
    device = Sliding(bob, lists=ALL)
    invite = (await device.sync())["rooms"][room_id]
    assert invite.keys() == {"initial", "membership", "bump_stamp", "stripped_state", "lists"}
    assert invite["membership"] == "invite"
    assert "Tea" in str(invite["stripped_state"])
    await alice.send(room_id, "bob does not see this")
    await alice.set_state(room_id, "m.room.topic", {"topic": "more secrets"})
    assert (await device.sync())["rooms"] == {}
    await bob.join(room_id)
    room = (await device.sync())["rooms"][room_id]
    assert (room["initial"], room["membership"]) == (True, "join")


async def test_who_rejects_an_invite_hears_that_it_is_gone(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(name="Tea", invite=[bob.user_id])
    device = Sliding(bob, lists=ALL)
    await device.sync()
    await bob.leave(room_id)
    await alice.set_state(room_id, "m.room.name", {"name": "unseen"})
    room = (await device.sync())["rooms"][room_id]
    assert (room["membership"], len(room["timeline"])) == ("leave", 1)
    assert [event["content"]["membership"] for event in room["stripped_state"]] == ["leave"]
    assert "unseen" not in str(room)
    assert state_of(room) == {("m.room.member", bob.user_id): room["timeline"][0]["content"]}
    assert "joined_count" not in room
    assert not (await Sliding(bob, "another", lists=ALL).sync())["rooms"]


async def test_who_goes_out_sees_nothing_of_what_comes_after(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", name="Tea")
    await bob.join(room_id)
    device = Sliding(bob, lists=ALL)
    await device.sync()
    await alice.send(room_id, "seen")
    await alice.kick(room_id, bob.user_id)
    await alice.send(room_id, "unseen")
    await alice.set_state(room_id, "m.room.name", {"name": "Unseen"})
    room = (await device.sync())["rooms"][room_id]
    assert (texts(room), room["membership"]) == (["seen"], "leave")
    assert "name" not in room
    await alice.ban(room_id, bob.user_id)
    banned = (await device.sync())["rooms"][room_id]
    assert (banned["membership"], len(banned["timeline"])) == ("ban", 1)
    assert state_of(banned).keys() == {("m.room.member", bob.user_id)}

    anew = (await Sliding(bob, "another", lists=ALL).sync())["rooms"][room_id]
    assert (anew["name"], anew["membership"]) == ("Tea", "ban")
    assert "unseen" not in str(anew).lower()
    assert state_of(anew)["m.room.member", bob.user_id]["membership"] == "ban"


async def test_a_room_that_was_left_is_told_of_once(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat", name="Tea")
    await bob.join(room_id)
    name = {"include": [{"type": "m.room.name"}]}
    device = Sliding(bob)
    await device.sync(lists={"all": a_list(3)})
    await bob.leave(room_id)
    left = (await device.sync(lists={"all": a_list(3)}))["rooms"][room_id]
    assert len(left["timeline"]) == 1
    more = (await device.sync(lists={"all": a_list(3, name)}))["rooms"][room_id]
    assert more.keys() == {"required_state", "lists"}
    assert state_of(more).keys() == {("m.room.name", ""), ("m.room.member", bob.user_id)}
    expanded = (await device.sync(lists={"all": a_list(5, name)}))["rooms"][room_id]
    assert expanded["timeline"][-1]["event_id"] == left["timeline"][0]["event_id"]
    assert expanded["expanded_timeline"]
    assert state_of(expanded) == {("m.room.member", bob.user_id): {"membership": "leave"}}
    assert (await device.sync(lists={"all": a_list(4, name)}))["rooms"] == {}


async def test_a_room_that_one_comes_back_to_begins_anew(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(bob, lists=ALL)
    await device.sync()
    await bob.leave(room_id)
    assert (await device.sync())["rooms"][room_id]["membership"] == "leave"
    await alice.send(room_id, "meanwhile")
    await bob.join(room_id)
    room = (await device.sync())["rooms"][room_id]
    assert (room["initial"], room["membership"]) == (True, "join")
    assert "meanwhile" in texts(room)


async def test_direct_chats_are_marked_and_changes_told(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(invite=[bob.user_id])
    device = Sliding(alice, lists=ALL)
    assert "is_dm" not in (await device.sync())["rooms"][room_id]
    path = f"/user/{alice.user_id}/account_data/m.direct"
    await alice.put(path, {bob.user_id: [room_id]})
    assert (await device.sync())["rooms"][room_id]["is_dm"] is True
    assert (await device.sync())["rooms"] == {}
    await alice.put(path, {bob.user_id: "nonsense"})
    assert (await device.sync())["rooms"][room_id]["is_dm"] is False


async def test_only_what_is_said_bumps_a_room(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    sent = await alice.send(room_id, "hello")
    device = Sliding(alice, lists=ALL)
    before = (await device.sync())["rooms"][room_id]["bump_stamp"]
    await alice.send(
        room_id, {"m.relates_to": {"rel_type": "m.annotation", "event_id": sent, "key": "+"}}, "m.reaction"
    )
    await bob.join(room_id)
    assert "bump_stamp" not in (await device.sync())["rooms"][room_id]
    await alice.send(room_id, {}, "m.sticker")
    assert (await device.sync())["rooms"][room_id]["bump_stamp"] > before


async def test_ignored_people_neither_invite_nor_speak(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(bob, lists=ALL)
    await device.sync()
    path = f"/user/{bob.user_id}/account_data/m.ignored_user_list"
    await bob.put(path, {"ignored_users": {alice.user_id: {}}})
    await alice.send(room_id, "unheard")
    await alice.create_room(invite=[bob.user_id])
    answer = await device.sync()
    assert (answer["rooms"], answer["lists"]["all"]["count"]) == ({}, 1)


async def test_who_is_invited_back_by_somebody_ignored_has_left(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    device = Sliding(bob, lists=ALL)
    await device.sync()
    path = f"/user/{bob.user_id}/account_data/m.ignored_user_list"
    await bob.put(path, {"ignored_users": {alice.user_id: {}}})
    await bob.leave(room_id)
    await alice.invite(room_id, bob.user_id)
    lost = await device.ask()
    answer = await device.sync()
    assert answer["rooms"].keys() == lost["rooms"].keys() == {room_id}
    room = answer["rooms"][room_id]
    assert room["membership"] == "leave"
    assert room["timeline"][-1]["content"]["membership"] == "leave"
    answer = await device.sync()
    assert (answer["rooms"], answer["lists"]["all"]["count"]) == ({}, 0)


async def test_the_deployed_dialect_counts_what_is_unread(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    body = {"lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 5, "required_state": []}}}
    pos = (await bob.post(DEPLOYED, body))["pos"]
    sent = await alice.send(
        room_id, {"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": [bob.user_id]}}
    )
    answer = await bob.post(DEPLOYED, body, pos=pos)
    room = answer["rooms"][room_id]
    assert (room["notification_count"], room["highlight_count"]) == (1, 1)
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{sent}")
    answer = await bob.post(DEPLOYED, body, pos=answer["pos"], timeout=10_000)
    assert answer["rooms"] == {room_id: {"notification_count": 0, "highlight_count": 0}}


async def test_the_deployed_dialect_has_its_own_names(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(name="Tea", topic="tea")
    invited = await bob.create_room(invite=[alice.user_id])
    for number in range(5):
        await alice.send(room_id, f"{number}")
    state = [["m.room.member", "$ME"], ["m.room.topic", "*"]]
    body = {
        "lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": state}},
        "txn_id": "x",
    }
    answer = await alice.post(DEPLOYED, body)
    # Clients of MSC3575 that are told theirs ask for the same no more, and there is nothing here that remembers.
    assert "txn_id" not in answer
    room = answer["rooms"][room_id]
    assert state_of(room).keys() == {("m.room.member", alice.user_id), ("m.room.topic", "")}
    assert not room.keys() & {"lists", "membership"}
    assert "invite_state" in answer["rooms"][invited]
    body["lists"]["all"]["timeline_limit"] = 3
    expanded = (await alice.post(DEPLOYED, body, pos=answer["pos"]))["rooms"][room_id]
    assert (expanded["unstable_expanded_timeline"], expanded["limited"]) == (True, True)


async def test_the_deployed_dialect_filters_everything_by_type(alice: Client, bob: Client) -> None:
    """MSC3575: beside `["*", "*"]` "additional entries FILTER OUT the returned set"."""
    room_id = await alice.create_room(preset="public_chat", name="Tea")
    await bob.join(room_id)
    for state, members in (
        ([["*", "*"]], {alice.user_id, bob.user_id}),
        ([["*", "*"], ["m.room.member", "$ME"]], {alice.user_id}),
        ([["*", "*"], ["m.room.member", "$ME"], ["m.room.member", "$LAZY"]], {alice.user_id, bob.user_id}),
        ([["*", "*"], ["m.room.member", "$LAZY"]], {bob.user_id}),
    ):
        body = {"lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": state}}}
        found = state_of((await alice.post(DEPLOYED, body))["rooms"][room_id])
        assert {key for kind, key in found if kind == "m.room.member"} == members, state
        assert ("m.room.name", "") in found
