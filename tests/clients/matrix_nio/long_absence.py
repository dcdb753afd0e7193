"""A device is away while 500 messages are sent in five rooms, and comes back while people still talk."""

from __future__ import annotations

import asyncio
import sys

from devices import Device, assert_same_room, close, ok
from nio import RoomPreset

_ROOMS = 5
_MESSAGES = 100
_MORE = 10
_TIMELINE = 20


async def main(url: str) -> None:
    """All of it, one step after the other."""
    phone, laptop, bob = Device(url, "alice"), Device(url, "alice"), Device(url, "bob")
    await phone.register("Phone")
    await bob.register("Desk")
    await laptop.login("Laptop")
    returned: Device | None = None
    try:
        rooms = await prepare(phone, laptop, bob)
        sent = await speak(rooms, phone, bob, range(_MESSAGES))
        returned = laptop.after_restart()
        async with returned.online(timeline_limit=_TIMELINE):
            later = await speak(rooms, phone, bob, range(_MESSAGES, _MESSAGES + _MORE))
            for room_id in rooms:
                await returned.until_it_has(room_id, sent[room_id] + later[room_id])
        assert returned.gaps >= _ROOMS, f"{returned.gaps} timelines of {_ROOMS} or more were limited"
        for room_id in rooms:
            assert_same_room(room_id, await phone.whole_room(room_id), returned)
            expected = ["before", *(f"message {number}" for number in range(_MESSAGES + _MORE))]
            assert returned.texts(room_id) == expected, returned.texts(room_id)
    finally:
        await close(phone, laptop, bob, *([returned] if returned is not None else []))


async def prepare(phone: Device, laptop: Device, bob: Device) -> list[str]:
    """Rooms of both users, with something in them that the device has seen before it goes."""
    rooms = []
    async with laptop.online():
        for number in range(_ROOMS):
            created = ok(await phone.client.room_create(name=f"Room {number}", preset=RoomPreset.public_chat))
            ok(await bob.client.join(created.room_id))
            rooms.append(created.room_id)
        for room_id in rooms:
            await laptop.until_it_has(room_id, [await bob.say(room_id, "before")])
    return rooms


async def speak(rooms: list[str], phone: Device, bob: Device, numbers: range) -> dict[str, list[str]]:
    """In all rooms at once, and within a room in turn."""

    async def converse(room_id: str) -> list[str]:
        return [await (phone, bob)[number % 2].say(room_id, f"message {number}") for number in numbers]

    return dict(zip(rooms, await asyncio.gather(*map(converse, rooms)), strict=True))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
