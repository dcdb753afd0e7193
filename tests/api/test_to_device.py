"""Messages from device to device: kept byte for byte, in order, until the device has acknowledged them."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from homeserver.storage.to_device import MAX_BYTES, MAX_MESSAGES
from tests.client import Client, Refused, refused

if TYPE_CHECKING:
    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}
_numbers = itertools.count()


async def send(
    sender: Client,
    *recipients: Client,
    text: str | None = None,
    transaction: str | None = None,
    event_type: str = "m.test",
) -> str:
    """Send one text to some devices; the answer is the text."""
    text = text or f"text {next(_numbers)}"
    messages: dict[str, dict[str, Any]] = {}
    for recipient in recipients:
        messages.setdefault(recipient.user_id, {})[recipient.device_id] = {"text": text}
    await send_raw(sender, messages, transaction, event_type)
    return text


async def send_raw(
    sender: Client, messages: Any, transaction: str | None = None, event_type: str = "m.test"
) -> None:
    transaction = transaction or f"t{next(_numbers)}"
    path = f"/sendToDevice/{quote(event_type, safe='')}/{quote(transaction, safe='')}"
    assert await sender.put(path, {"messages": messages}) == {}


def texts(answer: dict[str, Any]) -> list[str]:
    return [event["content"]["text"] for event in answer.get("to_device", {}).get("events", ())]


async def waiting(server: Server) -> int:
    """How many messages are stored."""
    return await server.application.database.fetch_value("SELECT count(*) FROM to_device_messages") or 0


async def drain(device: Client, since: str | None = None) -> list[str]:
    """Everything that waits, each acknowledged by the next sync."""
    found: list[str] = []
    while True:
        answer = await device.sync(since)
        since = answer["next_batch"]
        if not texts(answer):
            return found
        found += texts(answer)


async def test_a_message_comes_with_its_type_and_sender_and_nothing_else(alice: Client, bob: Client) -> None:
    text = await send(alice, bob, event_type="org.example.ütype")
    assert (await bob.sync())["to_device"] == {
        "events": [{"type": "org.example.ütype", "sender": alice.user_id, "content": {"text": text}}]
    }


async def test_each_device_gets_what_was_sent_to_it_alone(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(bob, "PHONE")
    messages = {
        bob.user_id: {bob.device_id: {"text": "one"}, "PHONE": {"text": "two"}},
        alice.user_id: {alice.device_id: {"text": "three"}},
    }
    await send_raw(alice, messages)
    answers = [texts(await device.sync()) for device in (bob, phone, alice)]
    assert answers == [["one"], ["two"], ["three"]]


async def test_a_star_is_every_device_of_the_user_also_of_oneself(
    server: Server, alice: Client, bob: Client
) -> None:
    tablet = await server.login(alice, "TABLET")
    phone = await server.login(bob, "PHONE")
    await send_raw(alice, {bob.user_id: {"*": {"text": "all"}, "PHONE": {"text": "one"}}})
    await send_raw(alice, {alice.user_id: {"*": {"text": "own"}}})
    answers = [texts(await device.sync()) for device in (bob, phone, alice, tablet)]
    # "Only one message can be sent to each device per transaction."
    assert answers == [["all"], ["one"], ["own"], ["own"]]


async def test_what_nobody_can_get_is_passed_over(server: Server, alice: Client, bob: Client) -> None:
    content = {"text": "lost"}
    await send_raw(alice, {})
    await send_raw(alice, {bob.user_id: {}})
    await send_raw(
        alice,
        {
            "@nobody:example.org": {"*": content, "PHONE": content},
            "@carol:other.example": {"*": content},
            "not a user": {"*": content},
            "": {"": content},
            bob.user_id: {"UNKNOWN": content, "": content, bob.device_id: {"text": "found"}},
        },
    )
    assert await waiting(server) == 1
    assert texts(await bob.sync()) == ["found"]


CONTENT = (
    '{ "b":1.0,\t"a" : -0.0 , "b":"twice", "\\u00e4":"\\/ä😀\\ud83d\\ude00\\u0000",'
    '\n"n":[123456789012345678901234567890, 1E+2,0.10], "nested": {"z":{},"y": [ ]}\r\n}'
).encode()


async def test_a_content_comes_byte_for_byte_as_it_went(server: Server, alice: Client, bob: Client) -> None:
    body = (
        b'{"x":[{"messages":{}}],"\\u006dessages" : {"%b":\n{"%b" :  %b  , "UNKNOWN":{} } } , "y":{"z":1} }'
    ) % (bob.user_id.encode(), bob.device_id.encode(), CONTENT)
    await alice.call("PUT", "/sendToDevice/m.test/1", content=body)
    headers = {"Authorization": f"Bearer {bob.access_token}"}
    raw = (await server.http.get("/_matrix/client/v3/sync", headers=headers)).content
    assert b'{"type":"m.test","sender":"%b","content":%b}' % (alice.user_id.encode(), CONTENT) in raw


async def test_a_message_goes_once_the_device_returns_with_what_it_was_told_and_not_before(
    server: Server, alice: Client, bob: Client
) -> None:
    before = (await bob.sync())["next_batch"]
    text = await send(alice, bob)
    # The answers to these are lost on their way.
    for _ in range(3):
        assert texts(await bob.sync(before)) == [text]
        assert texts(await bob.sync()) == [text]
    answer = await bob.sync(before)
    assert await waiting(server) == 1
    assert texts(await bob.sync(answer["next_batch"])) == []
    assert await waiting(server) == 0
    # Now it is gone, whoever asks.
    assert texts(await bob.sync(before)) == []


async def test_only_what_an_answer_carried_is_acknowledged_by_its_token(
    server: Server, alice: Client, bob: Client
) -> None:
    first = await send(alice, bob)
    answer = await bob.sync()
    assert texts(answer) == [first]
    second = await send(alice, bob)
    # The log has moved on since, and the token of an answer without messages says so.
    answer = await bob.sync(answer["next_batch"], filter={"room": {"rooms": []}})
    assert texts(answer) == [second]
    third = await send(alice, bob)
    assert texts(await bob.sync(answer["next_batch"])) == [third]
    assert await waiting(server) == 1


async def test_two_syncs_from_one_token_get_the_same(alice: Client, bob: Client) -> None:
    since = (await bob.sync())["next_batch"]
    for _ in range(5):
        await send(alice, bob)
    one, two = await asyncio.gather(bob.sync(since), bob.sync(since))
    assert texts(one) == texts(two)
    assert len(texts(one)) == 5


async def test_a_token_of_another_device_acknowledges_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await server.login(bob, "PHONE")
    own = await send(alice, bob)
    other = await send(alice, phone)
    of_bob, of_phone = await bob.sync(), await phone.sync()
    of_alice = await alice.sync()
    for token in (of_phone["next_batch"], of_alice["next_batch"]):
        assert texts(await bob.sync(token)) == [own]
    assert texts(await phone.sync(of_bob["next_batch"])) == [other]
    assert await waiting(server) == 2
    # What it is given then is its own again.
    answer = await bob.sync(of_phone["next_batch"])
    assert texts(await bob.sync(answer["next_batch"])) == []
    assert await waiting(server) == 1


async def test_a_token_from_before_a_backup_was_restored_acknowledges_nothing(
    server: Server, alice: Client, bob: Client
) -> None:
    await send(alice, bob)
    answer = await bob.sync()
    await server.application.database.write(lambda t: t.execute("UPDATE server SET epoch = epoch + 1"))
    await server.restart()
    bob = server.reconnect(bob)
    again = await bob.sync(answer["next_batch"])
    assert texts(again) == texts(answer)
    assert texts(await bob.sync(again["next_batch"])) == []
    assert await waiting(server) == 0


async def test_a_repeated_transaction_id_sends_once(server: Server, alice: Client, bob: Client) -> None:
    await send(alice, bob, text="one", transaction="1")
    await send(alice, bob, text="again", transaction="1")
    assert await drain(bob) == ["one"]
    # Also after it was acknowledged, and after a restart.
    await server.restart()
    alice, bob = server.reconnect(alice), server.reconnect(bob)
    await send(alice, bob, text="and again", transaction="1")
    await asyncio.gather(*(send(alice, bob, text="at once", transaction="2") for _ in range(5)))
    assert await drain(bob) == ["at once"]
    # Another device, another type: another message.
    tablet = await server.login(alice, "TABLET")
    await send(tablet, bob, text="tablet", transaction="1")
    await send(alice, bob, text="other", transaction="1", event_type="m.other")
    assert await drain(bob) == ["tablet", "other"]


async def test_many_messages_come_in_order_a_hundred_at_a_time_and_at_once(
    alice: Client, bob: Client
) -> None:
    sent = [await send(alice, bob) for _ in range(2 * MAX_MESSAGES + 20)]
    await send(alice, alice)
    room_id = await alice.create_room()
    await alice.invite(room_id, bob.user_id)
    answers = [await bob.sync()]
    # What is put off does not hold up the rest.
    assert room_id in answers[0]["rooms"]["invite"]
    for _ in range(3):
        answers.append(await bob.sync(answers[-1]["next_batch"], timeout=0 if len(answers) > 2 else 60_000))
    assert [len(texts(answer)) for answer in answers] == [MAX_MESSAGES, MAX_MESSAGES, 20, 0]
    assert [text for answer in answers for text in texts(answer)] == sent


async def test_an_answer_does_not_grow_beyond_what_a_phone_can_fetch(alice: Client, bob: Client) -> None:
    large = "x" * 60_000
    for number in range(40):
        await send(alice, bob, text=f"{number} {large}")
    answers = [await bob.sync()]
    while texts(answers[-1]):
        answers.append(await bob.sync(answers[-1]["next_batch"]))
    sizes = [sum(map(len, texts(answer))) for answer in answers]
    assert MAX_BYTES - 100_000 < sizes[0] < MAX_BYTES
    found = [text.split()[0] for answer in answers for text in texts(answer)]
    assert found == [str(number) for number in range(40)]


async def test_a_waiting_sync_wakes_for_its_own_device_only(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await server.login(bob, "PHONE")
    polls = [
        asyncio.create_task(device.sync((await device.sync())["next_batch"], timeout=60_000))
        for device in (bob, phone)
    ]
    await server.until_waiting(2)
    text = await send(alice, phone)
    assert texts(await polls[1]) == [text]
    assert server.application.rooms.notifier.waiting == 1
    text = await send(alice, bob)
    assert texts(await polls[0]) == [text]


async def test_filters_hold_nothing_back(alice: Client, bob: Client) -> None:
    text = await send(alice, bob)
    nothing = {
        "account_data": {"types": []},
        "presence": {"types": []},
        "room": {"rooms": []},
        "event_fields": ["sender"],
        "not_senders": [alice.user_id],
    }
    assert texts(await bob.sync(filter=nothing)) == [text]


async def test_a_sync_where_nothing_waits_asks_the_database_nothing(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(alice, bob)
    answers = [await device.sync() for device in (alice, bob)]
    answers = [
        await device.sync(answer["next_batch"]) for device, answer in zip((alice, bob), answers, strict=True)
    ]
    database = server.application.database

    async def ask(*_: Any) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(database, "fetch_all", ask)
    monkeypatch.setattr(database, "write", ask)
    for device, answer in zip((alice, bob), answers, strict=True):
        await device.sync((await device.sync(answer["next_batch"]))["next_batch"])


async def test_what_comes_while_an_inbox_is_looked_up_is_not_missed(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = server.application.reading.inboxes._store
    look_up = store.get_ends
    sent = []

    async def look_up_slowly(*device: Any) -> Any:
        ends = await look_up(*device)
        if not sent:
            sent.append(await send(alice, bob))
        return ends

    monkeypatch.setattr(store, "get_ends", look_up_slowly)
    answer = await bob.sync()
    assert texts(answer) + texts(await bob.sync(answer["next_batch"])) == sent


async def test_what_comes_while_an_inbox_is_read_is_not_missed(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = server.application.reading.inboxes._store
    read = store.load_batch
    sent = [await send(alice, bob)]

    async def read_slowly(*device: Any, **limits: Any) -> Any:
        batch = await read(*device, **limits)
        if len(sent) == 1:
            sent.append(await send(alice, bob))
        return batch

    monkeypatch.setattr(store, "load_batch", read_slowly)
    answer = await bob.sync()
    assert texts(answer) == sent[:1]
    assert texts(await bob.sync(answer["next_batch"])) == sent[1:]


async def test_more_devices_than_are_kept_in_memory_get_what_is_theirs(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.sync.to_device._KEPT_INBOXES", 2)
    devices = [await server.login(alice, f"D{number}") for number in range(5)]
    tokens: list[str | None] = [None] * len(devices)
    for _ in range(3):
        sent = [await send(alice, device) for device in devices]
        answers = [await device.sync(since) for device, since in zip(devices, tokens, strict=True)]
        assert [texts(answer) for answer in answers] == [[text] for text in sent]
        tokens = [answer["next_batch"] for answer in answers]
    assert len(server.application.reading.inboxes._inboxes) == 2
    assert await waiting(server) == len(devices)


async def test_the_queue_goes_with_the_device(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(bob, "PHONE")
    for deed in ("logout", "delete"):
        await send(alice, bob, phone)
        await phone.sync()
        if deed == "logout":
            await phone.post("/logout")
        else:
            await bob.delete("/devices/PHONE", {"auth": AUTH})
        assert len(await drain(bob)) == 1
        assert await waiting(server) == 0
        # The next device with this name does not get what was sent to the last one.
        phone = await server.login(bob, "PHONE")
        assert texts(await phone.sync()) == []
    await send(alice, bob, phone)
    await bob.post("/account/deactivate", {"auth": AUTH})
    assert await waiting(server) == 0


async def test_messages_outlive_a_restart(server: Server, alice: Client, bob: Client) -> None:
    answer = await bob.sync()
    sent = [await send(alice, bob) for _ in range(3)]
    await server.restart()
    alice, bob = server.reconnect(alice), server.reconnect(bob)
    answer = await bob.sync(answer["next_batch"])
    assert texts(answer) == sent
    await server.restart()
    alice, bob = server.reconnect(alice), server.reconnect(bob)
    sent = [await send(alice, bob)]
    assert texts(await bob.sync(answer["next_batch"])) == sent
    assert await waiting(server) == 1


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (b"{}", "M_MISSING_PARAM"),
        (b"[]", "M_BAD_JSON"),
        (b'{"messages":[]}', "M_BAD_JSON"),
        (b'{"messages":null}', "M_BAD_JSON"),
        (b'{"messages":{"@a:b":[]}}', "M_BAD_JSON"),
        (b'{"messages":{"@a:b":{"D":[]}}}', "M_BAD_JSON"),
        (b'{"messages":{"@a:b":{"D":"{}"}}}', "M_BAD_JSON"),
        (b'{"messages":{"@a:b":{"D":null}}}', "M_BAD_JSON"),
        (b'{"messages":{"@a:b":{"D":{"a":"\xff"}}}}', "M_NOT_JSON"),
        (b'{"messages":{"@a:b":{"D":{"a":"\\ud800"}}}}', "M_NOT_JSON"),
        (b'{"messages":{"@a:b":{"D":{"a":01}}}}', "M_NOT_JSON"),
        (b'{"messages":{"@a:b":{"D":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}}}", "M_BAD_JSON"),
        (b'{"messages":{"@a:b":{"D":' + b'{"a":' * 2000 + b"1" + b"}" * 2000 + b"}}}", "M_NOT_JSON"),
    ],
)
async def test_what_is_no_message_is_refused(alice: Client, body: bytes, errcode: str) -> None:
    with refused(400, errcode):
        await alice.call("PUT", "/sendToDevice/m.test/1", content=body)


async def test_a_message_is_at_most_as_large_as_an_event(server: Server, alice: Client, bob: Client) -> None:
    frame = len('{"text": ""}')
    await send(alice, bob, text="x" * (65_536 - frame))
    with refused(413, "M_TOO_LARGE"):
        await send(alice, bob, text="x" * (65_537 - frame))
    with refused(413, "M_TOO_LARGE"):
        await send_raw(alice, {bob.user_id: {bob.device_id: {"text": "small"}, "X": {"text": "x" * 70_000}}})
    with refused(400, "M_INVALID_PARAM"):
        await send(alice, bob, event_type="x" * 256)
    assert await waiting(server) == 1


async def test_one_request_cannot_fill_the_disk(server: Server, alice: Client, bob: Client) -> None:
    for number in range(170):
        await server.login(bob, f"D{number}")
    with refused(413, "M_TOO_LARGE"):
        await send_raw(alice, {bob.user_id: {"*": {"text": "x" * 60_000}}})
    assert await waiting(server) == 0


async def test_a_body_holds_a_message_for_each_of_many_devices(server: Server, alice: Client) -> None:
    """As clients that share the key of a room send it: several hundred devices in one request."""
    devices = [await server.login(alice, f"D{number}") for number in range(250)]
    await send(alice, *devices, text="x" * 2_000)
    assert await waiting(server) == 250
    assert len(texts(await devices[17].sync())) == 1


async def test_a_guest_may_send(start_server: Any) -> None:
    server = await start_server(registration={"mode": "open", "allow_guests": True})
    alice = await server.register("alice")
    answer = await server.nobody().post("/register", {}, kind="guest")
    guest = Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])
    text = await send(guest, alice)
    assert texts(await alice.sync()) == [text]
    text = await send(alice, guest)
    assert texts(await guest.sync()) == [text]


async def test_nobody_sends_without_a_token(server: Server) -> None:
    with pytest.raises(Refused) as error:
        await server.nobody().put("/sendToDevice/m.test/1", {"messages": {}})
    assert (error.value.status, error.value.errcode) == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(
    ("number_of_devices", "number_of_messages"),
    [(10, 250), pytest.param(100, 1_000, marks=pytest.mark.soak)],
)
async def test_full_queues_of_many_devices_are_drained_in_order_while_more_comes(
    server: Server, alice: Client, number_of_devices: int, number_of_messages: int
) -> None:
    devices = [await server.login(alice, f"D{number}") for number in range(number_of_devices)]

    async def send_to_all(number: int) -> None:
        contents = {
            device.device_id: {"text": f"{number} to {device.device_id}", "padding": "x" * 1_000}
            for device in devices
        }
        await send_raw(alice, {alice.user_id: contents})

    for number in range(number_of_messages):
        await send_to_all(number)
    assert await waiting(server) == number_of_devices * number_of_messages
    late = [send_to_all(number_of_messages + number) for number in range(10)]
    found, *_ = await asyncio.gather(asyncio.gather(*(drain(device) for device in devices)), *late)
    for device, texts_found in zip(devices, found, strict=True):
        # Of what was sent meanwhile all that came before an empty answer.
        rest = await drain(device)
        all_texts = [*texts_found, *rest]
        assert len(all_texts) == number_of_messages + 10
        expected = [f"{number} to {device.device_id}" for number in range(number_of_messages)]
        assert all_texts[:number_of_messages] == expected
        assert set(all_texts[number_of_messages:]) == {
            f"{number_of_messages + number} to {device.device_id}" for number in range(10)
        }
    assert await waiting(server) == 0
