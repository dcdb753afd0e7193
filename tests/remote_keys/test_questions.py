"""Keys of other servers' users are asked of these servers, which may answer what they like, or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.keys import USUAL, Device, query
from tests.remote_keys.far_server import FarServer, Network

if TYPE_CHECKING:
    from tests.client import Client


async def test_keys_are_shown_as_their_server_tells_them(alice: Client, far: FarServer) -> None:
    zoe = far.user("zoe")
    far.device(zoe, "PHONE")
    far.device(zoe, "DESK")
    user = far.sign_across(zoe)
    answer = await query(alice, zoe, far.user("nobody_with_keys"))
    shown = {name: {**value, "unsigned": {}} for name, value in far.devices[zoe].items()}
    assert answer["device_keys"] == {zoe: shown, far.user("nobody_with_keys"): {}}
    assert answer["failures"] == answer["user_signing_keys"] == {}
    assert answer["self_signing_keys"] == {zoe: user.keys()["self_signing_key"]}
    assert answer["master_keys"][zoe]["keys"] == user.keys()["master_key"]["keys"]
    body = {"device_keys": {zoe: ["DESK", "UNKNOWN"]}}
    assert (await alice.post("/keys/query", body))["device_keys"][zoe].keys() == {"DESK"}


async def test_every_server_is_asked_once_and_one_that_is_away_holds_up_nobody(
    alice: Client, bob: Client, network: Network, far: FarServer
) -> None:
    away, refusing = FarServer(network, "away.example"), FarServer(network, "refusing.example")
    away.is_away = refusing.refuses = True
    users = [far.user("zoe"), far.user("yan"), away.user("a"), refusing.user("b"), "@x:unknown.example"]
    await Device(bob).upload()
    answer = await query(alice, *users, bob.user_id)
    assert answer["failures"].keys() == {"away.example", "refusing.example", "unknown.example"}
    assert answer["device_keys"].keys() == {*users[:2], bob.user_id}
    assert len(far.asked) == len(away.asked) == 1
    # Not asked again at once; a server that was away and calls is.
    assert (await query(alice, away.user("a")))["failures"].keys() == {"away.example"}
    assert len(away.asked) == 1
    away.is_away = False
    network.server.clock.offset_ms += 3_000
    assert (await query(alice, away.user("a")))["failures"] == {}


async def test_who_does_not_answer_in_time_is_a_failure(alice: Client, far: FarServer) -> None:
    far.is_silent = True
    zoe = far.user("zoe")
    body: dict[str, Any] = {"device_keys": {zoe: []}, "timeout": 50}
    assert (await alice.post("/keys/query", body))["failures"].keys() == {"far.example"}
    body = {"one_time_keys": {zoe: {"PHONE": USUAL}}, "timeout": 50}
    assert await alice.post("/keys/claim", body) == {
        "one_time_keys": {},
        "failures": {"far.example": {"errcode": "M_UNKNOWN", "error": "This server cannot be reached"}},
    }


async def test_only_what_was_asked_for_and_is_rightly_signed_is_believed(
    alice: Client, bob: Client, far: FarServer
) -> None:
    zoe, yan = far.user("zoe"), far.user("yan")
    good, other = far.device(zoe, "GOOD"), far.device(yan, "OTHER")
    bobs = Device(bob).device_keys()
    forged = Device(good.client).device_keys()
    forged["keys"] = good.device_keys()["keys"]
    far.devices[zoe] |= {
        "OTHER": other.device_keys(),
        "RENAMED": good.device_keys(),
        "FORGED": {**forged, "device_id": "FORGED"},
        "EMPTY": {},
        "BIG": good.signed({**good.device_keys(), "x": "y" * 20_000}),
        "N\x00L": good.device_keys(device_id="N\x00L"),
    }
    user, stranger = far.sign_across(zoe), far.sign_across(yan)
    far.cross_signing[zoe]["self_signing"] = stranger.keys()["self_signing_key"]
    far.cross_signing[yan]["master"] = {**stranger.keys()["master_key"], "usage": ["master", "self_signing"]}
    far.also = {
        "device_keys": {bob.user_id: {bob.device_id: bobs}, "@x:else.example": {}},
        "master_keys": {bob.user_id: user.keys()["master_key"]},
        "user_signing_keys": {zoe: user.keys()["user_signing_key"]},
    }
    answer = await query(alice, zoe, yan, bob.user_id)
    assert answer["device_keys"].keys() == {zoe, yan, bob.user_id}
    assert answer["device_keys"][zoe].keys() == {"GOOD"}
    assert answer["device_keys"][bob.user_id] == {}
    assert answer["master_keys"].keys() == {zoe}
    assert answer["self_signing_keys"] == answer["user_signing_keys"] == {}


@pytest.mark.parametrize("broken", [{"device_keys": 5}, {"device_keys": {"@zoe:far.example": []}}])
async def test_an_answer_of_another_form_is_none(alice: Client, far: FarServer, broken: Any) -> None:
    far.query = lambda _: broken  # type: ignore[method-assign]
    answer = await query(alice, far.user("zoe"))
    assert answer["failures"].keys() == {"far.example"}
    assert answer["device_keys"] == {}


async def test_keys_are_claimed_of_each_server_as_they_were_asked_for(
    alice: Client, bob: Client, network: Network, far: FarServer
) -> None:
    away = FarServer(network, "away.example")
    away.is_away = True
    zoe = far.user("zoe")
    devices = {name: far.device(zoe, name) for name in ("GOOD", "NONE", "TWO", "OTHER", "WRONG")}
    good = devices["GOOD"].one_time_keys(1)
    far.one_time_keys[zoe] = {
        "GOOD": good,
        "NONE": {},
        "TWO": devices["TWO"].one_time_keys(2),
        "OTHER": {"curve25519:AA": "key"},
        "WRONG": {f"{USUAL}:AA": {"key": 5}},
    }
    far.also["one_time_keys"] = {bob.user_id: {bob.device_id: good}}
    (bobs,) = (await Device(bob).upload(1)).items()
    wanted: dict[str, Any] = {
        zoe: dict.fromkeys(devices, USUAL),
        bob.user_id: {bob.device_id: USUAL},
        away.user("x"): {"X": USUAL},
    }
    answer = await alice.post("/keys/claim", {"one_time_keys": wanted})
    assert answer["one_time_keys"] == {zoe: {"GOOD": good}, bob.user_id: {bob.device_id: dict([bobs])}}
    assert answer["failures"].keys() == {"away.example"}
    assert far.asked == [("claim", {zoe: wanted[zoe]})]


async def test_two_silent_servers_are_waited_for_at_the_same_time(
    alice: Client, network: Network, far: FarServer
) -> None:
    other = FarServer(network, "other.example")
    far.is_silent = other.is_silent = True
    waiting = asyncio.create_task(query(alice, far.user("zoe"), other.user("zoe")))
    await far.is_waiting.wait()
    await other.is_waiting.wait()
    far.may_answer.set()
    other.may_answer.set()
    assert (await waiting)["device_keys"].keys() == {far.user("zoe"), other.user("zoe")}
