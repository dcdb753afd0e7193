"""Real servers of ours find each other, and believe each other's keys and signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme

from federation.errors import CertificateRefused, Refused, Unreachable
from federation.keyring import WantedKey
from federation.server_keys import parse_document
from tests.federation.neighbours import Neighbour
from tests.keys import Device, claim_one, query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Start = Callable[..., Awaitable[Neighbour]]

DAY = 86_400_000


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def start(tmp_path: Path, empty_database_url: str, authority: trustme.CA) -> AsyncIterator[Start]:
    """Starts servers; the first is on the engine of the test."""
    started: list[Neighbour] = []

    async def start_one(**settings: Any) -> Neighbour:
        directory = tmp_path / str(len(started))
        url = f"sqlite:///{directory}/restante.db" if started else empty_database_url
        one = Neighbour(directory, url, settings.pop("authority", authority), **settings)
        await one.start()
        started.append(one)
        return one

    yield start_one
    for one in started:
        await one.stop()


def own_key(server: Neighbour) -> WantedKey:
    (key_id,) = server.application.remote.servers.keyring.own_document()["verify_keys"]
    return WantedKey(server.name, key_id, for_request=True)


async def test_each_fetches_the_others_keys_and_keeps_them(start: Start) -> None:
    first, second = await start(), await start()
    for here, there in ((first, second), (second, first)):
        wanted = own_key(there)
        found = await here.application.remote.servers.keyring.find([wanted])
        assert found.keys() == {wanted}
    await second.stop()
    # What was fetched outlives a restart, and the other's absence.
    await first.restart()
    assert (await first.application.remote.servers.keyring.find([own_key(second)])).keys() == {
        own_key(second)
    }
    await second.start()


async def test_versions_are_told(start: Start) -> None:
    first, second = await start(), await start()
    answer = await first.application.remote.servers.client.version(second.name)
    assert answer.server.name == "Restante"


async def test_a_notary_answers_for_a_server_that_is_away(start: Start) -> None:
    first, notary, away = await start(), await start(), await start()
    client = first.application.remote.servers.client
    (document,) = await client.query_server_keys_of(notary.name, away.name)
    assert document["signatures"].keys() == {notary.name, away.name}
    await away.stop()
    (again,) = await client.query_server_keys(notary.name, {away.name: {}})
    assert (
        parse_document(again, away.name, first.clock.now_ms(), direct=False).keys[0].server_name == away.name
    )
    await away.start()


async def test_keys_come_by_the_configured_notary_where_the_server_is_away(start: Start) -> None:
    notary, away = await start(), await start()
    first = await start(federation={"key_servers": [notary.name]})
    await notary.application.remote.servers.keyring.find([own_key(away)])
    wanted = own_key(away)
    await away.stop()
    assert (await first.application.remote.servers.keyring.find([wanted])).keys() == {wanted}
    await away.start()


async def test_a_server_whose_certificate_is_of_another_authority_is_refused(start: Start) -> None:
    first, stranger = await start(), await start(authority=trustme.CA())
    with pytest.raises(CertificateRefused):
        await first.application.remote.servers.client.version(stranger.name)


async def test_a_private_address_is_not_called_unless_it_is_allowed(start: Start) -> None:
    first, second = await start(federation={"allow_private_addresses": False}), await start()
    with pytest.raises(Unreachable, match="public internet"):
        await first.application.remote.servers.client.version(second.name)


async def test_where_federation_is_switched_off_nobody_calls_and_nobody_is_answered(start: Start) -> None:
    first, second = await start(federation={"enabled": False}), await start()
    with pytest.raises(Unreachable, match="switched off"):
        await first.application.remote.servers.client.version(second.name)
    with pytest.raises(Refused) as caught:
        await second.application.remote.servers.client.version(first.name)
    assert (caught.value.status, caught.value.errcode) == (404, "M_UNRECOGNIZED")


async def test_keys_of_the_others_users_are_seen_and_claimed(start: Start) -> None:
    first, second = await start(), await start()
    alice, bob = await first.register("alice"), await second.register("bob")
    device = Device(bob)
    (key,) = (await device.upload(1)).items()
    answer = await query(alice, bob.user_id)
    assert answer["failures"] == {}
    assert answer["device_keys"][bob.user_id][bob.device_id]["keys"] == device.device_keys()["keys"]
    assert await claim_one(alice, bob) == key
    await second.stop()
    assert (await query(alice, bob.user_id))["failures"].keys() == {second.name}
    await second.start()
