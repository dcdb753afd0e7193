"""matrix-nio and matrix-js-sdk, unmodified, in encrypted rooms of two servers: one of ours, and Synapse."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from tests.interop.devices import Ends, residents, set_up, unique
from tests.keys import claim_one, query
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
    from pathlib import Path

    import trustme

    from tests.client import Client
    from tests.clients.actors import Actor, RemoteDevice
    from tests.interop.people import Somebody
    from tests.interop.synapse import Synapse

pytestmark = pytest.mark.interop
_TURNS = 6
_ROUNDS = 12
_both_js = pytest.mark.parametrize("ends", [("js", "js")], ids="-".join, indirect=True)
"""matrix-nio has neither fallback keys nor cross-signing."""
_js_here_in_the_soak = pytest.mark.parametrize(
    "ends",
    [("nio", "js"), pytest.param(("js", "nio"), marks=pytest.mark.soak)],
    ids="-".join,
    indirect=True,
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("encryption"), authority=authority) as server:
        yield server


@pytest.fixture(params=[("nio", "js"), ("js", "nio")], ids="-".join)
async def ends(
    request: pytest.FixtureRequest, tmp_path: Path, ours: ServerProcess, synapse: Synapse
) -> AsyncIterator[Ends]:
    here, there = request.param
    async with set_up(tmp_path, ours, synapse, here=here, there=there) as made:
        yield made


async def _room(host: RemoteDevice, guest: RemoteDevice) -> str:
    """An encrypted room of two users, whose keys change often."""
    room_id: str = await host.create_room([guest.user_id], ROTATION)
    await guest.join(room_id)
    await host.sees_member(room_id, guest.user_id, True)
    return room_id


async def test_devices_come_and_go_on_both_servers(ends: Ends) -> None:
    alice, bob = unique("alice"), unique("bob")
    phone, desk = await asyncio.gather(
        ends.here.register(alice, "alice's phone"), ends.there.register(bob, "bob's desk")
    )
    rooms = [await _room(phone, desk), await _room(desk, phone)]
    devices = [phone, desk]
    await know_each_other(devices)
    for room_id in rooms:
        await greet(room_id, devices)

    laptop, tablet = await asyncio.gather(
        ends.here.login(alice, "alice's laptop"), ends.there.login(bob, "bob's tablet")
    )
    devices += [laptop, tablet]
    await know_each_other(devices)
    for room_id in rooms:
        said = await greet(room_id, devices)
        said |= await talk(room_id, devices, _TURNS)
        await all_read(room_id, devices, said)

    await laptop.log_out()
    await desk.delete_device(tablet.device_id)
    devices = [phone, desk]
    await know_each_other(devices)
    for room_id in rooms:
        for one, other in ((phone, desk), (desk, phone)):
            told = await one.say_with_keys(room_id, f"only for us, says {one}")
            assert told == [[other.user_id, other.device_id]]
        await all_read(room_id, devices, await talk(room_id, devices, _TURNS))
        await nothing_is_unreadable(room_id, devices)
    # Synapse takes in events beside the messages to devices that came with them; here the keys come first.
    assert await phone.failures() == []


@_js_here_in_the_soak
async def test_who_leaves_is_not_written_for_and_who_comes_back_is_with_all_devices(ends: Ends) -> None:
    alice, bob = unique("alice"), unique("bob")
    phone, desk = await asyncio.gather(
        ends.here.register(alice, "alice's phone"), ends.there.register(bob, "bob's desk")
    )
    for host, guest, guests_side, guests_name in (
        (phone, desk, ends.there, bob),
        (desk, phone, ends.here, alice),
    ):
        room_id = await _room(host, guest)
        await know_each_other([host, guest])
        await greet(room_id, [host, guest])
        first = await host.say(room_id, "together")
        # They have no other room in common: nobody tells the one of the other's devices.
        await guest.leave_room(room_id)
        await host.sees_member(room_id, guest.user_id, False)
        assert await host.say_with_keys(room_id, "alone") == []
        alone = await host.say(room_id, "still alone")
        another = await guests_side.login(guests_name, f"{guest}, another")

        await host.invite(room_id, guest.user_id)
        await guest.join(room_id)
        await host.sees_member(room_id, guest.user_id, True)
        devices = [host, guest, another]
        await know_each_other(devices)
        said = await greet(room_id, devices)
        keys = [await host.session_of(room_id, event_id) for event_id in (first, alone, next(iter(said)))]
        assert len(set(keys)) == 3
        said |= await talk(room_id, devices, _TURNS)
        await all_read(room_id, devices, said)
        await another.log_out()
        await guest.leave_room(room_id)
        await host.sees_member(room_id, guest.user_id, False)


@_both_js
async def test_users_verify_each_other_and_see_when_one_has_new_keys(ends: Ends) -> None:
    bob = unique("bob")
    phone, desk = await asyncio.gather(
        ends.here.register(unique("alice"), "alice's phone"), ends.there.register(bob, "bob's desk")
    )
    await asyncio.gather(phone.bootstrap(), desk.bootstrap())
    room_id = await _room(phone, desk)
    await know_each_other([phone, desk])
    await verify(phone, desk, room_id)

    # A device that its owner has signed is trusted by who has verified the owner, and has not met the device.
    tablet = await ends.there.login(bob, "bob's tablet")
    await desk.cross_sign(tablet.device_id)
    await phone.trusts(desk.user_id, tablet.device_id)
    async with residents(ends) as askers:
        for device in (phone, desk):
            seen = [_published(await query(asker.client, device.user_id), device.user_id) for asker in askers]
            assert seen[0] == seen[1]
            assert seen[0].keys() == {"device_keys", "master_keys", "self_signing_keys"}

    for one, other in ((phone, desk), (desk, phone)):
        assert await one.reset_cross_signing() == ["m.login.password"]
        await other.distrusts(one.user_id)
        # Not in the room: a device that came after a verification there, and saw it in the history, cancels the next.
        await verify(one, other)
        await all_read(room_id, [phone, desk], await talk(room_id, [phone, desk], _TURNS))
    await nothing_is_unreadable(room_id, [phone, desk])


def _published(answer: dict[str, Any], user_id: str) -> dict[str, Any]:
    """What `/keys/query` answers of a user, without what is not signed."""
    of_user = {name: by_user[user_id] for name, by_user in answer.items() if user_id in by_user}
    for device in of_user["device_keys"].values():
        device.pop("unsigned", None)
    return of_user


@_both_js
async def test_when_its_one_time_keys_are_used_up_a_device_is_written_to_by_its_fallback_key(
    ends: Ends,
) -> None:
    phone, desk = await asyncio.gather(
        ends.here.register(unique("alice"), "alice's phone"), ends.there.register(unique("bob"), "bob's desk")
    )
    async with residents(ends) as (here, there):
        for away, writer, asker in ((phone, desk, there.client), (desk, phone, here.client)):
            room_id = await _room(writer, away)
            await know_each_other([phone, desk])
            await away.leave()
            *one_time, fallback = await _use_up(asker, away)
            assert one_time
            said = {await writer.say(room_id, "by the fallback key"): "by the fallback key"}
            await away.come_back()
            await all_read(room_id, [away], said)
            fresh = fallback
            while fresh == fallback:
                fresh = await _claim(asker, away)
            assert fresh not in one_time
            await all_read(room_id, [phone, desk], await greet(room_id, [phone, desk]))


async def _use_up(asker: Client, device: RemoteDevice) -> list[str]:
    """Claim keys of a device until one comes for the second time: the fallback key."""
    keys: list[str] = []
    while (key := await _claim(asker, device)) not in keys:
        keys.append(key)
    assert key == keys[-1]
    return keys


async def _claim(asker: Client, device: RemoteDevice) -> str:
    claimed = await claim_one(asker, replace(asker, user_id=device.user_id, device_id=device.device_id))
    assert claimed is not None
    name, key = claimed
    assert name.startswith("signed_curve25519:")
    return str(key["key"])


@pytest.mark.parametrize("ends", [("nio", "js")], ids="-".join, indirect=True)
async def test_a_server_that_is_killed_costs_no_message_and_no_key(ends: Ends) -> None:
    alice = unique("alice")
    phone, desk = await asyncio.gather(
        ends.here.register(alice, "alice's phone"), ends.there.register(unique("bob"), "bob's desk")
    )
    room_id = await _room(phone, desk)
    await know_each_other([phone, desk])
    said = await greet(room_id, [phone, desk])
    async with residents(ends) as (here, there):
        await asyncio.to_thread(ends.synapse.kill)
        try:
            laptop = await ends.here.login(alice, "alice's laptop")
            await phone.knows_device(phone.user_id, laptop.device_id)
            said |= await talk(room_id, [phone], _TURNS)
            await _send_to_device(here, there, range(10))
        finally:
            await asyncio.to_thread(ends.synapse.start)
        await _send_to_device(here, there, range(10, 20))
        await desk.find_network()
        await all_read(room_id, [phone, desk], said)
        await _was_sent(there, 20)
        devices = [phone, desk, laptop]
        await know_each_other(devices)
        later = await greet(room_id, devices)

        # matrix-nio does not bear the end of a connection.
        await asyncio.gather(phone.leave(), laptop.leave())
        await asyncio.to_thread(ends.ours.kill)
        later |= await talk(room_id, [desk], _TURNS)
        await _send_to_device(there, here, range(10))
        await asyncio.to_thread(ends.ours.start)
        await _send_to_device(there, here, range(10, 20))
        await asyncio.gather(phone.come_back(), laptop.come_back())
        # Synapse looks for a server that is back once a minute, unless that calls.
        later |= await talk(room_id, [phone, laptop], _TURNS)
        await all_read(room_id, devices, later)
        await all_read(room_id, [phone, desk], said)
        await _was_sent(here, 20)


async def _send_to_device(sender: Somebody, receiver: Somebody, numbers: Iterable[int]) -> None:
    for number in numbers:
        messages = {receiver.user_id: {receiver.client.device_id: {"number": number}}}
        await sender.client.put(f"/sendToDevice/org.example.test/{number}", {"messages": messages})


async def _was_sent(receiver: Somebody, count: int) -> None:
    async def has_all() -> bool:
        return len(receiver.to_device) >= count

    await receiver.until(has_all, "messages to the device")
    await receiver.sync()
    assert [message["content"]["number"] for message in receiver.to_device] == list(range(count))


@pytest.mark.soak
async def test_devices_come_and_go_for_long_while_servers_are_killed(ends: Ends) -> None:
    dice = random.Random(4)
    names = [(ends.here, unique("alice")), (ends.there, unique("bob")), (ends.here, unique("carol"))]
    devices = {name: [await actor.register(name, f"{name} 0")] for actor, name in names}
    (host,), *guests = devices.values()
    room_id = await host.create_room([guest.user_id for (guest,) in guests], ROTATION)
    for (guest,) in guests:
        await guest.join(room_id)
    for number in range(1, _ROUNDS):
        actor, name = dice.choice(names)
        of_user = devices[name]
        if dice.random() < 0.3:
            away = [one for side, user in names if side is actor for one in devices[user]]
            present = [one for side, user in names if side is not actor for one in devices[user]]
            await _kill(ends, actor, away, present, room_id)
        elif len(of_user) < 3 and dice.random() < 0.6:
            of_user.append(await actor.login(name, f"{name} {number}"))
        elif len(of_user) > 1:
            await of_user.pop(dice.randrange(len(of_user))).log_out()
        everyone = [one for several in devices.values() for one in several]
        await know_each_other(everyone)
        said = await greet(room_id, everyone)
        said |= await talk(room_id, everyone, _TURNS)
        await all_read(room_id, everyone, said)


async def _kill(
    ends: Ends, side: Actor, away: Sequence[RemoteDevice], present: Sequence[RemoteDevice], room_id: str
) -> None:
    """Kill the server of some devices while others talk; then they read it."""
    server = ends.ours if side is ends.here else ends.synapse
    await asyncio.gather(*(device.leave() for device in away))
    await asyncio.to_thread(server.kill)
    try:
        said = await talk(room_id, present, _TURNS)
    finally:
        await asyncio.to_thread(server.start)
    await asyncio.gather(*(device.come_back() for device in away))
    said |= await greet(room_id, [*away, *present])
    await all_read(room_id, [*away, *present], said)
