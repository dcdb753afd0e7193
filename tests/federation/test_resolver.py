"""Names, looked up at a real name server on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from federation.resolver import DnsResolver, LookupFailed, NoSuchName, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ZONE = {
    ("both.example.", "A"): ["1.2.3.4", "1.2.3.5"],
    ("both.example.", "AAAA"): ["2a01::1"],
    ("four.example.", "A"): ["1.2.3.6"],
    ("alias.example.", "CNAME"): ["four.example."],
    ("_matrix-fed._tcp.both.example.", "SRV"): ["10 5 8448 host.example.", "20 0 1 ."],
    ("many.example.", "A"): [f"1.1.1.{number}" for number in range(200)],
}


class NameServer(asyncio.DatagramProtocol):
    """Answers from the zone."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.transport: asyncio.DatagramTransport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name == "broken.example.":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif not any(known == name for known, _ in ZONE):
            response.set_rcode(dns.rcode.NXDOMAIN)
        while (name, "CNAME") in ZONE:
            (target,) = ZONE[name, "CNAME"]
            response.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", target))
            name = target
        if (name, kind) in ZONE:
            response.answer.append(dns.rrset.from_text(name, 300, "IN", kind, *ZONE[name, kind]))
        self.transport.sendto(response.to_wire(max_size=65_535), address)


@pytest.fixture
async def name_server() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    server.transport = transport
    yield server
    transport.close()


@pytest.fixture
def resolver(name_server: NameServer, tmp_path: Path) -> DnsResolver:
    (tmp_path / "hosts").write_text(
        "127.0.0.1 localhost\n10.0.0.1  Here.Example here # a comment\nnonsense\n::1 localhost\n"
    )
    made = DnsResolver(tmp_path / "hosts")
    made._resolver.nameservers = ["127.0.0.1"]
    made._resolver.port = name_server.transport.get_extra_info("sockname")[1]
    return made


async def test_addresses_of_both_kinds_are_found(resolver: DnsResolver) -> None:
    found = await resolver.addresses("both.example")
    assert str(found[0]) == "2a01::1"
    assert {str(address) for address in found[1:]} == {"1.2.3.4", "1.2.3.5"}
    assert await resolver.addresses("alias.example") == [ipaddress.ip_address("1.2.3.6")]


async def test_services_are_found(resolver: DnsResolver) -> None:
    found = await resolver.services("_matrix-fed._tcp.both.example")
    assert set(found) == {Service(10, 5, "host.example", 8448), Service(20, 0, ".", 1)}


async def test_an_answer_is_kept_as_long_as_it_says(resolver: DnsResolver, name_server: NameServer) -> None:
    for _ in range(3):
        await resolver.addresses("four.example")
    assert sorted(name_server.asked) == ["four.example. A", "four.example. AAAA"]


async def test_the_hosts_file_goes_first(resolver: DnsResolver, name_server: NameServer) -> None:
    assert [str(address) for address in await resolver.addresses("HERE.example")] == ["10.0.0.1"]
    assert [str(address) for address in await resolver.addresses("localhost.")] == ["127.0.0.1", "::1"]
    assert name_server.asked == []


@pytest.mark.parametrize(
    "name", ["absent.example", "a..example", "x" * 64 + ".example", "y." * 130, ".", "\\300", "ü" * 63]
)
async def test_what_is_not_there_is_said_to_be_so(resolver: DnsResolver, name: str) -> None:
    for look in (resolver.addresses, resolver.services):
        with pytest.raises((NoSuchName, LookupFailed)):
            await look(name)


async def test_a_name_server_that_fails_is_told_apart_from_a_name_that_is_absent(
    resolver: DnsResolver,
) -> None:
    with pytest.raises(LookupFailed):
        await resolver.addresses("broken.example")
    with pytest.raises(NoSuchName):
        await resolver.addresses("absent.example")


async def test_no_more_records_are_taken_than_can_be_tried(resolver: DnsResolver) -> None:
    assert len(await resolver.addresses("many.example")) == 16
