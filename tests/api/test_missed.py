"""What was missed over all rooms: how much (`summary`), and all of it in pages (`messages`); docs/offline.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homeserver.sync.missed import pages as missed_pages
from tests.client import Client, bodies, refused

if TYPE_CHECKING:
    from tests.server import Server

MISSED = "/_matrix/client/unstable/dev.restante.missed"
ORDERS = ("log", "important")


async def since(device: Client) -> str:
    return (await device.sync())["next_batch"]


async def summary(device: Client, start: str) -> dict[str, Any]:
    return await device.call("GET", f"{MISSED}/summary", **{"from": start})


async def pages(device: Client, start: str | None, **query: Any) -> list[dict[str, Any]]:
    found = [await device.call("GET", f"{MISSED}/messages", **{"from": start, **query})]
    while "end" in found[-1]:
        assert len(found) < 200
        again = {name: query[name] for name in ("limit", "lazy_load_members") if name in query}
        found.append(await device.call("GET", f"{MISSED}/messages", **{"from": found[-1]["end"], **again}))
    return found


def told(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for page in found for event in page["chunk"]]


async def shared_room(host: Client, *others: Client, **options: Any) -> str:
    room_id = await host.create_room(**{"preset": "public_chat", **options})
    for other in others:
        await other.join(room_id)
    return room_id


# -- how much ---------------------------------------------------------------------------------------------


async def test_the_summary_says_how_much_was_missed_in_which_room(alice: Client, bob: Client) -> None:
    quiet, busy, mentioning = [await shared_room(bob, alice) for _ in range(3)]
    start = await since(alice)
    sent = [await bob.event(busy, await bob.send(busy, f"{number}")) for number in range(3)]
    await bob.set_state(busy, "m.room.topic", {"topic": "new"})
    await bob.send(
        mentioning, {"msgtype": "m.text", "body": "you", "m.mentions": {"user_ids": [alice.user_id]}}
    )
    answer = await summary(alice, start)
    assert answer["rooms"].keys() == {busy, mentioning}
    assert quiet not in answer["rooms"]
    news = answer["rooms"][busy]
    assert (news["messages"], news["mentions"]) == (3, 0)
    assert news["first_ts"] == sent[0]["origin_server_ts"]
    assert news["last_ts"] >= sent[-1]["origin_server_ts"]
    assert 4 * 200 < news["bytes"] < 4 * 2000
    assert (answer["rooms"][mentioning]["messages"], answer["rooms"][mentioning]["mentions"]) == (1, 1)
    assert answer["totals"] == {
        "rooms": 2,
        "messages": 4,
        "mentions": 1,
        "bytes": news["bytes"] + answer["rooms"][mentioning]["bytes"],
    }
    assert (await summary(alice, await since(alice)))["totals"]["rooms"] == 0


async def test_only_what_came_while_the_user_was_there_is_counted(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    await bob.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    start = await since(alice)
    await bob.send(room_id, "seen")
    await alice.leave(room_id)
    for number in range(5):
        await bob.send(room_id, f"unseen {number}")
    await alice.join(room_id)
    await bob.send(room_id, "seen again")
    assert (await summary(alice, start))["rooms"][room_id]["messages"] == 2
    await alice.leave(room_id)
    await bob.send(room_id, "unseen")
    assert (await summary(alice, start))["rooms"][room_id]["messages"] == 2
    await alice.post(f"/rooms/{room_id}/forget")
    assert (await summary(alice, start))["rooms"] == {}


async def test_rooms_that_the_user_is_not_in_do_not_show(alice: Client, bob: Client) -> None:
    start = await since(alice)
    public = await bob.create_room(
        preset="public_chat",
        initial_state=[
            {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
        ],
    )
    invited_to = await bob.create_room(preset="private_chat", invite=[alice.user_id])
    for room_id in (public, invited_to):
        await bob.send(room_id, "hello")
    assert (await summary(alice, start))["rooms"] == {}
    assert told(await pages(alice, start)) == []


async def test_the_messages_of_ignored_users_are_neither_counted_nor_told(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room_id = await shared_room(bob, alice, carol)
    start = await since(alice)
    await bob.send(
        room_id, {"msgtype": "m.text", "body": "spam", "m.mentions": {"user_ids": [alice.user_id]}}
    )
    await carol.send(room_id, "news")
    await alice.put(
        f"/user/{alice.user_id}/account_data/m.ignored_user_list", {"ignored_users": {bob.user_id: {}}}
    )
    news = (await summary(alice, start))["rooms"][room_id]
    assert (news["messages"], news["mentions"]) == (1, 0)
    for order in ORDERS:
        assert bodies(told(await pages(alice, start, order=order))) == ["news"]


# -- all of it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
@pytest.mark.parametrize("order", ORDERS)
async def test_everything_is_told_once_and_sync_goes_on_without_repeating_or_losing_anything(
    server: Server, alice: Client, bob: Client, order: str, limit: int
) -> None:
    rooms = [await shared_room(bob, alice) for _ in range(3)]
    start = await since(alice)
    sent = [await bob.send(rooms[number % 3], f"{number}") for number in range(12)]
    await bob.put(f"/rooms/{rooms[0]}/typing/{bob.user_id}", {"typing": True})
    await bob.post(f"/rooms/{rooms[0]}/receipt/m.read/{sent[0]}")
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.data", {"n": 1})
    found = await pages(alice, start, order=order, limit=limit)
    assert all(len(page["chunk"]) <= limit for page in found)
    assert [event["event_id"] for event in told(found)] == sent
    await bob.send(rooms[1], "afterwards")
    answer = await alice.sync(found[-1]["next_batch"])
    joined = answer["rooms"]["join"]
    assert [bodies(joined[room_id]["timeline"]["events"]) for room_id in rooms] == [[], ["afterwards"], []]
    assert not any(section["timeline"]["limited"] for section in joined.values())
    assert {section["unread_notifications"]["notification_count"] for section in joined.values()} == {4, 5}
    assert "m.receipt" in {event["type"] for event in joined[rooms[0]]["ephemeral"]["events"]}
    assert answer["account_data"]["events"] == [{"type": "org.example.data", "content": {"n": 1}}]
    assert bodies(told(await pages(alice, answer["next_batch"]))) == []


async def test_the_log_is_in_order_over_all_rooms(alice: Client, bob: Client) -> None:
    rooms = [await shared_room(bob, alice) for _ in range(4)]
    start = await since(alice)
    sent = [await bob.send(rooms[number * 7 % 4], f"{number}") for number in range(20)]
    assert [event["event_id"] for event in told(await pages(alice, start, limit=3))] == sent


async def test_the_important_comes_first(alice: Client, bob: Client) -> None:
    rest, favourite, direct, other = [await shared_room(bob, alice) for _ in range(4)]
    await alice.put(f"/user/{alice.user_id}/account_data/m.direct", {bob.user_id: [direct]})
    await alice.put(f"/user/{alice.user_id}/rooms/{favourite}/tags/m.favourite", {"order": 0.5})
    start = await since(alice)
    mention = {"msgtype": "m.text", "m.mentions": {"user_ids": [alice.user_id]}}
    for number in range(2):
        for name, room_id in (("rest", rest), ("favourite", favourite), ("direct", direct), ("other", other)):
            await bob.send(room_id, f"{name} {number}")
            await bob.send(room_id, {**mention, "body": f"{name} mention {number}"})
    found = await pages(alice, start, order="important")
    by_part = {page["part"]: bodies(page["chunk"]) for page in found}
    assert list(by_part) == ["direct", "mentions", "favourites", "rest"]
    assert by_part["direct"] == ["direct 0", "direct mention 0", "direct 1", "direct mention 1"]
    assert by_part["mentions"] == [
        f"{name} mention {number}" for number in range(2) for name in ("rest", "favourite", "other")
    ]
    assert by_part["favourites"] == ["favourite 0", "favourite 1"]
    assert by_part["rest"] == ["rest 0", "other 0", "rest 1", "other 1"]
    # Where what was told early belongs.
    mentions = {event["content"]["body"]: event["event_id"] for event in found[1]["chunk"]}
    (place,) = [page["placed"] for page in found if page["part"] == "favourites"]
    held = {event["event_id"]: event["content"]["body"] for event in told(found)}
    assert [held[event_id] for event_id in place[favourite]] == [
        "favourite 0",
        "favourite mention 0",
        "favourite 1",
        "favourite mention 1",
    ]
    assert mentions["favourite mention 0"] in place[favourite]
    assert "placed" not in found[0]


@pytest.mark.parametrize("change", ["read", "direct", "favourite"])
async def test_what_changes_on_the_way_changes_nothing_of_the_way(
    alice: Client, bob: Client, change: str
) -> None:
    rooms = [await shared_room(bob, alice) for _ in range(3)]
    await alice.put(f"/user/{alice.user_id}/account_data/m.direct", {bob.user_id: [rooms[0]]})
    start = await since(alice)
    sent = [
        await bob.send(
            rooms[number % 3],
            {
                "msgtype": "m.text",
                "body": f"{number}",
                "m.mentions": {"user_ids": [alice.user_id][number % 2 :]},
            },
        )
        for number in range(12)
    ]
    page = await alice.call("GET", f"{MISSED}/messages", **{"from": start, "order": "important", "limit": 5})
    if change == "read":
        for room_id, event_id in zip(rooms, sent[-3:], strict=True):
            await alice.post(f"/rooms/{room_id}/receipt/m.read/{event_id}")
    elif change == "direct":
        await alice.put(f"/user/{alice.user_id}/account_data/m.direct", {bob.user_id: [rooms[1]]})
    else:
        await alice.put(f"/user/{alice.user_id}/rooms/{rooms[2]}/tags/m.favourite", {})
    ids = [event["event_id"] for event in told([page, *await pages(alice, page["end"], limit=5)])]
    assert len(ids) == 12
    assert set(ids) == set(sent)


async def test_a_page_ends_where_the_token_to_says(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    await bob.send(room_id, "before")
    stop = await since(alice)
    until = (await summary(alice, start))["to"]
    await bob.send(room_id, "after")
    for to in (stop, until):
        found = await pages(alice, start, to=to)
        assert bodies(told(found)) == ["before"]
        answer = await alice.sync(found[-1]["next_batch"])
        assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["after"]


async def test_a_second_catch_up_goes_on_where_the_first_ended(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    await alice.put(f"/user/{alice.user_id}/account_data/org.example.data", {"n": 1})
    await bob.send(room_id, "one")
    first = await pages(alice, start)
    await bob.send(room_id, "two")
    second = await pages(alice, first[-1]["next_batch"])
    assert bodies(told(second)) == ["two"]
    await bob.send(room_id, "three")
    answer = await alice.sync(second[-1]["next_batch"])
    assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["three"]
    assert answer["account_data"]["events"] == [{"type": "org.example.data", "content": {"n": 1}}]


async def test_messages_to_devices_are_kept_until_sync_brings_them(
    server: Server, alice: Client, bob: Client
) -> None:
    await shared_room(bob, alice)
    start = await since(alice)
    await bob.put(
        "/sendToDevice/org.example/1", {"messages": {alice.user_id: {alice.device_id: {"secret": 1}}}}
    )
    found = await pages(alice, start)
    answer = await alice.sync(found[-1]["next_batch"])
    assert [event["content"] for event in answer["to_device"]["events"]] == [{"secret": 1}]


async def test_who_wrote_is_told_with_their_name(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    await bob.send(room_id, "hello")
    (page,) = await pages(alice, start)
    assert [(event["state_key"], event["room_id"]) for event in page["state"]] == [(bob.user_id, room_id)]
    (page,) = await pages(alice, start, lazy_load_members=False)
    assert "state" not in page


async def test_history_that_was_hidden_stays_hidden(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    await bob.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    start = await since(alice)
    await bob.send(room_id, "seen")
    await alice.leave(room_id)
    await bob.send(room_id, "unseen")
    for order in ORDERS:
        assert bodies(told(await pages(alice, start, order=order))) == ["seen"]
    await alice.join(room_id)
    for order in ORDERS:
        assert bodies(told(await pages(alice, start, order=order, limit=1))) == ["seen"]


async def test_a_redacted_message_comes_redacted(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    event_id = await bob.send(room_id, "regretted")
    await bob.redact(room_id, event_id)
    (event, redaction) = told(await pages(alice, start))
    assert event["content"] == {}
    assert event["unsigned"]["redacted_because"]["event_id"] == redaction["event_id"]


# -- by time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("order", ORDERS)
async def test_a_span_of_time_is_told_in_order_of_time(
    alice: Client, bob: Client, order: str, limit: int
) -> None:
    rooms = [await shared_room(bob, alice) for _ in range(2)]
    sent = [await bob.send(rooms[number % 2], f"{number}") for number in range(8)]
    times = [(await bob.event(rooms[number % 2], sent[number]))["origin_server_ts"] for number in range(8)]
    found = await pages(alice, None, from_ts=times[2], to_ts=times[6], order=order, limit=limit)
    within = [number for number in range(8) if times[2] <= times[number] <= times[6]]
    assert bodies(told(found)) == [f"{number}" for number in within]
    assert "next_batch" not in found[-1]
    everything = bodies(told(await pages(alice, None, from_ts=0, limit=limit)))
    assert everything == [f"{number}" for number in range(8)]


async def test_a_span_of_time_shows_nothing_that_the_user_may_not_see(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    await bob.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await alice.leave(room_id)
    await bob.send(room_id, "unseen")
    elsewhere = await bob.create_room(preset="private_chat", invite=[alice.user_id])
    await bob.send(elsewhere, "unseen")
    for order in ORDERS:
        assert bodies(told(await pages(alice, None, from_ts=0, order=order))) == []


async def test_a_span_of_time_does_not_tell_how_much_is_said_where_the_user_never_was(
    alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missed_pages, "_MAX_LOOKED_AT", 5)
    room_id = await bob.create_room(preset="private_chat", invite=[alice.user_id])
    for number in range(12):
        await bob.send(room_id, f"{number}")
    await alice.leave(room_id)
    left = await shared_room(bob, alice)
    await alice.leave(left)
    for number in range(12):
        await bob.send(left, f"{number}")
    await bob.invite(left, alice.user_id)
    await alice.leave(left)
    for order in ORDERS:
        found = await pages(alice, None, from_ts=0, order=order, limit=1_000)
        # A page without anything, and one more to go: then somebody looked at what is not to be seen.
        assert [len(page["chunk"]) > 0 for page in found[:-1]] == [True] * (len(found) - 1)


# -- what is not taken ------------------------------------------------------------------------------------


async def test_tokens_that_are_no_good_are_refused(server: Server, alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    for number in range(3):
        await bob.send(room_id, f"{number}")
    end = (await alice.call("GET", f"{MISSED}/messages", **{"from": start, "limit": 1}))["end"]
    altered = end[:-3] + ("AAA" if end[-3:] != "AAA" else "BBB")
    page_token = (await alice.messages(room_id))["start"]
    for bad in ("nonsense", "s", "c", "", altered, page_token, "c" + end * 3):
        with refused(400, "M_INVALID_PARAM"):
            await alice.call("GET", f"{MISSED}/messages", **{"from": bad})
        if bad:
            with refused(400, "M_INVALID_PARAM"):
                await alice.call("GET", f"{MISSED}/summary", **{"from": bad})
    # The end of another's page is nobody else's, and no place for `/sync` or `/messages`.
    other_device = await server.login(alice)
    for device in (bob, other_device):
        with refused(400, "M_INVALID_PARAM"):
            await device.call("GET", f"{MISSED}/messages", **{"from": end})
    with refused(400, "M_INVALID_PARAM"):
        await alice.sync(end)
    with refused(400, "M_INVALID_PARAM"):
        await alice.messages(room_id, **{"from": end})
    for what in ("summary", "messages"):
        with refused(400, "M_MISSING_PARAM"):
            await alice.call("GET", f"{MISSED}/{what}")


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": "many"},
        {"limit": -1},
        {"order": "best"},
        {"from_ts": "yesterday"},
        {"to_ts": -1},
        {"to": "nonsense"},
        {"lazy_load_members": "perhaps"},
    ],
)
async def test_wishes_that_make_no_sense_are_refused(alice: Client, query: dict[str, Any]) -> None:
    with refused(400, "M_INVALID_PARAM"):
        await alice.call("GET", f"{MISSED}/messages", **{"from": await since(alice), **query})


async def test_a_page_is_never_larger_than_a_thousand(alice: Client, bob: Client) -> None:
    await shared_room(bob, alice)
    page = await alice.call("GET", f"{MISSED}/messages", **{"from": await since(alice), "limit": 10**9})
    assert page["chunk"] == []


async def test_the_token_of_another_device_is_a_position_that_acknowledges_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await shared_room(bob, alice)
    other = await server.login(alice)
    start = await since(alice)
    await other.sync()
    await bob.put(
        "/sendToDevice/org.example/1", {"messages": {alice.user_id: {other.device_id: {"secret": 1}}}}
    )
    await bob.send(room_id, "hello")
    found = await pages(other, start)
    assert bodies(told(found)) == ["hello"]
    answer = await other.sync(found[-1]["next_batch"])
    assert [event["content"] for event in answer["to_device"]["events"]] == [{"secret": 1}]


async def test_of_a_devices_catch_ups_by_importance_the_two_newest_can_be_gone_on_with(
    alice: Client, bob: Client
) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    for number in range(3):
        await bob.send(room_id, f"{number}")
    query = {"from": start, "order": "important", "limit": 1}
    ends = [(await alice.call("GET", f"{MISSED}/messages", **query))["end"] for _ in range(3)]
    with refused(400, "M_UNKNOWN_POS"):
        await pages(alice, ends[0])
    for end in ends[1:]:
        assert bodies(told(await pages(alice, end))) == ["1", "2"]


async def test_a_restart_in_between_changes_nothing(server: Server, alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    start = await since(alice)
    for number in range(3):
        await bob.send(room_id, f"{number}")
    for order in ORDERS:
        page = await alice.call("GET", f"{MISSED}/messages", **{"from": start, "order": order, "limit": 1})
        await server.restart()
        alice, bob = server.reconnect(alice), server.reconnect(bob)
        assert bodies(told([page, *await pages(alice, page["end"])])) == ["0", "1", "2"]


async def test_nobody_but_users_may_ask(server: Server) -> None:
    for what in ("summary", "messages"):
        with refused(401, "M_MISSING_TOKEN"):
            await server.nobody().call("GET", f"{MISSED}/{what}", **{"from": "x"})


# -- what counts as a mention -----------------------------------------------------------------------------


async def test_mentions_are_those_by_others_that_were_not_read_while_the_user_was_there(
    alice: Client, bob: Client
) -> None:
    own, read, left = [await shared_room(bob, alice) for _ in range(3)]
    for room_id in (own, read, left):
        await bob.set_state(room_id, "m.room.power_levels", {"users": {alice.user_id: 100}})
    start = await since(alice)
    everybody = {"msgtype": "m.text", "body": "@room", "m.mentions": {"room": True}}
    await alice.send(own, everybody)
    event_id = await bob.send(read, everybody)
    await alice.post(f"/rooms/{read}/receipt/m.read/{event_id}")
    await bob.send(left, everybody)
    await alice.post(f"/rooms/{left}/leave")
    await bob.send(left, everybody)
    rooms = (await summary(alice, start))["rooms"]
    assert {room_id: rooms[room_id]["mentions"] for room_id in (own, read, left)} == {
        own: 0,
        read: 0,
        left: 1,
    }


async def test_a_mention_in_a_room_that_was_left_before_is_not_told(alice: Client, bob: Client) -> None:
    room_id = await shared_room(bob, alice)
    await bob.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    start = await since(alice)
    await bob.send(room_id, "seen")
    await alice.post(f"/rooms/{room_id}/leave")
    everybody = {"msgtype": "m.text", "body": "@room", "m.mentions": {"room": True}}
    await bob.send(room_id, everybody)
    for order in ORDERS:
        assert bodies(told(await pages(alice, start, order=order))) == ["seen"]


async def test_what_a_room_open_to_all_hears_after_one_left_is_told_by_no_catch_up(
    alice: Client, bob: Client
) -> None:
    room_id = await shared_room(bob, alice)
    await bob.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    start = await since(alice)
    await bob.send(room_id, "seen")
    await alice.leave(room_id)
    await bob.send(room_id, "not to be told")
    first = await pages(alice, start)
    assert bodies(told(first)) == ["seen"]
    assert bodies(told(await pages(alice, first[-1]["next_batch"]))) == []


async def test_of_a_room_that_was_visited_meanwhile_what_was_before_can_be_paged_back_to(
    alice: Client, bob: Client
) -> None:
    room_id = await shared_room(bob, alice)
    await bob.send(room_id, "long ago")
    await alice.leave(room_id)
    start = await since(alice)
    await alice.join(room_id)
    await bob.send(room_id, "told")
    await alice.leave(room_id)
    found = await pages(alice, start)
    assert bodies(told(found)) == ["told"]
    page = await alice.messages(room_id, **{"from": found[0]["prev_batches"][room_id]})
    assert bodies(page["chunk"]) == ["long ago"]
