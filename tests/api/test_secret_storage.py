"""Secrets of a user: kept as account data for all of their devices, and asked for and sent from one to another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

KEY_ID = "key/1+="
ENCRYPTED = {"iv": "16 bytes/+=", "ciphertext": "A\u002fB/+=\u00e9\ud7ff", "mac": "m+/="}
SECRETS = {
    "m.secret_storage.default_key": {"key": KEY_ID},
    f"m.secret_storage.key.{KEY_ID}": {
        "name": "é",
        "algorithm": "m.secret_storage.v1.aes-hmac-sha2",
        "passphrase": {"algorithm": "m.pbkdf2", "salt": "s", "iterations": 500_000, "bits": 256},
        "iv": "i",
        "mac": "m",
    },
    **{
        name: {"encrypted": {KEY_ID: ENCRYPTED}, "org.example.unknown": [1, 1.5, None, True, {"": ""}]}
        for name in (
            "m.cross_signing.master",
            "m.cross_signing.self_signing",
            "m.cross_signing.user_signing",
            "m.megolm_backup.v1",
        )
    },
    # CS "Key backup enabled preference"
    "m.key_backup": {"enabled": True},
}


def kept(answer: dict[str, Any]) -> dict[str, Any]:
    events = answer.get("account_data", {}).get("events", [])
    return {event["type"]: event["content"] for event in events if event["type"] != "m.push_rules"}


async def test_secrets_come_to_every_device_as_they_were_kept(
    server: Server, alice: Client, bob: Client
) -> None:
    phone = await server.login(alice)
    devices = (alice, phone)
    sinces = [(await device.sync())["next_batch"] for device in devices]
    bobs = (await bob.sync())["next_batch"]
    waiting = [
        asyncio.create_task(device.sync(since, timeout=60_000))
        for device, since in zip(devices, sinces, strict=True)
    ]
    await server.until_waiting(2)
    for name, content in SECRETS.items():
        path = f"/user/{alice.user_id}/account_data/{quote(name, safe='')}"
        assert await alice.put(path, content) == {}
        assert await phone.get(path) == content
    first = [kept(answer) for answer in await asyncio.gather(*waiting)]
    assert all(first)
    for device, since in zip(devices, sinces, strict=True):
        assert kept(await device.sync(since)) == SECRETS
    # A new device finds them, too; nobody else does.
    assert kept(await (await server.login(alice)).sync()) == SECRETS
    assert kept(await bob.sync(bobs)) == kept(await bob.sync()) == {}
    await server.restart()
    assert kept(await server.reconnect(phone).sync()) == SECRETS


@pytest.mark.parametrize("name", ["m.secret.request", "m.secret.send"])
async def test_secrets_are_asked_for_and_sent_from_device_to_device(
    server: Server, alice: Client, name: str
) -> None:
    phone, tablet = await server.login(alice), await server.login(alice)
    content = {
        "action": "request",
        "name": "m.cross_signing.master",
        "requesting_device_id": alice.device_id,
        "request_id": "r/+=",
        "secret": "s/+=",
    }
    await alice.put(
        f"/sendToDevice/{name}/t1",
        {"messages": {alice.user_id: {device.device_id: content for device in (phone, tablet)}}},
    )
    sent = {"type": name, "sender": alice.user_id, "content": content}
    for device in (phone, tablet):
        assert (await device.sync())["to_device"]["events"] == [sent]
    assert (await alice.sync()).get("to_device", {"events": []})["events"] == []
