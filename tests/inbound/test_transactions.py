"""Transactions of other servers: every event and every message is judged by itself, taken in once, and kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.ids import ServerName
from homeserver.rooms.hosted_rooms import HostedRooms
from homeserver.services.inbound.edus import InboundEdus
from homeserver.services.inbound.queues import RoomQueues
from homeserver.services.inbound.transactions import InboundTransactions
from homeserver.storage.memberships import MembershipStore
from homeserver.storage.staged_events import StagedEventStore
from homeserver.storage.stored_event import Status
from tests.client import bodies
from tests.eventgraph.rooms import BOB, CHARLIE, Room, public_room
from tests.inbound.foreign_rooms import EverybodySigns, ForeignRoom, Resident

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, RoomId, UserId
    from tests.client import Client
    from tests.server import Server

TWO = ServerName("two.example")


class Signed(EverybodySigns):
    """All signatures are right but those of some events."""

    def __init__(self) -> None:
        self.forged: set[EventId] = set()

    async def rightly_signed(self, events: Collection[Event], checked: object = None) -> set[EventId]:
        return {event.event_id for event in events} - self.forged


class NoDevices:
    async def device_list_update(self, content: dict[str, Any], user_id: UserId) -> None: ...

    async def signing_key_update(self, content: dict[str, Any], user_id: UserId) -> None: ...


class Told:
    """What another server may tell a server, of a room that Alice has come into."""

    def __init__(self, server: Server, room: Room) -> None:
        self.server = server
        self.room = room
        self.foreign = ForeignRoom(server, room)
        self.signatures = Signed()
        self.resident = Resident(room)
        application = server.application
        self.queues = RoomQueues(
            application.database,
            StagedEventStore(application.database),
            application.rooms.live,
            self.foreign.filler,
            self,
        )
        self.transactions = InboundTransactions(
            application.rooms.live,
            HostedRooms(
                ServerName("example.org"),
                application.rooms.live,
                MembershipStore(application.database),
                application.stores.room_servers,
            ),
            application.inbound.ends,
            self.signatures,
            application.inbound.events,
            self.queues,
            application.inbound.policy,
            InboundEdus(
                ServerName("example.org"),
                application.clock,
                application.rooms.live,
                application.people.typing,
                application.people.receipts,
                application.people.delivery_receipts,
                application.people.presence,
                application.people.to_device,
                NoDevices(),
            ),
            application.metrics.event_received,
        )

    def of(self, room_id: RoomId, origin: ServerName) -> Resident:
        return self.resident

    def of_any(self, room_id: RoomId) -> Resident:
        return self.resident

    async def send(self, *events: Event, origin: ServerName = TWO) -> dict[EventId, dict[str, str]]:
        return await self.transactions.receive(origin, [event.pdu for event in events], [])

    async def edu(self, edu_type: str, content: dict[str, Any], *, origin: ServerName = TWO) -> None:
        await self.transactions.receive(origin, [], [{"edu_type": edu_type, "content": content}])

    def message(self, body: str, **options: Any) -> Event:
        return self.room.send("m.room.message", BOB, {"msgtype": "m.text", "body": body}, **options)


@pytest.fixture
async def told(start_server) -> AsyncIterator[Told]:
    server = await start_server(presence={"enabled": True})
    alice = await server.register("alice")
    room = public_room("11", BOB, users={BOB: 50})
    told = Told(server, room)
    await told.foreign.arrive(room.join(alice.user_id))
    told.alice = alice
    yield told
    await told.queues.stop()


def in_room(answer: dict[str, Any], told: Told, part: str = "timeline") -> list[dict[str, Any]]:
    return answer.get("rooms", {}).get("join", {}).get(told.room.room_id, {}).get(part, {}).get("events", [])


async def test_a_room_that_alice_has_come_into_is_in_her_sync(told: Told) -> None:
    alice: Client = told.alice
    answer = await alice.sync()
    section = answer["rooms"]["join"][told.room.room_id]
    assert section["timeline"]["events"][-1]["content"] == {"membership": "join"}
    types = {event["type"] for event in section["state"]["events"]}
    assert {"m.room.create", "m.room.power_levels", "m.room.join_rules", "m.room.member"} <= types
    assert section["summary"]["m.joined_member_count"] == 3


async def test_messages_come_once_and_in_order(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    sent = [told.message(str(number)) for number in range(8)]
    assert await told.send(*sent[:5]) == {event.event_id: {} for event in sent[:5]}
    await told.send(*sent)
    assert bodies(in_room(await alice.sync(since=since), told)) == [str(number) for number in range(8)]


async def test_what_follows_one_another_is_committed_together(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    persistence = told.server.application.writing.room_writes._persistence
    commit, sizes = persistence.commit, []

    async def count(writes: Any) -> Any:
        sizes.append(len(writes))
        return await commit(writes)

    monkeypatch.setattr(persistence, "commit", count)
    await told.send(*(told.message(str(number)) for number in range(20)))
    assert sum(sizes) == 20
    # The first may be on its way before the others are there.
    assert len(sizes) <= 2


async def test_events_of_one_transaction_depend_on_each_other(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    root, doomed = told.message("root"), told.message("doomed")
    reply = relating(told, "m.thread", root)
    reference = relating(told, "m.reference", reply)
    redaction = told.room.send("m.room.redaction", BOB, {"redacts": doomed.event_id})
    topic = told.room.send("m.room.topic", BOB, {"topic": "Tea"}, state_key="")
    after = told.message("after")
    sent = [root, doomed, reply, reference, redaction, topic, after]
    assert await told.send(*sent) == {event.event_id: {} for event in sent}
    seen = in_room(await alice.sync(since=since), told)
    assert [event["event_id"] for event in seen] == [event.event_id for event in sent]
    assert seen[1]["content"] == {}
    events = told.server.application.stores.events
    threads = [(await events.get(event.event_id)).thread_root for event in sent]
    assert threads == [None, None, root.event_id, root.event_id, None, None, None]


async def test_an_invite_that_was_noted_while_we_came_in_comes_again_with_what_follows_it(told: Told) -> None:
    carol = await told.server.register("carol")
    invite = told.room.set_member(BOB, carol.user_id, "invite")
    await told.server.application.inbound.elsewhere.note(told.room.version, invite)
    after = told.message("after")
    assert await told.send(invite, after) == {invite.event_id: {}, after.event_id: {}}
    assert told.room.room_id in (await carol.sync())["rooms"]["invite"]
    stored = await told.server.application.stores.events.get(invite.event_id)
    assert stored.status is Status.TIMELINE


async def test_who_has_left_in_a_transaction_says_no_more_in_it(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    first, leave = told.message("bye"), told.room.set_member(BOB, BOB, "leave")
    late = told.message("and another thing")
    answer = await told.send(first, leave, late)
    assert "error" in answer.pop(late.event_id)
    assert answer == {first.event_id: {}, leave.event_id: {}}
    seen = [event["event_id"] for event in in_room(await alice.sync(since=since), told)]
    assert seen == [first.event_id, leave.event_id]


def relating(told: Told, relation: str, to: Event) -> Event:
    content = {"body": relation, "m.relates_to": {"rel_type": relation, "event_id": to.event_id}}
    return told.room.send("m.room.message", BOB, content)


async def test_one_that_is_wrong_does_not_stop_the_others(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    first, forged = told.message("first"), told.message("forged")
    fork = told.message("third", prev=[first])
    told.signatures.forged.add(forged.event_id)
    outsider = told.room.send("m.room.message", CHARLIE, {"body": "not in the room"}, prev=[fork])
    garbage: list[Any] = [
        {"room_id": told.room.room_id},
        "text",
        {"room_id": 5},
        {**first.pdu, "depth": "deep"},
    ]
    pdus = [first.pdu, *garbage, forged.pdu, outsider.pdu, fork.pdu]
    answer = await told.transactions.receive(TWO, pdus, [])
    assert answer[first.event_id] == answer[fork.event_id] == {}
    assert "error" in answer[forged.event_id]
    assert bodies(in_room(await alice.sync(since=since), told)) == ["first", "third"]
    assert counted(told) == {"taken": 2, "wrongly_signed": 1, "waiting": 1, "malformed": 2}


def counted(told: Told) -> dict[str, float]:
    """What became of the events that came."""
    (family,) = told.server.application.metrics.events_received.collect()
    return {
        one.labels["outcome"]: one.value
        for one in family.samples
        if one.name.endswith("_total") and one.value
    }


async def test_a_server_that_the_room_denies_is_not_heard(told: Told) -> None:
    alice = told.alice
    acl = {"allow": ["*"], "deny": ["*.EXAMPLE"], "allow_ip_literals": True}
    await told.send(told.room.send("m.room.server_acl", BOB, acl, state_key=""))
    since = (await alice.sync())["next_batch"]
    message = told.message("let me in")
    assert "error" in (await told.send(message))[message.event_id]
    assert counted(told) == {"taken": 1, "denied": 1}
    await told.edu("m.typing", {"room_id": told.room.room_id, "user_id": BOB, "typing": True})
    assert "rooms" not in await alice.sync(since=since)


async def test_a_room_that_everybody_has_left_takes_nothing_in(told: Told) -> None:
    alice = told.alice
    await alice.post(f"/rooms/{told.room.room_id}/leave")
    message = told.message("is anybody there?")
    assert "error" in (await told.send(message))[message.event_id]
    assert counted(told) == {"not_here": 1}


async def test_a_late_event_waits_in_its_room_and_survives_a_restart(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    sent = [told.message(str(number)) for number in range(5)]
    told.queues._stopping = True
    assert await told.send(sent[-1]) == {sent[-1].event_id: {}}
    assert counted(told) == {"waiting": 1}
    assert "rooms" not in await alice.sync(since=since)
    again = Told(told.server, told.room)
    await again.queues.start()
    answer = await alice.sync(since=since, timeout=30_000)
    texts = bodies(in_room(answer, told))
    while len(texts) < 5:
        answer = await alice.sync(since=answer["next_batch"], timeout=30_000)
        texts += bodies(in_room(answer, told))
    assert texts == [str(number) for number in range(5)]
    await again.queues.stop()


async def test_typing_and_receipts_of_others(told: Told) -> None:
    alice, room_id = told.alice, told.room.room_id
    event_id = await alice.send(room_id, "hello")
    since = (await alice.sync())["next_batch"]
    await told.edu("m.typing", {"room_id": room_id, "user_id": BOB, "typing": True})
    receipt = {"event_ids": [event_id], "data": {"ts": 5}}
    await told.edu("m.receipt", {room_id: {"m.read": {BOB: receipt, alice.user_id: receipt}}})
    ephemeral = {
        event["type"]: event["content"] for event in in_room(await alice.sync(since=since), told, "ephemeral")
    }
    assert ephemeral == {
        "m.typing": {"user_ids": [BOB]},
        "m.receipt": {event_id: {"m.read": {BOB: {"ts": 5}}}},
    }
    await told.edu("m.typing", {"room_id": room_id, "user_id": BOB, "typing": False})
    await told.edu(
        "m.typing",
        {"room_id": room_id, "user_id": CHARLIE, "typing": True},
        origin=ServerName("three.example"),
    )
    told_after = in_room(await alice.sync(since=since), told, "ephemeral")
    assert {"type": "m.typing", "content": {"user_ids": []}} in told_after


async def test_presence_of_others(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    push = {
        "user_id": BOB,
        "presence": "online",
        "status_msg": "here",
        "last_active_ago": 0,
        "currently_active": True,
    }
    await told.edu("m.presence", {"push": [push, {**push, "user_id": alice.user_id, "status_msg": "a lie"}]})
    (seen,) = [
        event for event in (await alice.sync(since=since))["presence"]["events"] if event["sender"] == BOB
    ]
    assert seen["content"]["presence"] == "online"
    assert seen["content"]["status_msg"] == "here"
    assert (await alice.get(f"/presence/{alice.user_id}/status")).get("status_msg") != "a lie"


async def test_who_is_not_heard_of_for_an_hour_is_offline(told: Told) -> None:
    clock = told.server.clock

    async def state_after(minutes: int) -> str:
        clock.offset_ms += minutes * 60_000
        await told.server.application.people.presence.sweep()
        status = await told.server.reconnect(told.alice).get(f"/presence/{BOB}/status")
        return str(status["presence"])

    push = {"user_id": BOB, "presence": "unavailable", "last_active_ago": 3_600_000}
    await told.edu("m.presence", {"push": [push]})
    assert await state_after(50) == "unavailable"
    # Their server says it again every now and then, also if there is nothing new.
    await told.edu("m.presence", {"push": [{**push, "last_active_ago": 110 * 60_000}]})
    assert await state_after(50) == "unavailable"
    await told.server.restart()
    assert await state_after(50) == "unavailable"
    assert await state_after(50) == "offline"


async def test_messages_to_devices_come_once_whoever_repeats_them(told: Told) -> None:
    alice = told.alice
    content = {
        "sender": BOB,
        "type": "m.test",
        "message_id": "one",
        "messages": {
            alice.user_id: {"*": {"text": "secret"}},
            "@nobody:example.org": {"*": {}},
            BOB: {"*": {}},
        },
    }
    await told.edu("m.direct_to_device", content)
    await told.edu("m.direct_to_device", content)
    await told.edu("m.direct_to_device", {**content, "sender": alice.user_id, "message_id": "two"})
    assert (await alice.sync())["to_device"]["events"] == [
        {"type": "m.test", "sender": BOB, "content": {"text": "secret"}}
    ]


async def test_messages_to_devices_of_one_transaction_come_in_its_order(told: Told) -> None:
    alice = told.alice
    edus = [
        {
            "edu_type": "m.direct_to_device",
            "content": {
                "sender": BOB,
                "type": "m.test",
                "message_id": str(number),
                # Some are for devices that are not there.
                "messages": {alice.user_id: {"*" if number % 3 else "NOWHERE": {"number": number}}},
            },
        }
        for number in range(90)
    ]
    await told.transactions.receive(TWO, [], edus)
    events = (await alice.sync())["to_device"]["events"]
    numbers = [event["content"]["number"] for event in events]
    assert numbers == [number for number in range(90) if number % 3]


async def test_the_key_of_an_event_is_there_before_the_event_that_came_beside_it(told: Told) -> None:
    alice = told.alice
    since = (await alice.sync())["next_batch"]
    waiting = asyncio.create_task(alice.sync(since=since, timeout=30_000))
    messages = {alice.user_id: {alice.device_id: {"text": "the key"}}}
    key = {"sender": BOB, "type": "m.test", "message_id": "key", "messages": messages}
    edus = [{"edu_type": "m.direct_to_device", "content": key}]
    await told.transactions.receive(TWO, [told.message("the event").pdu], edus)
    answer = await waiting
    keys = answer.get("to_device", {}).get("events", [])
    while not in_room(answer, told):
        answer = await alice.sync(since=answer["next_batch"], timeout=30_000)
        keys += answer.get("to_device", {}).get("events", [])
    assert [one["content"] for one in keys] == [{"text": "the key"}]
