"""What goes wrong between people's devices and a server: nothing of it may cost a message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.clients.stage import ROTATION, all_read, greet, know_each_other, nothing_is_unreadable, talk

if TYPE_CHECKING:
    from tests.clients.actors import RemoteDevice
    from tests.clients.stage import Stage

pytestmark = pytest.mark.interop
_TURNS = 30


async def test_lost_answers_are_asked_for_again_and_cost_no_message(stage: Stage) -> None:
    phone = await stage.js.register("alice", "alice's phone", start=False)
    await phone.lose_answers("/keys/upload", 1)
    await phone.start()
    bob = await stage.js.register("bob", "bob's phone")
    for part in ("/keys/device_signing/upload", "/keys/signatures/upload", "/room_keys/version"):
        await phone.lose_answers(part, 1)
    await phone.bootstrap()
    room_id = await _room(phone, bob)
    for device in (phone, bob):
        await device.lose_answers("/keys/claim", 1)
    said = await greet(room_id, [phone, bob])
    for device in (phone, bob):
        for part in ("/sendToDevice/", "/sync", "PUT /_matrix/client/v3/room_keys/keys"):
            await device.lose_answers(part, 1)
    said |= await talk(room_id, [phone, bob], _TURNS)
    await all_read(room_id, [phone, bob], said)
    await phone.backed_up(room_id, list(said))
    assert await phone.failures() == await bob.failures() == []


async def test_a_device_that_logs_in_while_others_talk_reads_on_from_when_they_know_it(stage: Stage) -> None:
    js = stage.js
    phone, bob = await asyncio.gather(
        js.register("alice", "alice's phone"), js.register("bob", "bob's phone")
    )
    room_id = await _room(phone, bob)
    talking = asyncio.create_task(talk(room_id, [phone, bob], _TURNS))
    laptop, desk = await asyncio.gather(
        js.login("alice", "alice's laptop"), stage.nio.login("bob", "bob's desk")
    )
    devices = [phone, bob, laptop, desk]
    await know_each_other(devices)
    before = await talking
    await all_read(room_id, [phone, bob], before)
    after = await greet(room_id, devices)
    after |= await talk(room_id, devices, _TURNS)
    await all_read(room_id, devices, after)
    await nothing_is_unreadable(room_id, [phone, bob])


async def test_a_device_may_go_while_messages_are_on_the_way_to_it(stage: Stage) -> None:
    js, nio = stage.js, stage.nio
    phone, bob, carol = await asyncio.gather(
        js.register("alice", "alice's phone"),
        js.register("bob", "bob's phone"),
        nio.register("carol", "carol's phone"),
    )
    laptop = await nio.login("carol", "carol's laptop")
    tablet = await js.login("bob", "bob's tablet")
    room_id = await _room(phone, bob, carol)
    staying = [phone, bob, carol]
    await know_each_other([*staying, laptop, tablet])
    said = await greet(room_id, [*staying, laptop, tablet])
    talking = asyncio.create_task(talk(room_id, staying, _TURNS))
    await asyncio.gather(laptop.log_out(), tablet.log_out())
    said |= await talking
    await know_each_other(staying)
    said |= await talk(room_id, staying, _TURNS)
    await all_read(room_id, staying, said)
    await nothing_is_unreadable(room_id, staying)


async def test_a_program_that_crashed_comes_back_with_an_old_token_and_reads_everything(stage: Stage) -> None:
    js = stage.js
    phone, bob = await asyncio.gather(
        js.register("alice", "alice's phone"), js.register("bob", "bob's phone")
    )
    room_id = await _room(phone, bob)
    await bob.save()
    said = await talk(room_id, [phone, bob], _TURNS)
    await all_read(room_id, [bob], said)
    await bob.stop()
    said |= await talk(room_id, [phone], _TURNS)
    await bob.come_back()
    said |= await talk(room_id, [phone, bob], _TURNS)
    await all_read(room_id, [phone, bob], said)
    await nothing_is_unreadable(room_id, [phone, bob])


async def test_a_server_that_is_killed_loses_no_key_of_a_message(stage_on_each_engine: Stage) -> None:
    js, server = stage_on_each_engine.js, stage_on_each_engine.server
    phone, bob = await asyncio.gather(
        js.register("alice", "alice's phone"), js.register("bob", "bob's phone")
    )
    room_id = await _room(phone, bob)
    said: dict[str, str] = {}
    for _ in range(3):
        talking = asyncio.create_task(talk(room_id, [phone, bob], _TURNS))
        await phone.has_heard(room_id, bob.user_id)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await asyncio.gather(phone.find_network(), bob.find_network())
        said |= await talking
    await all_read(room_id, [phone, bob], said)
    await nothing_is_unreadable(room_id, [phone, bob])


async def _room(creator: RemoteDevice, *others: RemoteDevice) -> str:
    """An encrypted room of the users of these devices, whose keys change often."""
    room_id = await creator.create_room([device.user_id for device in others], ROTATION)
    for device in others:
        await device.join(room_id)
    return room_id
