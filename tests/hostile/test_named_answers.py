"""Answers that never end, or are none: whoever asked is told that the fault is the other server's, and soon."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from homeserver.services import remote_joins
from tests.client import Refused
from tests.hostile.elsewhere import EVIL, MALLORY, Elsewhere, room_elsewhere
from tests.hostile.wire import Answered, Asked, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.client import Client
    from tests.server import Server

MEBIBYTE = 1 << 20


class Endless:
    """A body that goes on for as long as somebody reads it."""

    def __init__(self, start: bytes, again: bytes) -> None:
        self.start = start
        self.again = again
        self.read_bytes = 0

    def parts(self) -> Iterator[bytes]:
        for part in itertools.chain([self.start], itertools.repeat(self.again)):
            self.read_bytes += len(part)
            yield part


QUESTIONS: dict[str, tuple[str, str, Any]] = {
    "profile": ("GET", f"/profile/{MALLORY}", None),
    "rooms": ("GET", f"/publicRooms?server={EVIL}", None),
    "search": ("POST", f"/publicRooms?server={EVIL}", {"filter": {"generic_search_term": "x"}}),
    "alias": ("GET", f"/directory/room/%23x%3A{EVIL}", None),
    "join": ("POST", f"/join/!room:{EVIL}?via={EVIL}", {}),
    "knock": ("POST", f"/knock/!room:{EVIL}?via={EVIL}", {}),
    "keys": ("POST", "/keys/query", {"device_keys": {MALLORY: []}}),
    "claim": ("POST", "/keys/claim", {"one_time_keys": {MALLORY: {"D": "signed_curve25519"}}}),
    "preview": ("GET", f"/_matrix/client/v1/room_summary/!room:{EVIL}?via={EVIL}", None),
}
PAGE = b" " * (1 << 16)
BODIES: dict[str, tuple[bytes, bytes]] = {
    "space": (b"", PAGE),
    "a text": (b'{"displayname":"', b"x" * (1 << 16)),
    "a list": (b'{"chunk":[', b"{}," * 20_000),
    "depth": (b"", b"[" * (1 << 16)),
    "numbers": (b'{"a":', b"9" * (1 << 16)),
}


@pytest.mark.parametrize("body", BODIES)
async def test_an_answer_without_an_end_is_read_so_far(server: Server, alice: Client, body: str) -> None:
    wire = Wire()
    wire.plug_in(server)
    for name, question in QUESTIONS.items():
        endless = Endless(*BODIES[body])

        async def answer(_: Asked, endless: Endless = endless) -> Answered:
            return Answered(200, endless.parts())

        wire.sites[EVIL] = answer
        status = await _status(alice, *question)
        # Keys are answered with the failures beside what is known.
        assert status in ((200,) if name in ("keys", "claim") else (404, 502)), name
        assert 0 < endless.read_bytes <= 34 * MEBIBYTE, name
        server.clock.offset_ms += 3_600_000


@pytest.mark.parametrize(
    "answered",
    [
        Answered(302, b"", {"Location": "https://localhost/"}),
        Answered(200, b"", {"Content-Type": "text/html"}),
        Answered(200, b"[]"),
        Answered(200, b'{"room":1,"children":{},"chunk":1,"event":[],"room_id":5,"device_keys":[]}'),
        Answered(599, b"{}"),
        Answered(200, b"[" * 100_000 + b"]" * 100_000),
        Answered(400, b"[" * 100_000),
        Answered(429, b'{"errcode":5,"retry_after_ms":1e300}', {"Retry-After": "9" * 100}),
    ],
    ids=lambda one: f"{one.status}-{str(one.body)[:12]}",
)
async def test_an_answer_that_is_none_is_the_other_server_s_fault(
    server: Server, alice: Client, answered: Answered
) -> None:
    wire = Wire()
    wire.plug_in(server)

    async def answer(_: Asked) -> Answered:
        return answered

    wire.sites[EVIL] = answer
    for name, question in QUESTIONS.items():
        status = await _status(alice, *question)
        expected = (200,) if name in ("keys", "claim") else (400, 404, 429, 502)
        if name == "profile":
            # An object is a profile, whatever is in it.
            expected = (*expected, 200)
        assert status in expected, name
        server.clock.offset_ms += 3_600_000


async def test_a_state_without_an_end_ends_the_join(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_joins, "_MAX_STATE", 2_000)
    wire = Wire()
    wire.plug_in(server)
    room = room_elsewhere("11")
    evil = Elsewhere(wire, server, room)
    event = orjson.dumps(room.set_topic(MALLORY, "again").pdu) + b","
    for name in ("state", "auth_chain"):
        endless = Endless(b'{"%b":[' % name.encode(), event * 100)
        evil.lies["send_join"] = lambda *_, endless=endless: Answered(200, endless.parts())
        assert await _status(alice, "POST", f"/join/{room.room_id}?via={EVIL}", {}) == 502
        assert endless.read_bytes < 4_000 * len(event)
    assert (await alice.get("/joined_rooms"))["joined_rooms"] == []
    evil.lies.clear()
    assert await _status(alice, "POST", f"/join/{room.room_id}?via={EVIL}", {}) == 200


async def _status(alice: Client, method: str, path: str, body: Any) -> int:
    try:
        await alice.call(method, path, body)
    except Refused as error:
        return error.status
    return 200
