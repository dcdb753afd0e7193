"""Lists are parts of the user's rooms by their last activity, as far as filters let them pass (MSC4186 "Lists")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sync.sliding.client import DEPLOYED, Sliding, a_list

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server


# The queries are run on both engines by the test of exactness.
pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


async def listed(client: Client, **filters: Any) -> set[str]:
    """The rooms that a list with these filters has."""
    answer = await Sliding(client, "filters", lists={"one": a_list(1, filters=filters)}).sync()
    assert answer["lists"]["one"]["count"] == len(answer["rooms"])
    return set(answer["rooms"])


async def test_a_window_shows_the_rooms_with_the_newest_activity(server: Server, alice: Client) -> None:
    rooms = [await alice.create_room(name=f"{number}") for number in range(6)]
    device = Sliding(alice)
    answer = await device.sync(lists={"top": a_list(range=[0, 1])})
    assert answer["lists"]["top"]["count"] == 6
    assert set(answer["rooms"]) == {rooms[5], rooms[4]}
    # Range growth does not repeat what was sent.
    answer = await device.sync(lists={"top": a_list(range=[0, 3])})
    assert set(answer["rooms"]) == {rooms[3], rooms[2]}
    await alice.send(rooms[0], "up")
    answer = await device.sync(lists={"top": a_list(range=[0, 0])})
    assert (set(answer["rooms"]), answer["rooms"][rooms[0]]["initial"]) == ({rooms[0]}, True)
    # A reaction moves the room as well, though it does not bump it.
    await alice.send(rooms[2], {}, "m.reaction")
    answer = await device.sync(lists={"top": a_list(range=[0, 0])})
    assert set(answer["rooms"]) == {rooms[2]}
    await server.restart()
    device.client = server.reconnect(alice)
    answer = await device.sync(lists={"top": a_list(range=[0, 1]), "rest": a_list(range=[2, 99])})
    assert {room_id: room["lists"] for room_id, room in answer["rooms"].items()} == {rooms[1]: ["rest"]}


async def test_the_order_stays_when_memberships_are_read_anew(server: Server, alice: Client) -> None:
    """As they are when another process has changed very many."""
    rooms = [await alice.create_room() for _ in range(4)]
    await alice.send(rooms[0], "up")
    device = Sliding(alice)
    await device.sync(lists={"all": a_list()})
    server.application.rooms.memberships.clear()
    for room_id in (rooms[1], rooms[2]):
        await alice.send(room_id, "up")
    answer = await device.sync(lists={"all": a_list(range=[0, 0])})
    assert set(answer["rooms"]) == {rooms[2]}
    answer = await Sliding(alice, "other").sync(lists={"all": a_list(range=[0, 2])})
    assert set(answer["rooms"]) == {rooms[2], rooms[1], rooms[0]}
    assert set((await device.sync(lists={"all": a_list()}))["rooms"]) == {rooms[1]}


async def test_what_happened_out_of_sight_comes_with_the_room(alice: Client) -> None:
    rooms = [await alice.create_room() for _ in range(3)]
    device = Sliding(alice)
    await device.sync(lists={"all": a_list()})
    for room_id in rooms:
        await alice.send(room_id, "one")
    answer = await device.sync(lists={"all": a_list(range=[0, 0])})
    assert set(answer["rooms"]) == {rooms[2]}
    await alice.send(rooms[0], "two")
    answer = await device.sync(lists={"all": a_list()})
    assert {i: [e["content"].get("body") for e in r["timeline"]] for i, r in answer["rooms"].items()} == {
        rooms[0]: ["one", "two"],
        rooms[1]: ["one"],
    }
    assert (answer["rooms"][rooms[0]]["num_live"], answer["rooms"][rooms[1]]["num_live"]) == (1, 0)


async def test_rooms_that_one_left_are_listed_where_they_were_told_of(alice: Client, bob: Client) -> None:
    left, kicked, banned, never_in = [await alice.create_room(preset="public_chat") for _ in range(4)]
    for room_id in (left, kicked, banned):
        await bob.join(room_id)
    device = Sliding(bob, lists={"all": a_list()})
    await device.sync()
    await bob.leave(left)
    await alice.kick(kicked, bob.user_id)
    await alice.ban(banned, bob.user_id)
    await alice.ban(never_in, bob.user_id)
    answer = await device.sync()
    assert set(answer["rooms"]) == {left, kicked, banned}
    assert answer["lists"]["all"]["count"] == 3
    assert await listed(bob) == {kicked, banned}


async def test_filters(server: Server, alice: Client, bob: Client) -> None:
    plain = await alice.create_room(name="Tea time")
    secret = await alice.create_room(
        name="Secret",
        initial_state=[
            {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        ],
    )
    space = await alice.create_room(name="Space", creation_content={"type": "m.space"})
    invited = await bob.create_room(name="Invite", invite=[alice.user_id])
    foreign_space = await bob.create_room(preset="public_chat", creation_content={"type": "m.space"})
    for holder, one in ((alice, space), (bob, foreign_space)):
        await holder.set_state(one, "m.space.child", {"via": ["example.org"]}, plain)
    await alice.set_state(space, "m.space.child", {}, secret)
    await alice.put(f"/user/{alice.user_id}/account_data/m.direct", {bob.user_id: [secret]})
    await alice.put(f"/user/{alice.user_id}/rooms/{plain}/tags/m.favourite", {"order": 0.5})
    everything = {plain, secret, space, invited}

    assert await listed(alice) == everything
    assert await listed(alice, is_dm=True) == {secret}
    assert await listed(alice, is_dm=False) == everything - {secret}
    assert await listed(alice, is_encrypted=True) == {secret}
    assert await listed(alice, is_encrypted=False) == everything - {secret}
    assert await listed(alice, is_invited=True) == {invited}
    assert await listed(alice, is_invited=False) == everything - {invited}
    assert await listed(alice, room_types=["m.space"]) == {space}
    assert await listed(alice, room_types=[None]) == everything - {space}
    assert await listed(alice, room_types=["m.space", None], not_room_types=["m.space"]) == everything - {
        space
    }
    assert await listed(alice, tags=["m.favourite", "m.lowpriority"]) == {plain}
    assert await listed(alice, not_tags=["m.favourite"]) == everything - {plain}
    assert await listed(alice, spaces=[space]) == {plain}
    assert await listed(alice, spaces=[foreign_space, "!nonsense"]) == set()
    assert await listed(alice, is_encrypted=False, not_tags=["m.favourite"]) == {space, invited}

    # What changes is seen, and a new room.
    await alice.set_state(plain, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    assert await listed(alice, is_encrypted=True) == {secret, plain}
    await alice.set_state(space, "m.space.child", {"via": ["example.org"]}, secret)
    assert await listed(alice, spaces=[space]) == {plain, secret}
    await alice.join(invited)
    assert await listed(alice, is_invited=True) == set()
    assert invited in await listed(alice, room_types=[None])


async def test_filters_of_the_deployed_dialect(alice: Client, bob: Client) -> None:
    tea = await alice.create_room(name="Tea time")
    invited = await bob.create_room(name="Invite", invite=[alice.user_id])

    async def names(**filters: Any) -> set[str]:
        one = {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": [], "filters": filters}
        return set((await alice.post(DEPLOYED, {"lists": {"one": one}}))["rooms"])

    assert await names(room_name_like="TEA") == {tea}
    assert await names(is_invite=True) == {invited}
    assert await names(is_invite=None) == {tea, invited}


async def test_several_ranges_are_one_window(alice: Client) -> None:
    rooms = [await alice.create_room() for _ in range(5)]
    one = {"ranges": [[0, 0], [3, 3], [0, 1]], "timeline_limit": 1, "required_state": []}
    answer = await alice.post(DEPLOYED, {"lists": {"one": one}})
    assert set(answer["rooms"]) == {rooms[4], rooms[3], rooms[1]}
    none = {"ranges": [], "timeline_limit": 1, "required_state": []}
    assert (await alice.post(DEPLOYED, {"lists": {"one": none}}))["rooms"] == {}


async def test_lists_and_subscriptions_together_get_the_most_of_each(alice: Client) -> None:
    room_id = await alice.create_room(name="Tea", topic="tea")
    for number in range(4):
        await alice.send(room_id, f"{number}")
    name, topic = ({"include": [{"type": f"m.room.{one}"}]} for one in ("name", "topic"))
    answer = await Sliding(alice).sync(
        lists={"all": a_list(1, name)},
        room_subscriptions={room_id: {"timeline_limit": 3, "required_state": topic}},
    )
    room = answer["rooms"][room_id]
    assert len(room["timeline"]) == 3
    assert {event["type"] for event in room["required_state"]} == {"m.room.name", "m.room.topic"}


async def test_one_subscribes_to_rooms_that_one_may_see(alice: Client, bob: Client) -> None:
    config = {"timeline_limit": 5, "required_state": {}}
    left = await alice.create_room(preset="public_chat", name="Left")
    banned = await alice.create_room(preset="public_chat")
    foreign = await alice.create_room(preset="public_chat", name="Foreign")
    await bob.join(left)
    await alice.send(left, "seen")
    await bob.leave(left)
    await alice.send(left, "unseen")
    await alice.ban(banned, bob.user_id)
    wanted = dict.fromkeys((left, banned, foreign, "!unknown:example.org", "nonsense"), config)
    answer = await Sliding(bob).sync(room_subscriptions=wanted)
    assert set(answer["rooms"]) == {left}
    assert "lists" not in answer["rooms"][left]
    assert "unseen" not in str(answer)
    assert "seen" in str(answer)
