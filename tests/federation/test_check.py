"""What is said of a server, step by step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from crypto.keys import key_from_seed
from federation.check import Finding, check_server
from federation.discovery import Discovery
from federation.resolver import Service
from federation.server_keys import own_document
from tests.federation.internet import FEDERATION, HTTPS, Internet, answering

if TYPE_CHECKING:
    from crypto.keys import SigningKey

NAME = "a.example"
KEY = key_from_seed("one", b"1" * 32)


async def check(internet: Internet, name: str = NAME, *own: SigningKey) -> dict[str, Finding]:
    transport = internet.transport()
    discovery = Discovery(internet.well_known(transport), internet.dns)
    findings = check_server(name, discovery, internet.dns, transport, internet.clock.now_ms(), own)
    return {finding.subject: finding async for finding in findings}


async def server(
    internet: Internet, address: str, port: int, certified_for: str, *, name: str = NAME, version: Any = None
) -> None:
    application = web.Application()
    document = own_document(name, [KEY], internet.clock.now_ms())
    application.router.add_get("/_matrix/key/v2/server", answering(document))
    if version is not None:
        application.router.add_get("/_matrix/federation/v1/version", answering(version))
    await internet.site(address, port, application, certified_for)


async def test_a_delegated_server_with_a_service_record(internet: Internet) -> None:
    internet.dns.names |= {NAME: ["1.2.3.4"], "host.example": ["5.6.7.8"]}
    internet.dns.records["_matrix._tcp.b.example"] = [Service(0, 0, "host.example", 1234)]
    await internet.site("1.2.3.4", HTTPS, answering({"m.server": "b.example"}), NAME)
    await server(internet, "5.6.7.8", 1234, "b.example", version={"server": {"name": "X", "version": "1"}})
    found = await check(internet)
    assert {finding.is_good for finding in found.values()} == {True, None}
    assert found["well-known"].text == "a.example delegates to b.example"
    assert "deprecated" in found["SRV"].text
    assert "host.example is 5.6.7.8" in found["address"].text
    assert "called as b.example" in found["connection"].text
    assert "good for b.example" in found["certificate"].text
    assert "ed25519:one" in found["keys"].text
    assert found["version"].text == "X 1"


async def test_a_server_on_the_usual_port_needs_no_well_known_file(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await server(internet, "1.2.3.4", FEDERATION, NAME, version={})
    found = await check(internet)
    assert found["well-known"].is_good is None
    assert found["connection"].is_good


async def test_a_certificate_for_the_wrong_name_is_said_with_the_right_one(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await server(internet, "1.2.3.4", FEDERATION, "other.example")
    found = await check(internet)
    assert found["connection"].is_good is False
    assert "must be for a.example" in found["connection"].text


async def test_a_name_without_address_is_said(internet: Internet) -> None:
    found = await check(internet)
    assert found["address"].is_good is False
    assert "A or AAAA record" in found["address"].text


async def test_keys_of_another_server_are_said(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await server(internet, "1.2.3.4", FEDERATION, NAME, name="other.example", version={})
    found = await check(internet)
    assert found["keys"].is_good is False
    assert "of other.example" in found["keys"].text
    assert found["version"].is_good


async def test_keys_that_ran_out_are_said(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await server(internet, "1.2.3.4", FEDERATION, NAME, version={})
    internet.clock.offset = 48 * 3600
    assert "ran out" in (await check(internet))["keys"].text


async def test_another_server_that_answers_to_ones_own_name_is_found_out(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await server(internet, "1.2.3.4", FEDERATION, NAME, version={})
    assert (await check(internet, NAME, KEY, key_from_seed("old", b"2" * 32)))["keys"].is_good
    for other in (key_from_seed("one", b"2" * 32), key_from_seed("two", b"1" * 32)):
        found = (await check(internet, NAME, other))["keys"]
        assert found.is_good is False
        assert "another server answers to this name" in found.text


async def test_ones_own_name_that_is_private_here_is_to_be_looked_at_from_outside(internet: Internet) -> None:
    internet.dns.names[NAME] = ["192.168.1.2"]
    assert "look from outside" in (await check(internet, NAME, KEY))["connection"].text
    assert "look from outside" not in (await check(internet))["connection"].text


async def test_nothing_that_a_server_says_reaches_the_terminal_as_it_is(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    named = {"server": {"name": "X\x1b[2J\r\n", "version": "1" * 10_000}}
    await server(internet, "1.2.3.4", FEDERATION, NAME, name="y\x1b]0;z\x07", version=named)
    found = await check(internet)
    assert all(text.isprintable() and len(text) < 1000 for text in (one.text for one in found.values()))
    assert found["version"].text.startswith("X [2J 11")


async def test_a_certificate_that_ran_out_is_to_be_renewed(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    until = datetime(2020, 1, 1, tzinfo=UTC)
    await internet.site("1.2.3.4", FEDERATION, answering({}), NAME, until=until)
    text = (await check(internet))["connection"].text
    assert "certificate has expired: renew it" in text
    assert "must be for" not in text


async def test_a_port_that_nobody_opened_is_said(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    text = (await check(internet))["connection"].text
    assert "refused, nothing listens there" in text
    assert "Is the port forwarded" in text


async def test_a_server_behind_a_proxy_that_does_not_run_is_said(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await internet.site("1.2.3.4", FEDERATION, answering({}, 502), NAME)
    assert "Does it run behind the reverse proxy" in (await check(internet))["connection"].text


async def test_a_proxy_that_passes_nothing_on_is_said(internet: Internet) -> None:
    internet.dns.names[NAME] = ["1.2.3.4"]
    await internet.site("1.2.3.4", FEDERATION, answering({}, 404), NAME)
    found = await check(internet)
    assert "pass /_matrix on" in found["connection"].text


@pytest.mark.parametrize("name", ["", "a b", "@a:b"])
async def test_what_is_no_name_is_said(internet: Internet, name: str) -> None:
    found = await check(internet, name)
    assert found["name"].is_good is False
