"""What two libraries encrypt by Olm and Megolm, and how they unlock it, is nowhere in what the server leaves behind."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import httpx
import pytest

from tests import traces
from tests.client import Client
from tests.clients.stage import ROTATION, all_read, know_each_other, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import Cluster

pytestmark = pytest.mark.interop
PASSWORD = "a long enough secret"
"""That of all users of both libraries."""


async def test_what_was_encrypted_is_not_found_while_the_server_runs_nor_after(
    database_url: str, cluster: Cluster | None, tmp_path: Path
) -> None:
    words = {f"words {number}": f"recognisable words {secrets.token_urlsafe(12)}" for number in range(6)}
    hidden = {"password": PASSWORD, **words}
    control = {"unencrypted": f"unencrypted words {secrets.token_urlsafe(12)}"}
    logging = {"level": "debug", "format": "json"}
    async with set_up(
        tmp_path, server_name="example.org", database={"url": database_url}, logging=logging
    ) as stage:
        server = stage.server
        leavings = traces.Leavings(server, database_url, cluster)
        phone, bob, carol = await asyncio.gather(
            stage.js.register("alice", "alice's phone"),
            stage.js.register("bob", "bob's phone"),
            stage.nio.register("carol", "carol's phone"),
        )
        hidden["recovery key"] = await phone.bootstrap()
        laptop = await stage.nio.login("alice", "alice's laptop")
        devices = [phone, bob, carol, laptop]
        room_id = await phone.create_room([bob.user_id, carol.user_id], ROTATION)
        await asyncio.gather(bob.join(room_id), carol.join(room_id))
        await know_each_other(devices)
        said: dict[str, str] = {}
        for number, text in enumerate(words.values()):
            spoken = {await devices[number % len(devices)].say(room_id, text): text}
            await all_read(room_id, devices, spoken)
            said |= spoken
        await phone.backed_up(room_id, list(said))

        mallory = server.register("mallory")
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            client = Client(http, mallory.user_id, mallory.device_id, mallory.access_token)
            await client.send(await client.create_room(), control["unencrypted"])
            metrics = (await http.get("/metrics")).text
        assert await leavings.find(hidden) == set()
    assert await leavings.find(hidden) == set()
    assert {form for _, form, _ in await leavings.find(control)} == {"plain"}

    told = traces.told(server, metrics)
    assert traces.traces({**hidden, **control}, told) == set()
    # It all went through this server, which told of it as loudly as it can.
    for passed in ("/sendToDevice/{eventType}/{txnId}", "/keys/claim", "/room_keys/keys", '"level":"debug"'):
        assert passed in server.log()
    stored = b"".join(content for _, content in await traces.rows(database_url))
    for algorithm in (b"m.megolm.v1.aes-sha2", b"m.megolm_backup.v1.curve25519-aes-sha2"):
        assert algorithm in stored
