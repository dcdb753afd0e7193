"""A device comes back to many rooms, in some of which much was said: until it can show what, by which way.

Each message that was missed must come exactly once, and in the order of its room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson

from benchmarks.client import Refused, in_parallel
from benchmarks.connection import Connection, encode_request
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.absence import Away
    from benchmarks.client import Device

Scenario = Callable[["Device", "Away"], Awaitable[list[Figure]]]

FILTER = {"room": {"timeline": {"limit": 20}, "state": {"lazy_load_members": True}}}
_AT_ONCE = 4
_SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_MISSED = "/_matrix/client/unstable/dev.restante.missed"
_PAGE = 1_000
_CODINGS = ("identity", "gzip", "br", "zstd")
_STATE = [["m.room.name", ""], ["m.room.avatar", ""], ["m.room.encryption", ""]]
_SLOW_BYTES_PER_SECOND = 32_000 / 8
_SLOW_SECONDS = 0.4


class _Bytes:
    """Asks, and counts the bytes of the answers."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.total = 0

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A request; the answer's JSON."""
        answer = await self.device.call(method, path, body)
        self.total += len(orjson.dumps(answer))
        return answer


def _figures(name: str, started: float, asked: _Bytes) -> list[Figure]:
    return [
        Figure(name, 1000 * (time.perf_counter() - started), "ms"),
        Figure(f"{name}, answers", asked.total / 1024, "KiB"),
    ]


def _messages(events: list[Any]) -> list[str]:
    return [event["event_id"] for event in events if event["type"] == "m.room.message"]


async def _gaps(
    asked: _Bytes, rooms: dict[str, Any], wanted: list[str], end: str | None, known: dict[str, list[str]]
) -> None:
    """Page back in those rooms whose timeline is limited, to what was missed first."""

    async def fill(room_id: str, start: str) -> None:
        while True:
            query = {"dir": "b", "limit": "100", "from": start} | ({"to": end} if end else {})
            page = await asked.call("GET", f"/_matrix/client/v3/rooms/{room_id}/messages?{urlencode(query)}")
            known[room_id] = _messages(page["chunk"])[::-1] + known[room_id]
            start = page.get("end", "")
            if not start or any(event["type"] != "m.room.message" for event in page["chunk"]):
                return

    works = []
    for room_id in wanted:
        timeline = rooms[room_id]
        if timeline.get("limited"):
            works.append(lambda room_id=room_id, start=timeline["prev_batch"]: fill(room_id, start))
    await in_parallel(_AT_ONCE, works)


def _check(held: dict[str, list[str]], sent: dict[str, list[str]]) -> None:
    if held != sent:
        wrong = [room_id for room_id in sent if held.get(room_id) != sent[room_id]]
        raise Refused(f"not every message came once and in order: {len(wrong)} rooms are wrong")


async def classic(device: Device, away: Away) -> list[Figure]:
    """By `/sync` and `/messages`."""
    asked, started = _Bytes(device), time.perf_counter()
    query = urlencode({"since": away.since, "filter": orjson.dumps(FILTER), "set_presence": "offline"})
    answer = await asked.call("GET", f"/_matrix/client/v3/sync?{query}")
    figures = _figures("/sync, the room list", started, asked)
    joined = {room_id: part["timeline"] for room_id, part in answer["rooms"]["join"].items()}
    held = {room_id: _messages(timeline["events"]) for room_id, timeline in joined.items()}
    await _gaps(asked, joined, away.important, away.since, held)
    figures += _figures("/sync, the 20 important rooms", started, asked)
    await _gaps(asked, joined, [one for one in joined if one not in away.important], away.since, held)
    figures += _figures("/sync, everything", started, asked)
    _check(held, away.sent)
    return figures


async def sliding(device: Device, away: Away) -> list[Figure]:
    """By sliding sync in its deployed dialect, and `/messages`."""
    figures = []

    async def ask(asked: _Bytes, conn_id: str, upto: int, limit: int, pos: str | None = None) -> Any:
        wanted = {"ranges": [[0, upto - 1]], "timeline_limit": limit, "required_state": _STATE}
        body = {"conn_id": conn_id, "lists": {"all": wanted}}
        query = "?timeout=0" + (f"&{urlencode({'pos': pos})}" if pos else "")
        return await asked.call("POST", f"{_SLIDING}{query}", body)

    asked, started = _Bytes(device), time.perf_counter()
    answer = await ask(asked, "list", len(away.rooms), 1)
    if len(answer["rooms"]) != len(away.rooms):
        raise Refused(f"a list of {len(answer['rooms'])} rooms")
    figures += _figures("Sliding sync, the room list", started, asked)
    asked, started = _Bytes(device), time.perf_counter()
    answer = await ask(asked, "rooms", 20, 20)
    figures += _figures("Sliding sync, the first 20 rooms", started, asked)
    rooms: dict[str, Any] = dict(answer["rooms"])
    while len(rooms) < len(away.sent):
        answer = await ask(asked, "rooms", min(len(away.sent), len(rooms) + 100), 20, answer["pos"])
        rooms |= answer["rooms"]
    held = {room_id: _messages(rooms[room_id].get("timeline", [])) for room_id in away.sent}
    await _gaps(asked, {one: rooms[one] for one in away.sent}, list(away.sent), None, held)
    figures += _figures("Sliding sync, everything", started, asked)
    _check(held, away.sent)
    return figures


async def catching_up(device: Device, away: Away) -> list[Figure]:
    """By the catch-up API of this server."""
    asked, started = _Bytes(device), time.perf_counter()
    start = urlencode({"from": away.since})
    summary = await asked.call("GET", f"{_MISSED}/summary?{start}")
    if {room_id: news["messages"] for room_id, news in summary["rooms"].items()} != {
        room_id: len(sent) for room_id, sent in away.sent.items()
    }:
        raise Refused("the summary does not say what was sent")
    figures = _figures("Catch-up, the room list", started, asked)
    asked, started = _Bytes(device), time.perf_counter()
    held: dict[str, list[str]] = {}
    early: set[str] = set()
    query = urlencode({"from": away.since, "order": "important", "limit": _PAGE})
    showed = False
    while True:
        page = await asked.call("GET", f"{_MISSED}/messages?{query}")
        if page.get("part") == "mentions":
            early.update(_messages(page["chunk"]))
        else:
            in_order: dict[str, list[str]] = {}
            for event in page["chunk"]:
                in_order.setdefault(event["room_id"], []).append(event["event_id"])
            in_order |= page.get("placed", {})
            for room_id, ids in in_order.items():
                held.setdefault(room_id, []).extend(ids)
                early.difference_update(ids)
        important_is_over = page.get("part") == "rest" or "next_batch" in page
        if important_is_over and not showed:
            showed = True
            figures += _figures("Catch-up, the 20 important rooms and all mentions", started, asked)
        if "next_batch" in page:
            break
        query = urlencode({"from": page["end"], "limit": _PAGE})
    figures += _figures("Catch-up, everything", started, asked)
    _check(held, away.sent)
    if early:
        raise Refused("mentions were told and never placed")
    return figures


async def compressed(device: Device, away: Away) -> list[Figure]:
    """How many bytes 5,000 messages of a catch-up take on the wire."""
    figures = []
    for coding in _CODINGS:
        total = 0
        query = urlencode({"from": away.since, "limit": _PAGE})
        for _ in range(5):
            request = encode_request(
                device.address,
                "GET",
                f"{_MISSED}/messages?{query}",
                device.access_token,
                headers=[f"Accept-Encoding: {coding}"],
            )
            connection = Connection(device.address)
            answer = await connection.exchange(request)
            total += len(answer.body)
            connection.close()
            end = await device.call("GET", f"{_MISSED}/messages?{query}")
            if "end" not in end:
                break
            query = urlencode({"from": end["end"], "limit": _PAGE})
        name = "plain" if coding == "identity" else coding
        figures.append(Figure(f"5,000 messages, {name}", total / 1024, "KiB"))
    return figures


async def slow_link(device: Device, away: Away) -> list[Figure]:
    """Until the first message of an important room is there over 32 kbit/s and 400 ms, adaptive and not."""

    async def measure(hint: str, coding: str) -> float:
        query = {
            "since": away.since,
            "filter": orjson.dumps(FILTER),
            "set_presence": "offline",
            "dev.restante.network": hint,
        }
        if hint == "weak":
            query["dev.restante.max_bytes"] = int(3 * _SLOW_BYTES_PER_SECOND)
        path = f"/_matrix/client/v3/sync?{urlencode(query)}"
        headers = [f"Accept-Encoding: {coding}", "Connection: close"]
        request = encode_request(device.address, "GET", path, device.access_token, headers=headers)
        return await _over_slow_link(device, request)

    # Each has a link of its own: the longest takes minutes, in which nothing is computed.
    ways = [(hint, coding) for hint in ("good", "weak") for coding in ("identity", "zstd")]
    seconds = await asyncio.gather(*(measure(hint, coding) for hint, coding in ways))
    return [
        Figure(
            f"32 kbit/s and 400 ms, {'adaptive' if hint == 'weak' else 'not adaptive'}, "
            f"{'plain' if coding == 'identity' else 'compressed'}",
            taken,
            "s",
        )
        for (hint, coding), taken in zip(ways, seconds, strict=True)
    ]


async def _over_slow_link(device: Device, request: bytes) -> float:
    """How long an answer takes that comes so slowly: read bit by bit, so that the server notices it, too.

    The request must ask for the end of the connection, since a large answer does not tell its length.
    """
    started = time.perf_counter()
    await asyncio.sleep(_SLOW_SECONDS / 2)
    reader, writer = await asyncio.open_connection(device.address.host, device.address.port, limit=4_096)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise Refused(repr(head[:100]))
    await asyncio.sleep(_SLOW_SECONDS / 2)
    received = 0
    begun = time.perf_counter()
    while part := await reader.read(4_096):
        received += len(part)
        due = begun + received / _SLOW_BYTES_PER_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    writer.close()
    return time.perf_counter() - started
