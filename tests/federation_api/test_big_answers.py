"""States of rooms are written as they are read, and not too many of them to one server at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from federation.request_auth import sign_request
from homeserver.api.federation.streams import MAX_AT_ONCE
from homeserver.http.response import StreamedJson
from tests.client import refused
from tests.federation_api.remote import V1
from tests.server import RESOURCES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server


async def begun(server: Server, one: Remote, target: str) -> AsyncIterator[bytes]:
    """An answer of which the first part was read."""
    header = sign_request(one.key, one.name, "example.org", "GET", target)
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"authorization", header.encode())],
        "client": ("192.0.2.1", 1),
    }
    response = await server.application.http(RESOURCES).answer(scope, _no_body)
    assert isinstance(response, StreamedJson)
    parts = response.parts
    assert await anext(parts)
    return parts


async def _no_body() -> dict[str, object]:
    return {"type": "http.request", "body": b""}


async def test_a_server_reads_so_many_big_answers_at_a_time(
    server: Server, alice: Client, one: Remote, two: Remote, room: str
) -> None:
    await two.become("join", room, two.user("yan"))
    event_id = await alice.send(room, "hello")
    target = f"{V1}/state/{room}?event_id={event_id}"
    answers = [await begun(server, one, target) for _ in range(MAX_AT_ONCE)]
    with refused(429, "M_LIMIT_EXCEEDED"):
        await one.get(f"/state/{room}", event_id=event_id)
    await two.get(f"/state/{room}", event_id=event_id)
    first = b"".join([part async for part in answers[0]])
    assert first.endswith(b"]}")
    assert (await one.get(f"/state/{room}", event_id=event_id))["pdus"]
    for answer in answers[1:]:
        await answer.aclose()  # type: ignore[attr-defined]


async def test_a_state_of_several_parts_is_whole(alice: Client, one: Remote, room: str) -> None:
    for number in range(250):
        await alice.set_state(room, "org.example.entry", {"number": number}, str(number))
    event_id = await alice.send(room, "hello")
    answer = await one.get(f"/state/{room}", event_id=event_id)
    entries = [pdu for pdu in answer["pdus"] if pdu["type"] == "org.example.entry"]
    assert sorted(pdu["content"]["number"] for pdu in entries) == list(range(250))
    assert len((await one.get(f"/state_ids/{room}", event_id=event_id))["pdu_ids"]) == len(answer["pdus"])
    assert orjson.dumps(answer)
