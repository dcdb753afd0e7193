"""Requests to other servers: where they go, what they carry, and what each kind of failure is called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from crypto.keys import key_from_seed
from federation.errors import BadAnswer, CertificateRefused, NameNotFound, Refused, TimedOut, Unreachable
from federation.request_auth import parse_authorization, verify_request
from federation.resolver import Service
from federation.transport import Limits
from tests.federation.internet import FEDERATION, HTTPS, Internet, answering

KEY = key_from_seed("one", b"1" * 32)
HERE, THERE = "here.example", "there.example"
PATH = "/_matrix/federation/v1/x"
HASTY = Limits(max_bytes=1000, seconds=0.5, idle_seconds=0.3)


async def there(internet: Internet, handler: Any) -> None:
    internet.dns.names[THERE] = ["1.2.3.4"]
    await internet.site("1.2.3.4", FEDERATION, handler, THERE)


async def test_a_request_carries_what_was_signed(internet: Internet) -> None:
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        seen.append(request)
        authorization = parse_authorization(request.headers["Authorization"])
        assert authorization.destination == THERE
        assert verify_request(
            authorization, KEY.private.verify_key, THERE, request.method, request.raw_path, body
        )
        return web.json_response({"ok": True})

    await there(internet, handle)
    requests = internet.requests(HERE, KEY)
    assert await requests.json(THERE, "PUT", PATH, query=(("a", "b c"), ("d", True)), content={"n": 1.5}) == {
        "ok": True
    }
    (request,) = seen
    assert request.raw_path == f"{PATH}?a=b%20c&d=true"
    assert request.headers["Host"] == THERE
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == "Restante"


async def test_a_request_that_is_not_to_be_signed_is_not(internet: Internet) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"signed": "Authorization" in request.headers})

    await there(internet, handle)
    assert await internet.requests(HERE, KEY).json(THERE, "GET", PATH, signed=False) == {"signed": False}


async def test_a_delegated_server_is_called_by_its_delegated_name_and_signed_for_by_its_own(
    internet: Internet,
) -> None:
    async def handle(request: web.Request) -> web.Response:
        destination = parse_authorization(request.headers["Authorization"]).destination
        return web.json_response({"host": request.headers["Host"], "destination": destination})

    internet.dns.names |= {THERE: ["1.2.3.4"], "host.example": ["1.2.3.5"]}
    internet.dns.records["_matrix-fed._tcp.b.example"] = [Service(0, 0, "host.example", 999)]
    await internet.site("1.2.3.4", HTTPS, answering({"m.server": "b.example"}), THERE)
    await internet.site("1.2.3.5", 999, handle, "b.example")
    assert await internet.requests(HERE, KEY).json(THERE, "GET", PATH) == {
        "host": "b.example",
        "destination": THERE,
    }
    assert internet.asked_for == [THERE, "b.example"]


async def test_of_an_address_the_certificate_is_for_the_address_and_no_name_is_asked_for(
    internet: Internet,
) -> None:
    await internet.site("1.2.3.4", FEDERATION, answering({}), "1.2.3.4")
    await internet.site("1.2.3.5", FEDERATION, answering({}), "a.example")
    requests = internet.requests(HERE, KEY)
    assert await requests.json("1.2.3.4", "GET", PATH) == {}
    assert internet.asked_for == [None]
    with pytest.raises(CertificateRefused):
        await requests.json("1.2.3.5", "GET", PATH)


async def test_the_next_place_is_tried_where_the_first_cannot_have_heard(internet: Internet) -> None:
    internet.dns.names |= {"one.example": ["1.2.3.4"], "two.example": ["1.2.3.5"]}
    internet.dns.records[f"_matrix-fed._tcp.{THERE}"] = [
        Service(0, 0, "one.example", 1),
        Service(1, 0, "two.example", 2),
    ]
    await internet.site("1.2.3.5", 2, answering({"place": 2}), THERE)
    requests = internet.requests(HERE, KEY)
    assert await requests.json(THERE, "GET", PATH) == {"place": 2}

    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    await internet.site("1.2.3.4", 1, hang, THERE)
    with pytest.raises(TimedOut):
        await requests.json(THERE, "PUT", PATH, content={}, limits=HASTY)


@pytest.mark.parametrize(
    ("answer", "status", "expected"),
    [
        ({"errcode": "M_FORBIDDEN", "error": "no"}, 403, (403, "M_FORBIDDEN", "no", None)),
        (
            {"errcode": "M_LIMIT_EXCEEDED", "error": "x", "retry_after_ms": 5},
            429,
            (429, "M_LIMIT_EXCEEDED", "x", 5),
        ),
        ({"retry_after_ms": 10**30}, 429, (429, None, "", 86_400_000)),
        ({"retry_after_ms": -1}, 429, (429, None, "", 7000)),
        ({"retry_after_ms": True}, 429, (429, None, "", 7000)),
        ({"errcode": 5, "error": []}, 500, (500, None, "", 7000)),
        ("text", 502, (502, None, "", 7000)),
        ([], 404, (404, None, "", 7000)),
        ({"errcode": "M_X\r\n", "error": "a\x00b" + "c" * 1000}, 400, (400, "M_X", "a b" + "c" * 297, 7000)),
    ],
)
async def test_a_refusal_says_why_in_bounds(
    internet: Internet, answer: Any, status: int, expected: tuple[int, str | None, str, int | None]
) -> None:
    headers = {} if expected[3] in (None, 5) else {"Retry-After": "7"}
    await there(internet, answering(answer, status, headers))
    with pytest.raises(Refused) as caught:
        await internet.requests(HERE, KEY).json(THERE, "GET", PATH)
    error = caught.value
    assert (error.status, error.errcode, error.error, error.retry_after_ms) == expected


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=500)
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def test_an_endless_refusal_is_one_all_the_same(internet: Internet) -> None:
    await there(internet, endless)
    with pytest.raises(Refused) as caught:
        await internet.requests(HERE, KEY).json(THERE, "GET", PATH)
    assert caught.value.status == 500


async def not_json(request: web.Request) -> web.Response:
    return web.Response(body=b"\xff{")


async def deep(request: web.Request) -> web.Response:
    return web.Response(body=b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize(
    "handler", [not_json, deep, answering({}, 301), answering({}, 204), answering({}, 202)]
)
async def test_an_answer_that_cannot_be_used_is_a_bad_one(internet: Internet, handler: Any) -> None:
    await there(internet, handler)
    with pytest.raises(BadAnswer):
        await internet.requests(HERE, KEY).json(THERE, "GET", PATH)


async def test_who_is_not_called(internet: Internet) -> None:
    requests = internet.requests(HERE, KEY)
    with pytest.raises(Unreachable, match="itself"):
        await requests.json(HERE, "GET", PATH)
    with pytest.raises(NameNotFound):
        await requests.json("not a name", "GET", PATH)
    assert internet.tried == []


async def test_the_members_of_a_big_answer_come_one_by_one(internet: Internet) -> None:
    events = [{"n": number, "text": "x" * 500} for number in range(3000)]
    await there(internet, answering({"state": events, "origin": "o", "auth_chain": events[:2]}))
    found = []
    async with internet.requests(HERE, KEY).members(THERE, "GET", PATH, ("state", "auth_chain")) as members:
        async for name, value in members:
            found.append((name, value))
    assert found == [("state", event) for event in events] + [("origin", "o")] + [
        ("auth_chain", event) for event in events[:2]
    ]


@pytest.mark.parametrize("answer", [[], {"state": {}}, {"state": ["x" * 600_000]}, "x"])
async def test_a_big_answer_of_another_form_is_a_bad_one(internet: Internet, answer: Any) -> None:
    async def read() -> None:
        async with internet.requests(HERE, KEY).members(THERE, "GET", PATH, ("state",)) as members:
            async for _ in members:
                pass

    await there(internet, answering(answer))
    with pytest.raises(BadAnswer):
        await read()


async def test_who_stops_reading_holds_no_connection(internet: Internet) -> None:
    await there(internet, answering({"state": [{"text": "x" * 1000}] * 5000}))
    transport = internet.transport(per_host=1)
    requests = internet.requests(HERE, KEY, transport)
    for _ in range(3):
        async with requests.members(THERE, "GET", PATH, ("state",)) as members:
            await anext(members)
    assert transport.under_way == 0


@pytest.mark.parametrize(
    "name", ["xn--", "xn--.example", "xn--a.example", "xn--\u0041-.example:1", "-.example", "..", "a" * 70]
)
async def test_names_that_nobody_can_have_are_not_found(internet: Internet, name: str) -> None:
    with pytest.raises(NameNotFound):
        await internet.requests(HERE, KEY).json(name, "GET", PATH)
    internet.dns.names[name.partition(":")[0]] = ["1.2.3.4"]
    with pytest.raises(Unreachable):
        await internet.requests(HERE, KEY).json(name, "GET", PATH)
