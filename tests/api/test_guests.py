"""Guests in rooms (CS "Guest Access")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client import Client, refused

if TYPE_CHECKING:
    from tests.conftest import StartServer
    from tests.server import Server


@pytest.fixture
async def open_server(start_server: StartServer) -> Server:
    return await start_server(registration={"mode": "open", "allow_guests": True})


@pytest.fixture
async def host(open_server: Server) -> Client:
    return await open_server.register("host")


@pytest.fixture
async def guest(open_server: Server) -> Client:
    answer = await open_server.nobody().post("/register", {}, kind="guest")
    return Client(open_server.http, answer["user_id"], answer["device_id"], answer["access_token"])


async def test_guests_join_where_they_may(host: Client, guest: Client) -> None:
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "public"}}
    room_id = await host.create_room(initial_state=[rules])
    await guest.join(room_id)
    await guest.send(room_id, "hello")
    await guest.send(room_id, {}, event_type="org.example")
    assert (await guest.messages(room_id))["chunk"]
    assert await guest.get(f"/rooms/{room_id}/state")
    await guest.leave(room_id)


async def test_guests_stay_out_elsewhere(host: Client, guest: Client) -> None:
    room_id = await host.create_room(preset="public_chat")
    with refused(403, "M_GUEST_ACCESS_FORBIDDEN"):
        await guest.join(room_id)
    with refused(403, "M_GUEST_ACCESS_FORBIDDEN"):
        await guest.set_state(room_id, "m.room.member", {"membership": "join"}, guest.user_id)
    await host.invite(room_id, guest.user_id)
    with refused(403, "M_GUEST_ACCESS_FORBIDDEN"):
        await guest.join(room_id)
    with refused(403, "M_GUEST_ACCESS_FORBIDDEN"):
        await guest.create_room()


@pytest.mark.parametrize("access", ["forbidden", None])
async def test_guests_go_when_a_room_is_closed_to_them(
    host: Client, guest: Client, access: str | None
) -> None:
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "public"}}
    room_id = await host.create_room(initial_state=[rules])
    await guest.join(room_id)
    await host.set_state(room_id, "m.room.guest_access", {"guest_access": "can_join", "a": 1})
    assert guest.user_id in (await host.get(f"/rooms/{room_id}/joined_members"))["joined"]
    await host.set_state(room_id, "m.room.guest_access", {"guest_access": access} if access else {})
    assert list((await host.get(f"/rooms/{room_id}/joined_members"))["joined"]) == [host.user_id]
    assert await guest.get(f"/rooms/{room_id}/state")


async def test_guests_read_what_all_the_world_may_read(host: Client, guest: Client) -> None:
    room_id = await host.create_room(preset="public_chat")
    await host.send(room_id, "secret")
    await host.set_state(room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    event_id = await host.send(room_id, "for all")
    page = await guest.messages(room_id, dir="f")
    assert [event["type"] for event in page["chunk"]] == ["m.room.history_visibility", "m.room.message"]
    assert (await guest.event(room_id, event_id))["content"]["body"] == "for all"
    assert (await guest.get(f"/rooms/{room_id}/context/{event_id}"))["event"]["event_id"] == event_id
    assert len(await guest.get(f"/rooms/{room_id}/state")) > 3
    assert len((await guest.get(f"/rooms/{room_id}/members"))["chunk"]) == 1
