"""Devices: listed, renamed, deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, error_of, refused

if TYPE_CHECKING:
    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}


async def devices_of(client: Client) -> list[str]:
    return [device["device_id"] for device in (await client.get("/devices"))["devices"]]


async def test_devices_are_listed_with_where_they_were_seen(server: Server, alice: Client) -> None:
    await server.login(alice, "PHONE")
    before = server.clock.now_ms()
    devices = {device["device_id"]: device for device in (await alice.get("/devices"))["devices"]}
    assert devices.keys() == {alice.device_id, "PHONE"}
    assert devices[alice.device_id]["last_seen_ip"] == "127.0.0.1"
    assert before <= devices[alice.device_id]["last_seen_ts"] <= server.clock.now_ms()
    assert devices["PHONE"] == {"device_id": "PHONE"}
    assert await alice.get("/devices/PHONE") == {"device_id": "PHONE"}


async def test_a_device_can_be_renamed(server: Server, alice: Client) -> None:
    await server.login(alice, "PHONE")
    assert await alice.put("/devices/PHONE", {"display_name": "Pocket"}) == {}
    assert (await alice.get("/devices/PHONE"))["display_name"] == "Pocket"
    # "If not given, the display name is unchanged."
    await alice.put("/devices/PHONE", {})
    assert (await alice.get("/devices/PHONE"))["display_name"] == "Pocket"
    await alice.put("/devices/PHONE", {"display_name": ""})
    assert (await alice.get("/devices/PHONE"))["display_name"] == ""


@pytest.mark.parametrize(
    ("name", "errcode"),
    [("x" * 1001, "M_INVALID_PARAM"), ("a\x00b", "M_INVALID_PARAM"), (5, "M_BAD_JSON")],
)
async def test_a_bad_name_is_refused(alice: Client, name: Any, errcode: str) -> None:
    with refused(400, errcode):
        await alice.put(f"/devices/{alice.device_id}", {"display_name": name})


async def test_devices_of_others_are_unknown(alice: Client, bob: Client) -> None:
    for call in (
        alice.get(f"/devices/{bob.device_id}"),
        alice.put(f"/devices/{bob.device_id}", {"display_name": "Mine"}),
        alice.put(f"/devices/{bob.device_id}", {}),
    ):
        with refused(404, "M_NOT_FOUND"):
            await call
    await alice.delete(f"/devices/{bob.device_id}", {"auth": AUTH})
    assert await devices_of(bob) == [bob.device_id]


async def test_deleting_ends_the_session(server: Server, alice: Client) -> None:
    phone = await server.login(alice, "PHONE")
    await alice.delete("/devices/PHONE", {"auth": AUTH})
    with refused(401, "M_UNKNOWN_TOKEN"):
        await phone.sync()
    with refused(404, "M_NOT_FOUND"):
        await alice.get("/devices/PHONE")
    # "or had been removed previously"
    assert await alice.delete("/devices/PHONE", {"auth": AUTH}) == {}


async def test_a_device_can_delete_itself(alice: Client) -> None:
    await alice.delete(f"/devices/{alice.device_id}", {"auth": AUTH})
    with refused(401, "M_UNKNOWN_TOKEN"):
        await alice.sync()


async def test_several_devices_go_at_once(server: Server, alice: Client) -> None:
    phones = [await server.login(alice, f"PHONE{number}") for number in range(3)]
    body = {"devices": ["PHONE0", "PHONE2", "UNKNOWN"], "auth": AUTH}
    assert await alice.post("/delete_devices", body) == {}
    assert set(await devices_of(alice)) == {alice.device_id, "PHONE1"}
    await phones[1].sync()
    for phone in (phones[0], phones[2]):
        with refused(401, "M_UNKNOWN_TOKEN"):
            await phone.sync()


@pytest.mark.parametrize("devices", ["PHONE", [5], None, {"a": 1}])
async def test_what_is_no_list_of_devices_is_refused(alice: Client, devices: Any) -> None:
    with refused(400, "M_BAD_JSON"):
        await alice.post("/delete_devices", {"devices": devices, "auth": AUTH})


async def test_any_text_can_be_asked_for(alice: Client) -> None:
    for name in ("%F0%9F%92%A9", "x" * 2000, "..%2F"):
        error = await error_of(alice.get(f"/devices/{name}"))
        assert (error.status, error.errcode) == (404, "M_NOT_FOUND")


async def test_logins_on_one_device_at_once_leave_one_session(server: Server, alice: Client) -> None:
    phones = await asyncio.gather(*(server.login(alice, "PHONE") for _ in range(3)))
    assert sorted(await devices_of(alice)) == sorted([alice.device_id, "PHONE"])
    answers = [await asyncio.gather(phone.sync(), return_exceptions=True) for phone in phones]
    assert sum(isinstance(answer, dict) for (answer,) in answers) == 1
