"""Connections to the internet: never to where they must not go, and bounded in every way."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import web
from yarl import URL

from federation.errors import (
    AddressForbidden,
    BadAnswer,
    CertificateRefused,
    NameNotFound,
    TimedOut,
    Unreachable,
)
from federation.resolver import LookupFailed
from federation.transport import Limits, client_tls
from tests.federation.internet import HTTPS, Internet, answering

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Limits(max_bytes=1000, seconds=20)
HASTY = Limits(max_bytes=10_000, seconds=20, connect_seconds=0.3, idle_seconds=0.3)


async def test_a_name_is_called_at_its_address(internet: Internet) -> None:
    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({"here": True}), "site.example")
    answer = await internet.transport().request("GET", URL("https://site.example/"), SMALL)
    assert (answer.status, answer.body) == (200, b'{"here": true}')


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.1.1", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1", "0.0.0.0"]
)
async def test_no_name_leads_to_a_private_address(internet: Internet, address: str) -> None:
    internet.dns.names["evil.example"] = [address]
    await internet.site(address, HTTPS, answering({}), "evil.example")
    with pytest.raises(AddressForbidden):
        await internet.transport().request("GET", URL("https://evil.example/"), SMALL)
    assert internet.tried == []


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "10.1.1.1",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "[fe80::1]",
            "0.0.0.0",
            "[::]",
            "[64:ff9b::7f00:1]",
        ),
        *("2130706433", "0x7f000001", "127.1", "0177.0.0.1", "127.0.0.1.", "localhost", "[fe80::1%25lo]"),
    ],
)
async def test_no_literal_leads_there_either_in_whatever_form(internet: Internet, host: str) -> None:
    for encoded in (True, False):
        with pytest.raises(Unreachable):
            await internet.transport().request("GET", URL(f"https://{host}/", encoded=encoded), SMALL)
    assert internet.tried == []


async def test_of_a_name_with_both_kinds_only_the_public_addresses_are_called(internet: Internet) -> None:
    internet.dns.names["mixed.example"] = ["10.0.0.1", "1.2.3.4", "127.0.0.1"]
    await internet.site("1.2.3.4", HTTPS, answering({}), "mixed.example")
    assert (await internet.transport().request("GET", URL("https://mixed.example/"), SMALL)).status == 200
    assert internet.tried == [("1.2.3.4", HTTPS)]


async def test_a_name_that_changes_between_two_looks_gains_nothing(internet: Internet) -> None:
    """DNS rebinding: what was checked is what is connected to, with one look for each connection."""
    internet.dns.names["rebind.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({}, headers={"Connection": "close"}), "rebind.example")
    await internet.site("127.0.0.1", HTTPS, answering({}), "rebind.example")
    transport = internet.transport()
    url = URL("https://rebind.example/")
    await transport.request("GET", url, SMALL)
    assert internet.dns.asked == ["rebind.example"]
    internet.dns.names["rebind.example"] = ["127.0.0.1"]
    with pytest.raises(AddressForbidden):
        await transport.request("GET", url, SMALL)
    assert internet.tried == [("1.2.3.4", HTTPS)]


async def test_where_they_are_allowed_private_addresses_are_called(internet: Internet) -> None:
    internet.dns.names["here.example"] = ["127.0.0.1"]
    await internet.site("127.0.0.1", HTTPS, answering({}), "here.example")
    transport = internet.transport(allow_private_addresses=True)
    assert (await transport.request("GET", URL("https://here.example/"), SMALL)).status == 200


async def test_redirects_are_not_followed(internet: Internet) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "https://127.0.0.1/"})

    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, elsewhere, "site.example")
    assert (await internet.transport().request("GET", URL("https://site.example/"), SMALL)).status == 307
    assert internet.tried == [("1.2.3.4", HTTPS)]


# -- certificates ----------------------------------------------------------------------------------------


async def test_a_certificate_of_another_authority_is_refused(internet: Internet) -> None:
    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({}), "site.example", authority=trustme.CA())
    with pytest.raises(CertificateRefused):
        await internet.transport().request("GET", URL("https://site.example/"), SMALL)


async def test_a_certificate_for_another_name_is_refused(internet: Internet) -> None:
    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({}), "other.example")
    with pytest.raises(CertificateRefused):
        await internet.transport().request("GET", URL("https://site.example/"), SMALL)
    answer = await internet.transport().request(
        "GET", URL("https://site.example/"), SMALL, tls_name="other.example"
    )
    assert answer.status == 200


async def test_connections_are_shared_only_under_the_same_name(internet: Internet) -> None:
    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({}), "site.example")
    transport = internet.transport()
    for _ in range(3):
        await transport.request("GET", URL("https://site.example/"), SMALL)
    assert len(internet.tried) == 1
    with pytest.raises(CertificateRefused):
        await transport.request("GET", URL("https://site.example/"), SMALL, tls_name="other.example")


async def test_an_authority_can_be_added_and_checking_switched_off(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    before = client_tls(verify=True).cert_store_stats()["x509_ca"]
    context = client_tls(verify=True, trusted_ca=[tmp_path / "ca.pem"])
    assert context.cert_store_stats()["x509_ca"] == before + 1
    assert context.check_hostname
    assert not client_tls(verify=False).check_hostname
    with pytest.raises(OSError):
        client_tls(verify=True, trusted_ca=[tmp_path / "absent.pem"])


# -- bounds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_that_is_too_large_is_not_read(internet: Internet, announced: bool) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        if announced:
            response.content_length = 1 << 40
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)
            sent += 65_536

    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, endless, "site.example")
    with pytest.raises(BadAnswer, match="more than 1000 bytes"):
        await internet.transport().request("GET", URL("https://site.example/"), SMALL)
    assert sent < 50_000_000


async def test_an_answer_that_grows_when_it_is_unpacked_is_counted_unpacked(internet: Internet) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, handle, "site.example")
    limits = Limits(max_bytes=len(bomb) * 2, seconds=20)
    with pytest.raises(BadAnswer, match="more than"):
        await internet.transport().request("GET", URL("https://site.example/"), limits)


async def test_who_connects_and_says_nothing_is_given_up(internet: Internet) -> None:
    async def silence(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.raw_site("1.2.3.4", HTTPS, silence, "site.example")
    with pytest.raises(TimedOut) as caught:
        await internet.transport().request("GET", URL("https://site.example/"), HASTY)
    assert caught.value.connected


async def test_who_sends_one_byte_after_the_other_is_given_up_in_the_end(internet: Internet) -> None:
    async def drip(reader: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()

    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.raw_site("1.2.3.4", HTTPS, drip, "site.example")
    limits = Limits(max_bytes=10_000, seconds=0.5, idle_seconds=0.3)
    with pytest.raises(TimedOut):
        await internet.transport().request("GET", URL("https://site.example/"), limits)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000,
    ],
)
async def test_what_is_not_http_is_an_error_of_ours(internet: Internet, said: bytes) -> None:
    async def talk(reader: Any, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(said)
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    internet.dns.names["site.example"] = ["1.2.3.4"]
    await internet.raw_site("1.2.3.4", HTTPS, talk, "site.example")
    with pytest.raises((Unreachable, BadAnswer)):
        await internet.transport().request("GET", URL("https://site.example/"), HASTY)


async def test_only_so_many_connections_go_to_one_site_and_nobody_else_waits_for_them(
    internet: Internet,
) -> None:
    reached = asyncio.Event()
    at_once = 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal at_once
        at_once += 1
        if at_once == 3:
            reached.set()
        await asyncio.Event().wait()
        return web.Response()

    internet.dns.names |= {"slow.example": ["1.2.3.4"], "quick.example": ["1.2.3.5"]}
    await internet.site("1.2.3.4", HTTPS, slow, "slow.example")
    await internet.site("1.2.3.5", HTTPS, answering({}), "quick.example")
    transport = internet.transport(per_host=3, altogether=6, under_way_per_host=20)
    waiting = [
        asyncio.create_task(transport.request("GET", URL("https://slow.example/"), SMALL)) for _ in range(20)
    ]
    await asyncio.wait_for(reached.wait(), 20)
    assert (await transport.request("GET", URL("https://quick.example/"), SMALL)).status == 200
    with pytest.raises(Unreachable, match="too many requests"):
        await transport.request("GET", URL("https://slow.example/"), SMALL)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert at_once == 3
    assert transport.under_way == 0


async def test_names_that_cannot_be_called_are_told_apart(internet: Internet) -> None:
    internet.dns.failing["broken.example"] = LookupFailed("looking up broken.example failed")
    transport = internet.transport()
    with pytest.raises(NameNotFound):
        await transport.request("GET", URL("https://absent.example/"), SMALL)
    with pytest.raises(Unreachable, match="looking up") as caught:
        await transport.request("GET", URL("https://broken.example/"), SMALL)
    assert not isinstance(caught.value, NameNotFound)
    internet.dns.names["nobody.example"] = ["1.2.3.4"]
    with pytest.raises(Unreachable, match="no connection: refused, nothing listens there") as caught:
        await transport.request("GET", URL("https://nobody.example/"), SMALL)
    assert not caught.value.connected
    assert "Errno" not in caught.value.why


async def test_a_site_without_tls_is_said_to_be_one(internet: Internet) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(talk, "127.0.0.1", 0)
    internet.dns.names["plain.example"] = ["1.2.3.4"]
    internet.lead("1.2.3.4", HTTPS, plain.sockets[0].getsockname()[1])
    with pytest.raises(Unreachable, match="no connection: it does not speak TLS") as caught:
        await internet.transport().request("GET", URL("https://plain.example/"), SMALL)
    assert "_ssl.c" not in caught.value.why
    plain.close()
