"""Two users with three devices talk; each device ends with the same room."""

from __future__ import annotations

import asyncio
import sys

from devices import PASSWORD, Device, assert_same_room, close, is_text, ok
from nio import LoginError, RedactedEvent, RoomPreset, WhoamiError

_TURNS = 30
_AT_ONCE = 20


async def main(url: str) -> None:
    """All of it, one step after the other."""
    phone, laptop, bob = Device(url, "alice"), Device(url, "alice"), Device(url, "bob")
    try:
        flows = ok(await phone.client.login_info()).flows
        assert "m.login.password" in flows, f"no login by password: {flows}"
        await phone.register("Phone")
        await bob.register("Desk")
        refused = await laptop.client.login("not " + PASSWORD)
        assert isinstance(refused, LoginError), "a wrong password was taken"
        assert refused.status_code == "M_FORBIDDEN", refused
        await laptop.login("Laptop")
        assert phone.client.device_id != laptop.client.device_id, "two devices have one id"
        async with phone.online(), laptop.online(), bob.online(timeline_limit=5):
            room_id = await meet(phone, laptop, bob)
            await talk(room_id, [phone, laptop, bob])
            await ephemera(room_id, phone, laptop, bob)
            await changes(room_id, phone, laptop, bob)
            await part(room_id, phone, laptop, bob)
        await log_out(phone, laptop)
    finally:
        await close(phone, laptop, bob)


async def meet(phone: Device, laptop: Device, bob: Device) -> str:
    """A room to which one invites the other."""
    created = ok(
        await phone.client.room_create(
            name="Tea", topic="Leaves", preset=RoomPreset.private_chat, invite=[bob.client.user_id]
        )
    )
    room_id = created.room_id
    await bob.until("the invitation", lambda: room_id in bob.client.invited_rooms)
    invitation = bob.client.invited_rooms[room_id]
    assert invitation.inviter == phone.client.user_id, f"invited by {invitation.inviter}"
    assert invitation.name == "Tea", f"the invitation names the room {invitation.name}"
    ok(await bob.client.join(room_id))
    for device in (phone, laptop, bob):
        await device.until(
            "both members",
            lambda rooms=device.client.rooms: room_id in rooms and rooms[room_id].joined_count == 2,
        )
        room = device.client.rooms[room_id]
        assert set(room.users) == {phone.client.user_id, bob.client.user_id}, room.users
        assert (room.name, room.topic, room.joined_count) == ("Tea", "Leaves", 2), vars(room)
    return room_id


async def talk(room_id: str, devices: list[Device]) -> None:
    """In turn, and all at once; one message is sent again, as after a lost answer."""
    sent = []
    for turn in range(_TURNS):
        sent.append(await devices[turn % len(devices)].say(room_id, f"turn {turn}"))

    async def hold_forth(speaker: Device, number: int) -> list[str]:
        return [await speaker.say(room_id, f"speaker {number}: {count}") for count in range(_AT_ONCE)]

    for spoken in await asyncio.gather(*(hold_forth(device, n) for n, device in enumerate(devices))):
        sent += spoken
    first = await devices[0].say(room_id, "once", transaction_id="again")
    second = await devices[0].say(room_id, "once", transaction_id="again")
    assert first == second, "a message that was sent again has another id"
    sent.append(first)
    for device in devices:
        await device.until_it_has(room_id, sent)
    truth = await devices[0].whole_room(room_id)
    for device in devices:
        assert_same_room(room_id, truth, device)
        texts = device.texts(room_id)
        assert texts[:_TURNS] == [f"turn {turn}" for turn in range(_TURNS)], texts
        for number in range(len(devices)):
            mine = [text for text in texts if text.startswith(f"speaker {number}:")]
            assert mine == [f"speaker {number}: {count}" for count in range(_AT_ONCE)], mine
        assert texts.count("once") == 1, "a message that was sent again is there twice"


async def ephemera(room_id: str, phone: Device, laptop: Device, bob: Device) -> None:
    """Typing, receipts, markers, unread counts."""
    alices, bobs = phone.client.rooms[room_id], bob.client.rooms[room_id]
    ok(await bob.client.room_typing(room_id, typing_state=True))
    await phone.until("typing", lambda: alices.typing_users == [bob.client.user_id])
    ok(await bob.client.room_typing(room_id, typing_state=False))
    await phone.until("the end of typing", lambda: alices.typing_users == [])
    last = await phone.say(room_id, "read this")
    await bob.until("an unread message", lambda: bobs.unread_notifications > 0)
    ok(await bob.client.room_read_markers(room_id, last, last))
    await bob.until("nothing unread", lambda: bobs.unread_notifications == 0)
    for device in (phone, laptop):
        receipts = device.client.rooms[room_id].read_receipts
        await device.until(
            "the receipt",
            lambda receipts=receipts: (
                bob.client.user_id in receipts and receipts[bob.client.user_id].event_id == last
            ),
        )
    ok(await phone.client.room_read_markers(room_id, last))
    await laptop.until(
        "the marker of the other device", lambda: laptop.client.rooms[room_id].fully_read_marker == last
    )


async def changes(room_id: str, phone: Device, laptop: Device, bob: Device) -> None:
    """State, names, redactions, single events and what is around them."""
    devices = (phone, laptop, bob)
    ok(await phone.client.room_put_state(room_id, "m.room.name", {"name": "Coffee"}))
    ok(await bob.client.set_displayname("Robert"))
    for device in devices:
        room = device.client.rooms[room_id]
        await device.until("the new name of the room", lambda room=room: room.name == "Coffee")
        await device.until(
            "the new name of a member", lambda room=room: room.user_name(bob.client.user_id) == "Robert"
        )
    secret = await bob.say(room_id, "a slip of the tongue")
    for device in devices:
        await device.until_it_has(room_id, [secret])
    fetched = ok(await phone.client.room_get_event(room_id, secret)).event
    assert is_text(fetched), fetched
    around = ok(await laptop.client.room_context(room_id, secret, limit=4))
    assert around.event.event_id == secret, around
    assert around.events_before, "nothing before the last message"
    redaction = ok(await bob.client.room_redact(room_id, secret, reason="oops")).event_id
    for device in devices:
        await device.until_it_has(room_id, [redaction])
    gone = ok(await phone.client.room_get_event(room_id, secret)).event
    assert isinstance(gone, RedactedEvent), f"the event is not redacted: {gone}"
    members = ok(await laptop.client.joined_members(room_id)).members
    assert {member.user_id: member.display_name for member in members} == {
        phone.client.user_id: "alice",
        bob.client.user_id: "Robert",
    }, members


async def part(room_id: str, phone: Device, laptop: Device, bob: Device) -> None:
    """Who leaves sees that, and nothing of what follows."""
    ok(await bob.client.room_leave(room_id))
    await bob.until("the end of the visit", lambda: room_id in bob.left)
    alone = await phone.say(room_id, "alone")
    for device in (phone, laptop):
        await device.until_it_has(room_id, [alone])
        assert bob.client.user_id not in device.client.rooms[room_id].users, "bob is still a member"
    public = ok(await phone.client.room_create(preset=RoomPreset.public_chat, alias="square")).room_id
    assert ok(await bob.client.join("#square:localhost")).room_id == public, "the alias leads elsewhere"
    here = await phone.say(public, "here")
    for device in (phone, laptop, bob):
        await device.until_it_has(public, [here])
    assert alone not in bob.ids(room_id), "bob was told what was said after he left"


async def log_out(phone: Device, laptop: Device) -> None:
    """The token of a device that is gone is worth nothing; the others go on."""
    token = laptop.client.access_token
    ok(await laptop.client.logout())
    laptop.client.access_token = token
    refused = await laptop.client.whoami()
    assert isinstance(refused, WhoamiError), "a token is good after the logout"
    assert refused.status_code == "M_UNKNOWN_TOKEN", refused
    ok(await phone.client.whoami())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
