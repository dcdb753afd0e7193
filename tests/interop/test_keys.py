"""Synapse and a server of ours believe each other's certificates, keys and signed requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import trustme

from federation.errors import CertificateRefused, Refused
from federation.keyring import WantedKey
from federation.server_keys import parse_notary_answer
from tests.federation.neighbours import Neighbour

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.interop.synapse import Synapse

pytestmark = pytest.mark.interop


@pytest.fixture
async def ours(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[Neighbour]:
    server = Neighbour(tmp_path / "ours", f"sqlite:///{tmp_path}/ours/restante.db", authority)
    await server.start()
    yield server
    await server.stop()


def key_of(server: Neighbour) -> str:
    (key_id,) = server.application.remote.servers.keyring.own_document()["verify_keys"]
    return str(key_id)


async def test_we_believe_synapse(synapse: Synapse, ours: Neighbour) -> None:
    client, keyring = ours.application.remote.servers.client, ours.application.remote.servers.keyring
    assert (await client.version(synapse.name)).server.name == "Synapse"
    (key_id,) = (await client.server_keys(synapse.name))["verify_keys"]
    wanted = WantedKey(synapse.name, key_id, for_request=True)
    assert (await keyring.find([wanted])).keys() == {wanted}


async def test_synapse_believes_our_signed_requests(synapse: Synapse, ours: Neighbour) -> None:
    client = ours.application.remote.servers.client
    await asyncio.to_thread(synapse.register, "alice")
    assert (await client.query_profile(synapse.name, f"@alice:{synapse.name}"))["displayname"] == "alice"
    with pytest.raises(Refused) as caught:
        await client.query_profile(synapse.name, f"@nobody/+ü:{synapse.name}")
    assert caught.value.status == 404
    keys = await client.query_user_keys(synapse.name, {f"@alice:{synapse.name}": []})
    assert keys.device_keys.keys() <= {f"@alice:{synapse.name}"}


async def test_we_believe_the_signed_requests_of_synapse(synapse: Synapse, ours: Neighbour) -> None:
    token = await asyncio.to_thread(synapse.register, "bob")
    path = f"/_matrix/client/v3/profile/@someone:{ours.name}/displayname"
    ours.answers["/_matrix/federation/v1/query/profile"] = {"displayname": "Someone"}
    status, answer = await asyncio.to_thread(synapse.get, path, token)
    assert (status, answer) == (200, {"displayname": "Someone"}), synapse.log()
    assert ours.believed == [synapse.name]


async def test_synapse_is_a_notary_for_us_and_we_for_it(synapse: Synapse, ours: Neighbour) -> None:
    remote = ours.application.remote.servers
    (key_id,) = (await remote.client.server_keys(synapse.name))["verify_keys"]
    wanted = WantedKey(synapse.name, key_id, for_request=True)
    notary_keys = {key_id: (await remote.keyring.find([wanted]))[wanted]}
    # Asked for no key in particular, Synapse tells only what it knows already.
    answer = await remote.client.query_server_keys(
        synapse.name, {ours.name: {key_of(ours): {"minimum_valid_until_ts": 0}}}
    )
    believed = parse_notary_answer(answer, [ours.name], synapse.name, notary_keys, ours.clock.now_ms())
    assert [document.server_name for document in believed] == [ours.name]
    (ours_for_it,) = await remote.keyring.notarised({synapse.name: {}})
    assert ours_for_it["signatures"].keys() == {synapse.name, ours.name}


async def test_neither_believes_the_certificate_of_another_authority(
    synapse: Synapse, tmp_path: Path
) -> None:
    stranger = Neighbour(tmp_path / "ours", f"sqlite:///{tmp_path}/ours/restante.db", trustme.CA())
    await stranger.start()
    try:
        with pytest.raises(CertificateRefused):
            await stranger.application.remote.servers.client.version(synapse.name)
        body = {"server_keys": {stranger.name: {key_of(stranger): {"minimum_valid_until_ts": 0}}}}
        answer = await asyncio.to_thread(synapse.http.post, "/_matrix/key/v2/query", json=body)
        assert answer.json() == {"server_keys": []}
    finally:
        await stranger.stop()
