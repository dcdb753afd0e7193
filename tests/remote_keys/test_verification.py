"""A user of another server is verified by a signature over their master key, which only the signer sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.delivery.far_servers import shared_room
from tests.keys import User, query

if TYPE_CHECKING:
    from tests.client import Client
    from tests.remote_keys.far_server import FarServer
    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}


@pytest.mark.parametrize("shared", [True, False])
async def test_who_is_verified_is_shown_with_the_signature_to_who_verified_them(
    server: Server, alice: Client, bob: Client, far: FarServer, shared: bool
) -> None:
    zoe = far.user("zoe")
    far.sign_across(zoe)
    if shared:
        await shared_room(server, alice, zoe)
    user = User(alice)
    await alice.post("/keys/device_signing/upload", {**user.keys(), "auth": AUTH})
    since = (await alice.sync())["next_batch"]
    master = (await query(alice, zoe))["master_keys"][zoe]
    ((key_id, public_key),) = master["keys"].items()
    signed = user.signed(master, user.user_signing)
    forged = user.signed(master, user.self_signing, name=user.user_signing.public_base64)
    answer = await alice.post("/keys/signatures/upload", {zoe: {public_key: forged, "OTHER": signed}})
    assert answer["failures"][zoe].keys() == {public_key, "OTHER"}
    assert await alice.post("/keys/signatures/upload", {zoe: {public_key: signed}}) == {"failures": {}}
    shown = (await query(alice, zoe))["master_keys"][zoe]
    assert shown["signatures"][alice.user_id] == signed["signatures"][alice.user_id]
    assert alice.user_id not in (await query(bob, zoe))["master_keys"][zoe]["signatures"]
    assert (await alice.sync(since=since))["device_lists"]["changed"] == [zoe]
    # New keys are not verified.
    far.sign_across(zoe)
    await far.tell(far.signing_update(zoe))
    again = (await query(alice, zoe))["master_keys"][zoe]
    assert again["keys"] != {key_id: public_key}
    assert alice.user_id not in again["signatures"]


async def test_whose_server_does_not_tell_the_key_cannot_be_verified(alice: Client, far: FarServer) -> None:
    zoe = far.user("zoe")
    far.sign_across(zoe)
    user = User(alice)
    await alice.post("/keys/device_signing/upload", {**user.keys(), "auth": AUTH})
    master = (await query(alice, zoe))["master_keys"][zoe]
    ((_, public_key),) = master["keys"].items()
    far.is_away = True
    signed = user.signed(master, user.user_signing)
    answer = await alice.post("/keys/signatures/upload", {zoe: {public_key: signed}})
    assert answer["failures"][zoe][public_key]["errcode"] == "M_NOT_FOUND"
