"""Who is believed to have sent a request: real requests from one server of ours to another."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import trustme
from yarl import URL

from crypto.keys import generate
from federation.errors import Refused
from federation.request_auth import NO_CONTENT, sign_request
from federation.signed_requests import path_of
from federation.transport import Limits
from tests.federation.neighbours import Neighbour

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from crypto.keys import SigningKey

ECHO = "/_matrix/federation/v1/echo"
BODY = {"pdus": [{"content": {"n": 1.5, "ü": 2**60}}]}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Neighbour, Neighbour]]:
    """Who asks, and who is asked."""
    authority = trustme.CA()
    servers = [
        Neighbour(
            tmp_path / name, f"sqlite:///{tmp_path}/{name}/restante.db", authority, limited=name == "asked"
        )
        for name in ("asking", "asked")
    ]
    for server in servers:
        await server.start()
    yield servers[0], servers[1]
    for server in servers:
        await server.stop()


def key_of(server: Neighbour) -> SigningKey:
    return server.application.remote.servers.keyring._own_keys[0]


def signature(pair: tuple[Neighbour, Neighbour], content: Any = BODY, **changed: Any) -> str:
    asking, asked = pair
    said = {
        "key": key_of(asking),
        "origin": asking.name,
        "destination": asked.name,
        "method": "PUT",
        "target": f"{ECHO}/x",
        **changed,
    }
    return sign_request(**said, content=content)


async def send(
    pair: tuple[Neighbour, Neighbour],
    authorization: str | None,
    *,
    method: str = "PUT",
    target: str = f"{ECHO}/x",
    body: bytes | None = orjson.dumps(BODY),
) -> tuple[int, Any]:
    answer = await pair[0].application.remote.servers._transport.request(
        method,
        URL(f"https://{pair[1].name}{target}", encoded=True),
        Limits(max_bytes=100_000, seconds=60),
        headers={} if authorization is None else {"Authorization": authorization},
        body=body,
    )
    return answer.status, orjson.loads(answer.body)


VALUES = ("x", "!a:b.example", "ü/ %?#+&=", "%2F", "$a~b-c_d.e", "a\\'(),;:@*")
QUERIES: tuple[Any, ...] = ((), (("v", "a b&c=ü/+%"), ("v", "2"), ("flag", True)))


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_who_signed_is_believed_whatever_stands_in_the_path(
    pair: tuple[Neighbour, Neighbour], method: str
) -> None:
    asking, asked = pair
    content = NO_CONTENT if method == "GET" else BODY
    for value, query in itertools.product(VALUES, QUERIES):
        answer = await asking.application.remote.servers.client._requests.json(
            asked.name, method, path_of(ECHO, value), query=query, content=content
        )
        assert answer == {"origin": asking.name, "parameters": {"value": value}}


async def test_a_header_without_destination_is_believed(pair: tuple[Neighbour, Neighbour]) -> None:
    header = signature(pair)
    assert (await send(pair, header.replace(f'destination="{pair[1].name}",', "")))[0] == 200
    assert (await send(pair, header))[0] == 200


async def test_what_was_not_signed_so_is_not_believed(pair: tuple[Neighbour, Neighbour]) -> None:
    asking, asked = pair
    stranger = generate(key_of(asking).version)
    for header in (
        None,
        "",
        "Bearer abc",
        "X-Matrix nonsense",
        signature(pair).replace("ed25519:", "rsa:"),
        signature(pair).replace("ed25519:", "ed25519:other_"),
        signature(pair, key=stranger),
        signature(pair, method="POST"),
        signature(pair, target=f"{ECHO}/y"),
        signature(pair, target=f"{ECHO}/x?a=b"),
        signature(pair, content={}),
        signature(pair, content=NO_CONTENT),
        signature(pair, destination="other.example"),
        signature(pair, destination="other.example").replace('destination="other.example",', ""),
        signature(pair, origin="other.example"),
        signature(pair, origin="127.0.0.1:1"),
        signature(pair, origin=asked.name, key=key_of(asked)),
    ):
        status, answer = await send(pair, header)
        assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED"), header
        assert answer["error"]


async def test_a_body_that_is_no_json_object_cannot_have_been_signed(
    pair: tuple[Neighbour, Neighbour],
) -> None:
    for body, errcode in ((b"", "M_NOT_JSON"), (b"{", "M_NOT_JSON"), (b"[]", "M_BAD_JSON")):
        status, answer = await send(pair, signature(pair), body=body)
        assert (status, answer["errcode"]) == (400, errcode)


async def test_requests_that_nobody_signed_are_counted_by_address(pair: tuple[Neighbour, Neighbour]) -> None:
    statuses = [(await send(pair, None))[0] for _ in range(201)]
    assert statuses == [401] * 200 + [429]


async def test_a_retired_or_expired_key_signs_no_request(pair: tuple[Neighbour, Neighbour]) -> None:
    asking, asked = pair
    client = asking.application.remote.servers.client
    assert (await client._requests.json(asked.name, "GET", path_of(ECHO, "x")))["origin"] == asking.name
    asked.clock.offset_ms = 27 * 3_600_000
    asking_document = asking.application.remote.servers.keyring.own_document()
    # The other does not know that time has gone on, and its document is over for us.
    assert asking_document["valid_until_ts"] < asked.clock.now_ms()
    with pytest.raises(Refused) as caught:
        await client._requests.json(asked.name, "GET", path_of(ECHO, "x"))
    assert caught.value.status == 401
