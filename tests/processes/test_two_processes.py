"""Two server processes on one PostgreSQL: one room, one order, and whoever syncs at either hears of everything."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.client import Client, Refused, bodies, hear_all
from tests.processes.devices import Reader, connected, timeline
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import Cluster

BANS = 15
_TURN_SECONDS = 60


@dataclass
class Pair:
    """Two servers that are one."""

    one: ServerProcess
    other: ServerProcess


@pytest.fixture(scope="module")
def pair(
    postgresql: Cluster, postgresql_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    name = asyncio.run(postgresql.create_database(postgresql_template))
    folder = tmp_path_factory.mktemp("pair")
    settings: dict[str, Any] = {
        "server_name": "example.org",
        "database": {"url": postgresql.url(name)},
        "data_dir": str(folder / "data"),
    }
    with (
        ServerProcess(folder / "one", **settings) as one,
        ServerProcess(folder / "other", **settings) as other,
    ):
        yield Pair(one, other)
    asyncio.run(postgresql.drop_database(name))


async def test_nothing_of_a_banned_user_comes_after_the_ban(pair: Pair) -> None:
    """A ban in one process, messages of the banned user in the other, at the same time, again and again."""
    names = [f"user{number}" for number in range(BANS)]
    owner = pair.one.register("owner")
    users = [pair.other.register(name) for name in names]
    watchers = [pair.one.register("watcher1"), pair.one.register("watcher2")]
    async with (
        connected(pair.one, owner, watchers[0]) as (admin, here),
        connected(pair.other, *users, watchers[1]) as (*members, there),
    ):
        room_id = await admin.create_room(preset="public_chat")
        for member in (here, there, *members):
            await member.join(room_id)
        readers = [Reader(here, room_id), Reader(there, room_id)]
        for reader in readers:
            await reader.sync()
        before = [len(reader.events) for reader in readers]
        up = asyncio.Event()
        up.set()
        reading = [asyncio.create_task(reader.sync_for_ever(up)) for reader in readers]
        answered: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_chatter(admin, room_id, answered))
            for number, member in enumerate(members):
                tasks.create_task(_talk_until_banned(admin, member, room_id, number, answered))
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await hear_all(here, there)
        await hear_all(there, here)
        for reader in readers:
            await reader.catch_up()
        stored = await timeline(admin, room_id)

    banned: set[str] = set()
    for event in stored:
        assert event["sender"] not in banned, "a message after the ban"
        if event["type"] == "m.room.member" and event["content"]["membership"] == "ban":
            banned.add(event["state_key"])
    assert len(banned) == BANS
    messages = [event["event_id"] for event in stored if event["type"] == "m.room.message"]
    assert sorted(messages) == sorted(answered), "an answered message is lost, or there twice"
    order = [event["event_id"] for event in stored]
    for reader, count in zip(readers, before, strict=True):
        seen = [event["event_id"] for event in reader.events[count:]]
        assert seen == order[-len(seen) :]
        assert set(messages) <= set(seen)


async def _talk_until_banned(
    admin: Client, member: Client, room_id: str, number: int, answered: list[str]
) -> None:
    spoken = asyncio.Event()

    async def talk() -> None:
        count = 0
        while True:
            try:
                answered.append(await member.send(room_id, f"{number} says {count}"))
            except Refused as refused:
                if refused.errcode != "M_FORBIDDEN":
                    raise
                return
            count += 1
            if count > number % 4:
                spoken.set()

    async def ban() -> None:
        await spoken.wait()
        await admin.ban(room_id, member.user_id)

    async with asyncio.timeout(_TURN_SECONDS):
        await asyncio.gather(talk(), ban())


async def _chatter(admin: Client, room_id: str, answered: list[str]) -> None:
    for number in range(60):
        answered.append(await admin.send(room_id, f"admin {number}"))


async def test_a_transaction_id_is_one_in_both_processes(pair: Pair) -> None:
    account = pair.one.register("once")
    async with connected(pair.one, account) as (here,), connected(pair.other, account) as (there,):
        room_id = await here.create_room()
        sent = await asyncio.gather(
            *(client.send(room_id, "once", transaction_id="one") for client in (here, there) * 10)
        )
        assert len(set(sent)) == 1
        assert bodies(await timeline(there, room_id)) == ["once"]


async def test_what_is_written_in_one_process_wakes_a_sync_in_the_other(pair: Pair) -> None:
    alice, bob = pair.one.register("anna"), pair.one.register("ben")
    async with connected(pair.one, alice, bob) as (here, bob_here), connected(pair.other, alice) as (there,):
        room_id = await here.create_room(preset="public_chat", invite=[bob.user_id])
        await bob_here.join(room_id)
        message = await bob_here.send(room_id, "hello")
        since = (await there.sync())["next_batch"]

        async def woken(deed: Any) -> dict[str, Any]:
            """What a long poll in the other process is answered with when this is done here."""
            nonlocal since
            polling = asyncio.create_task(there.sync(since, timeout=_TURN_SECONDS * 1000))
            await deed
            async with asyncio.timeout(_TURN_SECONDS / 2):
                answer = await polling
            since = answer["next_batch"]
            return answer

        path = f"/user/{alice.user_id}"
        answer = await woken(here.put(f"{path}/account_data/org.example", {"is": "global"}))
        assert {"type": "org.example", "content": {"is": "global"}} in answer["account_data"]["events"]

        answer = await woken(here.put(f"{path}/rooms/{room_id}/account_data/org.example", {"is": "here"}))
        events = answer["rooms"]["join"][room_id]["account_data"]["events"]
        assert events == [{"type": "org.example", "content": {"is": "here"}}]

        answer = await woken(bob_here.post(f"/rooms/{room_id}/receipt/m.read/{quote(message)}"))
        (receipt,) = answer["rooms"]["join"][room_id]["ephemeral"]["events"]
        assert bob.user_id in json.dumps(receipt["content"][message])

        typing = f"/rooms/{room_id}/typing/{quote(bob.user_id)}"
        answer = await woken(bob_here.put(typing, {"typing": True, "timeout": 30_000}))
        (event,) = answer["rooms"]["join"][room_id]["ephemeral"]["events"]
        assert event == {"type": "m.typing", "content": {"user_ids": [bob.user_id]}}

        answer = await woken(bob_here.send(room_id, "are you there?"))
        assert bodies(answer["rooms"]["join"][room_id]["timeline"]["events"]) == ["are you there?"]

        answer = await woken(here.set_state(room_id, "m.room.topic", {"topic": "this"}))
        (event,) = answer["rooms"]["join"][room_id]["timeline"]["events"]
        assert event["content"] == {"topic": "this"}

        other_room = await bob_here.create_room(preset="public_chat")
        answer = await woken(bob_here.invite(other_room, alice.user_id))
        assert set(answer["rooms"]["invite"]) == {other_room}


async def test_what_one_process_holds_in_memory_follows_the_other(pair: Pair) -> None:
    alice, bob = pair.one.register("alice"), pair.one.register("bob")
    async with (
        connected(pair.one, alice, bob) as (here, bob_here),
        connected(pair.other, alice, bob) as (there, bob_there),
    ):
        room_id = await here.create_room(preset="public_chat")
        await bob_here.join(room_id)
        event_id = await bob_here.send(room_id, "secret")
        for client in (there, bob_there):
            await client.sync()
            await client.event(room_id, event_id)
            await client.get_state(room_id, "m.room.power_levels")

        await here.redact(room_id, event_id)
        await _until(lambda: bob_there.event(room_id, event_id), lambda event: event["content"] == {})
        await here.set_state(room_id, "m.room.topic", {"topic": "new"})
        await _until(
            lambda: bob_there.get_state(room_id, "m.room.topic"), lambda topic: topic["topic"] == "new"
        )
        root = await here.send(room_id, "root")
        thread = f"rooms/{quote(room_id)}/thread/{quote(root)}/subscription"
        for text in ("first", "second"):
            relation = {"rel_type": "m.thread", "event_id": root}
            await here.send(room_id, {"msgtype": "m.text", "body": text, "m.relates_to": relation})
        for method, unread in (("PUT", 3), ("DELETE", 1)):
            await bob_here.call(method, f"/_matrix/client/unstable/io.element.msc4306/{thread}")
            await _until(bob_there.sync, lambda answer, n=unread: _unread(answer, room_id) == n)
        await here.kick(room_id, bob.user_id)
        await _until(
            lambda: bob_there.get("/joined_rooms"), lambda answer: room_id not in answer["joined_rooms"]
        )
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob_there.send(room_id, "late")
        await bob_here.post("/logout")
        await _until_refused(bob_there)


def _unread(answer: dict[str, Any], room_id: str) -> int:
    return answer["rooms"]["join"][room_id]["unread_notifications"]["notification_count"]


async def _until(ask: Any, holds: Any) -> None:
    """Ask until it is so; M_NOT_FOUND is a no."""
    async with asyncio.timeout(_TURN_SECONDS):
        while True:
            try:
                if holds(await ask()):
                    return
            except Refused as refused:
                if refused.errcode != "M_NOT_FOUND":
                    raise


async def _until_refused(client: Client) -> None:
    async with asyncio.timeout(_TURN_SECONDS):
        while True:
            try:
                await client.get("/account/whoami")
            except Refused as refused:
                if refused.errcode != "M_UNKNOWN_TOKEN":
                    raise
                return


async def test_many_who_send_at_once_in_both_processes_are_all_answered(pair: Pair) -> None:
    """Each process builds on a head that the other moves all the time."""
    accounts = [pair.one.register(f"crowd{number}") for number in range(8)]
    async with connected(pair.one, *accounts[:4]) as these, connected(pair.other, *accounts[4:]) as those:
        room_id = await these[0].create_room(preset="public_chat")
        for client in (*these, *those):
            await client.join(room_id)

        async def send_on(client: Client, name: str) -> None:
            for number in range(20):
                await client.send(room_id, f"{name} {number}")

        clients = [*these, *those]
        await asyncio.gather(*(send_on(clients[number % 8], f"{number}") for number in range(24)))
        await hear_all(these[0], those[0])
        stored = await timeline(these[0], room_id)
    texts = bodies(stored)
    assert sorted(texts) == sorted(f"{sender} {number}" for sender in range(24) for number in range(20))
    for sender in range(24):
        own = [text for text in texts if text.startswith(f"{sender} ")]
        assert own == [f"{sender} {number}" for number in range(20)]
