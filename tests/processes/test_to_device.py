"""Messages to devices survive `kill -9` and come once and in order, whoever is asked for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes.devices import DeviceSender, InboxReader, connected, send_and_kill
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.client import Client

MESSAGES = 150


def assert_all_came_once_and_in_order(
    readers: Sequence[InboxReader], senders: Sequence[DeviceSender]
) -> None:
    for reader in readers:
        own = [sender for sender in senders if sender.recipient is reader.client]
        for sender in own:
            assert [text for text in reader.texts if text.startswith(f"{sender.name} ")] == list(
                sender.answered
            )
        assert len(reader.texts) == sum(len(sender.answered) for sender in own)


@pytest.mark.parametrize(
    ("engine", "kills"),
    [
        ("sqlite", 10),
        ("postgresql", 4),
        pytest.param("sqlite", 300, marks=pytest.mark.soak),
        pytest.param("postgresql", 300, marks=pytest.mark.soak),
    ],
    indirect=["engine"],
)
async def test_what_was_sent_comes_once_whatever_is_killed(
    kills: int, database_url: str, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, server_name="example.org", database={"url": database_url}) as server:
        accounts = [server.register(name) for name in ("alice", "bob")]
        accounts.append(server.login("bob"))
        async with connected(server, *accounts) as (alice, *devices):
            readers = [InboxReader(device) for device in devices]
            senders = [
                DeviceSender(alice, device, f"{number}-{sender}")
                for number, device in enumerate(devices)
                for sender in range(2)
            ]
            await send_and_kill(server, senders, readers, kills)
            for reader in readers:
                await reader.catch_up()
            assert_all_came_once_and_in_order(readers, senders)
            assert sum(sender.tried_again for sender in senders) > kills // 4
            assert sum(reader.lost_answers for reader in readers) > kills // 4


async def test_a_device_that_syncs_at_two_processes_by_turns_gets_each_message_once(
    postgresql_url: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "server_name": "example.org",
        "database": {"url": postgresql_url},
        "data_dir": str(tmp_path / "data"),
    }
    with (
        ServerProcess(tmp_path / "one", **settings) as one,
        ServerProcess(tmp_path / "other", **settings) as other,
    ):
        alice, bob = one.register("alice"), one.register("bob")
        async with (
            connected(one, alice, bob) as (alice_here, bob_here),
            connected(other, alice, bob) as (alice_there, bob_there),
        ):
            reader = InboxReader(bob_here)
            senders = [
                DeviceSender(client, bob_here, f"{number}")
                for number, client in enumerate((alice_here, alice_there, alice_here, alice_there))
            ]
            sending = asyncio.gather(*(_send(sender) for sender in senders))
            for turn in range(10_000):
                reader.client = (bob_here, bob_there)[turn % 2]
                await reader.sync(timeout=0 if sending.done() else 1_000)
                if len(reader.texts) >= MESSAGES * len(senders):
                    break
            await sending
            reader.client = bob_here
            await reader.catch_up()
            assert_all_came_once_and_in_order([reader], senders)
            assert await _waiting_at(bob_there, reader.since) == []


async def _send(sender: DeviceSender) -> None:
    up = asyncio.Event()
    up.set()
    for _ in range(MESSAGES):
        await sender.send(up)


async def _waiting_at(device: Client, since: str | None) -> list[Any]:
    return (await device.sync(since)).get("to_device", {}).get("events", [])
