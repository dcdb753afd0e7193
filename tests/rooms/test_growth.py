"""What a message costs in the database: a few hundred bytes, and nothing for each member of its room."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from homeserver.storage.postgres import PostgresDatabase
from tests.client import V3, Client
from tests.server import RESOURCES, Server

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.http.application import HttpApplication
    from homeserver.storage.database import Database

FEW, MANY = 50, 500
MOST_BYTES = 1536
SENDERS = 10
AT_A_TIME = 64
# Rows for each commit and not for each message, which go after an hour; and what answers to the devices that come back
# for it left out: a row for each, not for each message, and none in large rooms.
NOT_COUNTED = {"announcements", "left_out"}
WORDS = [
    "so",
    "the",
    "train",
    "was",
    "late",
    "again",
    "and",
    "I",
    "read",
    "the",
    "paper",
    "twice",
    "before",
    "anybody",
    "told",
    "us",
    "why;",
    "they",
    "say",
    "it",
    "is",
    "the",
    "heat,",
    "you",
    "know",
    "how",
    "it",
    "is",
    "in",
    "July.",
    "Shall",
    "we",
    "meet",
    "at",
    "the",
    "station",
    "instead?",
    "I",
    "can",
    "bring",
    "the",
    "maps,",
    "the",
    "old",
    "ones",
    "too.",
]


@pytest.mark.parametrize(
    ("engine", "messages"), [("sqlite", 10_000), ("postgresql", 2_000)], indirect=["engine"]
)
async def test_messages_cost_the_same_for_few_members_and_for_many(messages: int, server: Server) -> None:
    database = server.application.database
    members = await _register(server, MANY)
    growth: dict[int, Mapping[str, int]] = {}
    for count in (FEW, MANY):
        room_id = await _fill_room(members[:count])
        rows, size = await _rows(database), await _size(server)
        await _chat(server, room_id, members[:SENDERS], messages)
        assert (await _size(server) - size) / messages < MOST_BYTES
        after = await _rows(database)
        growth[count] = {table: after[table] - rows[table] for table in rows}
        assert growth[count]["events"] == messages
    assert growth[FEW] == growth[MANY]


async def _register(server: Server, count: int) -> list[Client]:
    return [await server.register(f"member{number}") for number in range(count)]


async def _fill_room(members: list[Client]) -> str:
    """A room where everybody has synced, and has read what there is."""
    room_id = await members[0].create_room(preset="public_chat", name="The garden")
    welcome = await members[0].send(room_id, "welcome")
    for member in members:
        await member.join(room_id)
        await member.sync()
        await member.post(f"/rooms/{room_id}/receipt/m.read/{welcome}")
    return room_id


async def _chat(server: Server, room_id: str, senders: list[Client], messages: int) -> None:
    """Send messages as people write them: of any length, some to somebody; and read them."""
    application = server.application.http(RESOURCES)
    chance = random.Random(messages)
    numbers = iter(range(messages))

    async def send_on() -> None:
        for number in numbers:
            sender = senders[number % len(senders)]
            text = " ".join(chance.choices(WORDS, k=chance.randint(2, 40)))
            mentions = {"user_ids": [senders[number % 7].user_id]} if number % 20 == 0 else {}
            await _put(
                application,
                f"{V3}/rooms/{room_id}/send/m.room.message/m17{number}.{number % 13}",
                sender,
                {"msgtype": "m.text", "body": text, "m.mentions": mentions},
            )

    await asyncio.gather(*(send_on() for _ in range(AT_A_TIME)))
    for sender in senders:
        answer = await sender.sync(filter={"room": {"rooms": [room_id]}})
        last = answer["rooms"]["join"][room_id]["timeline"]["events"][-1]["event_id"]
        await sender.post(f"/rooms/{room_id}/receipt/m.read/{last}")


async def _put(application: HttpApplication, path: str, client: Client, body: dict[str, Any]) -> None:
    """A request without the costs of a client."""
    content = orjson.dumps(body)
    headers = [(b"authorization", f"Bearer {client.access_token}".encode())]
    scope = {
        "type": "http",
        "method": "PUT",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [*headers, (b"content-length", str(len(content)).encode())],
        "client": ("127.0.0.1", 1),
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    assert sent[0]["status"] == 200, sent


async def _rows(database: Database) -> dict[str, int]:
    return {
        table: await database.fetch_value(f"SELECT count(*) FROM {table}") or 0
        for table in await database.table_names() - NOT_COUNTED
    }


async def _size(server: Server) -> int:
    """The bytes of the database; on SQLite with its WAL."""
    database = server.application.database
    if isinstance(database, PostgresDatabase):
        return await database.fetch_value("SELECT pg_database_size(current_database())") or 0
    path = Path(str(server.settings.database.url).removeprefix("sqlite:///"))
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))
