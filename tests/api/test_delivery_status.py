"""How an event is doing: its sender learns what is stored, delivered, decrypted, read and handed over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.storage.device_positions import DevicePositionStore
from homeserver.storage.left_out import LeftOutStore
from tests.client import Client, bodies, refused
from tests.delivery_status import all_delivered, delivered, room_of, status
from tests.server import Server
from tests.statements import Statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MISSED = "/_matrix/client/unstable/dev.restante.missed"
DECRYPTED = "org.matrix.msc4089.delivery"
ONE = {"room": {"timeline": {"limit": 1}}}


async def since(device: Client) -> str:
    return (await device.sync())["next_batch"]


def ephemeral(answer: dict[str, Any], room_id: str, kind: str) -> dict[str, Any]:
    events = answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("ephemeral", {}).get("events", [])
    contents: dict[str, Any] = {}
    for event in events:
        if event["type"] == kind:
            contents |= event["content"]
    return contents


# -- delivered --------------------------------------------------------------------------------------------


async def test_an_event_is_delivered_once_the_device_comes_back_with_the_token_of_its_answer(
    alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    event_id = await alice.send(room_id, "hello")
    assert await delivered(alice, room_id, event_id, bob) == (0, 1)
    answer = await bob.sync(start)
    # It may have been lost on the way.
    assert await delivered(alice, room_id, event_id, bob) == (0, 1)
    await bob.sync(answer["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (1, 1)
    later = await alice.send(room_id, "more")
    assert await delivered(alice, room_id, later, bob) == (0, 1)
    assert await delivered(alice, room_id, event_id, bob) == (1, 1)


async def test_each_device_counts_and_the_times_are_those_of_the_first_and_the_last(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    phone = await server.login(bob)
    places = {device.device_id: await since(device) for device in (bob, phone)}
    event_id = await alice.send(room_id, "hello")
    await bob.sync((await bob.sync(places[bob.device_id]))["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (1, 2)
    await phone.sync((await phone.sync(places[phone.device_id]))["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (2, 2)
    delivery = (await status(alice, room_id, event_id))["users"][bob.user_id]["delivery"]
    sent = (await alice.event(room_id, event_id))["origin_server_ts"]
    assert sent <= delivery["first_ts"] <= delivery["last_ts"]


async def test_what_a_limited_answer_left_out_is_delivered_when_it_is_fetched(
    alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(6)]
    answer = await bob.sync(start, filter=ONE)
    await bob.sync(answer["next_batch"])
    assert await all_delivered(alice, room_id, sent, bob) == [0, 0, 0, 0, 0, 1]
    page = await bob.messages(
        room_id, limit=2, **{"from": answer["rooms"]["join"][room_id]["timeline"]["prev_batch"]}
    )
    assert await all_delivered(alice, room_id, sent, bob) == [0, 0, 0, 1, 1, 1]
    # A page that leaves something out proves nothing.
    await bob.messages(room_id, limit=2, filter='{"not_types": ["org.example"]}', **{"from": page["end"]})
    assert await all_delivered(alice, room_id, sent, bob) == [0, 0, 0, 1, 1, 1]
    await bob.messages(room_id, limit=20, **{"from": page["end"]})
    assert await all_delivered(alice, room_id, sent, bob) == [1] * 6


async def test_news_in_a_room_with_a_gap_write_nothing(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    for number in range(3):
        await alice.send(room_id, str(number))
    # The answer is limited, and leaves a gap.
    answer = await bob.sync(since=start, filter=ONE)
    await alice.send(room_id, "news")

    async def subtract(*_: Any) -> None:
        pytest.fail("nothing of the gap has come")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeftOutStore, "subtract", subtract)
        answer = await bob.sync(since=answer["next_batch"], filter=ONE)
    assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["news"]


async def test_what_was_left_out_is_delivered_by_catching_up(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(6)]
    answer = await bob.sync(start, filter=ONE)
    await bob.sync(answer["next_batch"])
    page = await bob.call("GET", f"{MISSED}/messages", **{"from": start})
    await bob.sync(page["next_batch"])
    assert await all_delivered(alice, room_id, sent, bob) == [1] * 6


async def test_an_answer_that_was_lost_and_comes_whole_the_second_time_delivers_all(
    alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(4)]
    await bob.sync(start, filter=ONE)
    answer = await bob.sync(start)
    await bob.sync(answer["next_batch"])
    assert await all_delivered(alice, room_id, sent, bob) == [1] * 4


async def test_catching_up_delivers_once_sync_goes_on_from_its_end(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    event_id = await alice.send(room_id, "hello")
    page = await bob.call("GET", f"{MISSED}/messages", **{"from": start})
    assert await delivered(alice, room_id, event_id, bob) == (0, 1)
    await bob.sync(page["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (1, 1)


async def test_what_a_filter_does_not_want_is_not_delivered(alice: Client, bob: Client) -> None:
    room_id, other = await room_of(alice, bob), await room_of(alice, bob)
    start = await since(bob)
    noise = await alice.send(room_id, {"body": "x", "msgtype": "m.notice"}, "m.sticker")
    message, elsewhere = await alice.send(room_id, "hello"), await alice.send(other, "hello")
    wanted = {"room": {"rooms": [room_id], "timeline": {"not_types": ["m.room.message"]}}}
    answer = await bob.sync(start, filter=wanted)
    await bob.sync(answer["next_batch"], filter=wanted)
    assert await delivered(alice, room_id, message, bob) == (0, 1)
    assert await delivered(alice, other, elsewhere, bob) == (0, 1)
    assert await delivered(alice, room_id, noise, bob) == (1, 1)


async def test_the_token_of_another_device_delivers_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    phone = await server.login(bob)
    start = await since(bob)
    event_id = await alice.send(room_id, "hello")
    answer = await bob.sync(start)
    await phone.sync(answer["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (0, 2)


async def test_a_restart_forgets_nothing(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(3)]
    answer = await bob.sync(start, filter=ONE)
    await bob.sync(answer["next_batch"])
    before = (await status(alice, room_id, sent[-1]))["users"]
    await server.restart()
    alice = server.reconnect(alice)
    assert (await status(alice, room_id, sent[-1]))["users"] == before
    assert await delivered(alice, room_id, sent[0], bob) == (0, 1)


async def test_a_device_that_is_gone_does_not_count(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    phone = await server.login(bob)
    start = await since(phone)
    event_id = await alice.send(room_id, "hello")
    await phone.sync((await phone.sync(start))["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (1, 2)
    await phone.post("/logout")
    assert await delivered(alice, room_id, event_id, bob) == (0, 1)
    database = server.application.database
    for table in ("device_positions", "left_out", "room_arrivals"):
        query = f"SELECT count(*) FROM {table} WHERE device_id = $1"
        assert await database.fetch_value(query, phone.device_id) == 0


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("unwanted", [False, True], ids=["limited", "not wanted"])
async def test_what_was_left_out_of_a_room_that_was_left_meanwhile_is_not_delivered(
    server: Server, alice: Client, bob: Client, *, unwanted: bool
) -> None:
    room_id = await room_of(alice, bob)
    phone = await server.login(bob)
    start = await since(phone)
    sent = [await alice.send(room_id, f"{number}") for number in range(3)]
    # By another device, while this one is away.
    await bob.leave(room_id)
    wanted = {"room": {"not_rooms": [room_id]}} if unwanted else {"room": {"timeline": {"limit": 2}}}
    answer = await phone.sync(start, filter=wanted)
    await bob.join(room_id)
    answer = await phone.sync((await phone.sync(answer["next_batch"]))["next_batch"])
    assert await all_delivered(alice, room_id, sent, bob) == ([0, 0, 0] if unwanted else [0, 0, 1])
    await phone.messages(room_id, **{"from": answer["next_batch"]})
    assert await all_delivered(alice, room_id, sent, bob) == [1, 1, 1]


# -- read and decrypted -----------------------------------------------------------------------------------


async def test_a_public_receipt_says_read_and_a_private_one_does_not(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    event_id = await alice.send(room_id, "hello")
    later = await alice.send(room_id, "more")
    await bob.post(f"/rooms/{room_id}/receipt/m.read/{event_id}")
    await carol.post(f"/rooms/{room_id}/receipt/m.read.private/{event_id}")
    users = (await status(alice, room_id, event_id))["users"]
    assert users[bob.user_id]["read"]["ts"] > 0
    assert "read" not in users[carol.user_id]
    assert "read" not in (await status(alice, room_id, later))["users"][bob.user_id]


async def test_a_client_may_say_that_it_has_decrypted_an_event_and_only_the_sender_hears_it(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    event_id = await alice.send(room_id, "hello")
    starts = {one.user_id: await since(one) for one in (alice, carol, bob)}
    await bob.post(f"/rooms/{room_id}/receipt/{DECRYPTED}/{event_id}")
    heard = ephemeral(await alice.sync(starts[alice.user_id]), room_id, "m.receipt")
    assert heard[event_id][DECRYPTED][bob.user_id]["ts"] > 0
    for other in (carol, bob):
        assert ephemeral(await other.sync(starts[other.user_id]), room_id, "m.receipt") == {}
    users = (await status(alice, room_id, event_id))["users"]
    assert "decrypted" in users[bob.user_id]
    assert "decrypted" not in users[carol.user_id]


async def test_a_delivery_receipt_is_for_an_event_that_can_be_seen(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    own = await alice.create_room()
    hidden = await alice.send(own, "hidden")
    for event_id in (hidden, "$nothing", "nonsense"):
        with refused(400, "M_INVALID_PARAM"):
            await bob.post(f"/rooms/{room_id}/receipt/{DECRYPTED}/{event_id}")
    with refused(403, "M_FORBIDDEN"):
        await bob.post(f"/rooms/{own}/receipt/{DECRYPTED}/{hidden}")


# -- news -------------------------------------------------------------------------------------------------


async def test_the_sender_hears_of_a_delivery_in_sync(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(2)]
    place, others_place = await since(alice), await since(bob)
    await bob.sync((await bob.sync(start))["next_batch"])
    await server.application.delivered.flush()
    answer = await alice.sync(place, timeout=30_000)
    news = ephemeral(answer, room_id, "dev.restante.delivered")
    assert news.keys() == {sent[-1]}
    assert news[sent[-1]][bob.user_id]["ts"] > 0
    # Once, and to nobody else.
    again = await alice.sync(answer["next_batch"])
    assert ephemeral(again, room_id, "dev.restante.delivered") == {}
    assert ephemeral(await bob.sync(others_place), room_id, "dev.restante.delivered") == {}


async def test_a_waiting_sync_is_woken_by_a_delivery(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    event_id = await alice.send(room_id, "hello")
    place = await since(alice)
    answer = await bob.sync(start)
    # Acknowledged while the sender waits; written within a second, without anybody's help.
    await bob.sync(answer["next_batch"])
    heard: dict[str, Any] = {}
    async with asyncio.timeout(60):
        while not heard:
            answer = await alice.sync(place, timeout=600_000)
            place, heard = answer["next_batch"], ephemeral(answer, room_id, "dev.restante.delivered")
    assert heard.keys() == {event_id}


async def test_no_news_says_delivered_of_what_was_left_out(
    server: Server, alice: Client, bob: Client
) -> None:
    carol = await server.register("carol")
    room_id = await room_of(alice, bob, carol)
    start, place = await since(bob), await since(alice)
    first = await alice.send(room_id, "left out")
    later = await carol.send(room_id, "in the answer")
    carols_place = await since(carol)
    answer = await bob.sync(start, filter=ONE)
    await bob.sync(answer["next_batch"], filter=ONE)
    assert await delivered(alice, room_id, first, bob) == (0, 1)
    assert ephemeral(await alice.sync(place), room_id, "dev.restante.delivered") == {}
    news = ephemeral(await carol.sync(carols_place), room_id, "dev.restante.delivered")
    assert news.keys() == {later}


async def test_acknowledgements_that_could_not_be_written_are_not_forgotten(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    event_id = await alice.send(room_id, "hello")
    await bob.sync((await bob.sync(start))["next_batch"])

    async def fail(*_: Any) -> None:
        raise OSError

    delivered_ = server.application.delivered
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DevicePositionStore, "set", fail)
        with pytest.raises(OSError):
            await delivered_.flush()
    assert await delivered(alice, room_id, event_id, bob) == (1, 1)


async def test_who_comes_later_has_got_nothing_before_they_sync(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice)
    sent = [await alice.send(room_id, f"{number}") for number in range(3)]
    # The device stands behind these events in the log, and was never told of them.
    start = await since(bob)
    await bob.sync(start)
    await bob.join(room_id)
    assert await delivered(alice, room_id, sent[-1], bob) == (0, 1)
    wanted = {"room": {"timeline": {"limit": 2}}}
    answer = await bob.sync(start, filter=wanted)
    assert await delivered(alice, room_id, sent[-1], bob) == (0, 1)
    await bob.sync(answer["next_batch"], filter=wanted)
    assert await delivered(alice, room_id, sent[-1], bob) == (1, 1)
    assert await delivered(alice, room_id, sent[0], bob) == (0, 1)
    # Another name is no other stay.
    await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Robert"})
    assert await delivered(alice, room_id, sent[-1], bob) == (1, 1)


# -- who is told nothing ----------------------------------------------------------------------------------


async def test_who_switches_it_off_is_not_shown_at_once(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    start = await since(bob)
    event_id = await alice.send(room_id, "hello")
    place = await since(alice)
    await bob.sync((await bob.sync(start))["next_batch"])
    await bob.post(f"/rooms/{room_id}/receipt/{DECRYPTED}/{event_id}")
    assert bob.user_id in (await status(alice, room_id, event_id))["users"]
    await bob.put(f"/user/{bob.user_id}/account_data/dev.restante.delivery_status", {"share": False})
    assert (await status(alice, room_id, event_id))["users"] == {}
    answer = await alice.sync(place)
    assert ephemeral(answer, room_id, "dev.restante.delivered") == {}
    assert ephemeral(answer, room_id, "m.receipt") == {}
    await bob.post(f"/rooms/{room_id}/receipt/{DECRYPTED}/{await alice.send(room_id, 'more')}")
    await bob.put(f"/user/{bob.user_id}/account_data/dev.restante.delivery_status", {"share": True})
    assert bob.user_id in (await status(alice, room_id, event_id))["users"]


async def test_only_the_sender_may_ask(server: Server, alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "hello")
    carol = await server.register("carol")
    with refused(403, "M_FORBIDDEN"):
        await status(bob, room_id, event_id)
    with refused(404, "M_NOT_FOUND"):
        await status(carol, room_id, event_id)
    for unknown in ("$nothing", "nonsense"):
        with refused(404, "M_NOT_FOUND"):
            await status(alice, room_id, unknown)
    with refused(401, "M_MISSING_TOKEN"):
        await status(server.nobody(), room_id, event_id)


async def test_who_has_left_the_room_learns_no_more_of_it(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice, bob)
    event_id = await alice.send(room_id, "hello")
    await alice.post(f"/rooms/{room_id}/leave")
    with refused(403, "M_FORBIDDEN"):
        await status(alice, room_id, event_id)


async def test_who_may_not_see_the_event_is_not_among_the_recipients(alice: Client, bob: Client) -> None:
    room_id = await room_of(alice)
    await alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    event_id = await alice.send(room_id, "before")
    await bob.join(room_id)
    assert (await status(alice, room_id, event_id))["users"] == {}


@pytest.fixture(
    params=[{"enabled": False}, {"enabled": True, "max_members": 1}], ids=["off", "small rooms only"]
)
async def reticent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path, f"sqlite:///{tmp_path}/restante.db", delivery_status=request.param)
    await server.start()
    yield server
    await server.stop()


async def test_where_it_is_off_or_the_room_too_large_nothing_is_told_and_nothing_kept(
    reticent: Server,
) -> None:
    alice, bob = await reticent.register("alice"), await reticent.register("bob")
    room_id = await room_of(alice, bob)
    start = await since(bob)
    sent = [await alice.send(room_id, f"{number}") for number in range(3)]
    await bob.sync((await bob.sync(start, filter=ONE))["next_batch"])
    await reticent.application.delivered.flush()
    with refused(403, "M_FORBIDDEN"):
        await status(alice, room_id, sent[-1])
    database = reticent.application.database
    for table in ("left_out", "delivery_news", "room_arrivals"):
        assert await database.fetch_value(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_what_it_costs_to_ask_does_not_grow_with_the_members(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [await server.register(f"member{number}") for number in range(14)]
    room_id = await room_of(alice, *members)
    event_id = await alice.send(room_id, "hello")
    await status(alice, room_id, event_id)
    with Statements(monkeypatch).at_most(len(members) - 1):
        await status(alice, room_id, event_id)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_what_came_before_an_invite_back_is_not_delivered_by_being_invited(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await room_of(alice, bob)
    phone = await server.login(bob)
    start = await since(phone)
    event_id = await alice.send(room_id, "hello")
    await bob.leave(room_id)
    await alice.invite(room_id, bob.user_id)
    answer = await phone.sync(start)
    assert room_id in answer["rooms"]["invite"]
    await bob.join(room_id)
    for _ in range(2):
        answer = await phone.sync(answer["next_batch"])
    assert await delivered(alice, room_id, event_id, bob) == (0, 2)
    await phone.messages(room_id)
    assert await delivered(alice, room_id, event_id, bob) == (1, 2)
