"""matrix-js-sdk with its Rust crypto and matrix-nio with vodozemac, unmodified, in one encrypted room."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.clients.stage import (
    ROTATION,
    all_read,
    greet,
    know_each_other,
    nothing_is_unreadable,
    talk,
    verify,
)

if TYPE_CHECKING:
    from tests.clients.stage import Stage

pytestmark = pytest.mark.interop
_TURNS = 5
_AWAY_MESSAGES = 1_000
# The library looks for a backup, and for keys in it that are still on their way.
_MAY_BE_MISSING = "GET /_matrix/client/v3/room_keys/"


async def test_four_users_with_two_devices_each_verify_back_up_and_read_everything(
    stage_on_each_engine: Stage,
) -> None:
    js, nio = stage_on_each_engine.js, stage_on_each_engine.nio
    phone, bob, carol, dave = await asyncio.gather(
        js.register("alice", "alice's phone"),
        js.register("bob", "bob's phone"),
        nio.register("carol", "carol's phone"),
        js.register("dave", "dave's phone"),
    )
    recovery_key, *_ = await asyncio.gather(phone.bootstrap(), bob.bootstrap(), dave.bootstrap())
    laptop, bobs_laptop, carols_laptop, desk = await asyncio.gather(
        js.login("alice", "alice's laptop"),
        js.login("bob", "bob's laptop"),
        nio.login("carol", "carol's laptop"),
        nio.login("dave", "dave's desk"),
    )
    devices = [phone, laptop, bob, bobs_laptop, carol, carols_laptop, dave, desk]
    await asyncio.gather(verify(laptop, phone), verify(bobs_laptop, bob))
    await dave.cross_sign(desk.device_id)

    room_id = await phone.create_room([bob.user_id, carol.user_id, dave.user_id], ROTATION)
    await asyncio.gather(*(device.join(room_id) for device in (bob, carol, dave)))
    await know_each_other(devices)
    await verify(phone, bob, room_id)
    await verify(bob, dave, room_id)
    await verify(carol, desk)
    await verify(carols_laptop, carol)
    # Devices that never met trust each other, by the signatures of the verified users.
    await asyncio.gather(
        laptop.trusts(bob.user_id, bobs_laptop.device_id),
        bobs_laptop.trusts(phone.user_id, laptop.device_id),
        bobs_laptop.trusts(dave.user_id, desk.device_id),
    )

    said = await greet(room_id, devices)
    said |= await talk(room_id, devices, _TURNS)
    await all_read(room_id, devices, said)

    await phone.backed_up(room_id, list(said))
    tablet = await js.login("alice", "alice's tablet")
    assert await tablet.restore(recovery_key) > 0
    await all_read(room_id, [tablet], said)
    devices.append(tablet)
    await know_each_other(devices)

    # What waits for them is more than one answer holds: 100 to-device messages.
    away = [bobs_laptop, carols_laptop]
    await asyncio.gather(*(device.leave() for device in away))
    present = [phone, bob, carol, dave, desk]
    missed = await talk(room_id, present, _AWAY_MESSAGES // len(present))
    await asyncio.gather(*(device.come_back() for device in away))
    await all_read(room_id, devices, said | missed)
    await nothing_is_unreadable(room_id, devices)
    for device in (phone, laptop, bob, carol, dave, desk):
        assert await device.failures() == [], f"{device} could read it later only"
    for device in (phone, laptop, tablet, bob, bobs_laptop, dave):
        refused = [line for line in await device.refused() if not line.startswith(_MAY_BE_MISSING)]
        assert refused == [], device


async def test_a_dehydrated_device_is_sent_the_keys_while_its_user_has_no_other(stage: Stage) -> None:
    phone = await stage.js.register("alice", "alice's phone")
    bob = await stage.js.register("bob", "bob's phone")
    recovery_key = await phone.bootstrap()
    dehydrated = await phone.dehydrate()
    room_id = await phone.create_room([bob.user_id], ROTATION)
    await bob.join(room_id)
    await bob.knows(phone.user_id, [phone.device_id, dehydrated])
    await phone.log_out()
    await bob.knows(phone.user_id, [dehydrated])

    said = await talk(room_id, [bob], 2 * ROTATION)
    laptop = await stage.js.login("alice", "alice's laptop")
    assert await laptop.rehydrate(recovery_key) >= 2
    await all_read(room_id, [laptop], said)
    await nothing_is_unreadable(room_id, [laptop])


async def test_new_keys_for_cross_signing_need_the_password_and_end_the_trust_of_others(stage: Stage) -> None:
    phone = await stage.js.register("alice", "alice's phone")
    bob = await stage.js.register("bob", "bob's phone")
    await asyncio.gather(phone.bootstrap(), bob.bootstrap())
    room_id = await phone.create_room([bob.user_id], ROTATION)
    await bob.join(room_id)
    await know_each_other([phone, bob])
    await verify(phone, bob, room_id)

    assert await phone.reset_cross_signing() == ["m.login.password"]
    await bob.distrusts(phone.user_id)
    await verify(phone, bob, room_id)
    await all_read(room_id, [phone, bob], await talk(room_id, [phone, bob], _TURNS))
    await nothing_is_unreadable(room_id, [phone, bob])
