"""`/_synapse/admin/v1/register`: accounts for tools that know the shared secret, as they have always asked for them."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import Client, Refused
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATH = "/_synapse/admin/v1/register"
SECRET = "the shared secret"


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    running = Server(tmp_path, database_url, registration={"mode": "closed", "shared_secret": SECRET})
    await running.start()
    yield running
    await running.stop()


def mac_of(body: dict[str, Any], secret: str = SECRET) -> str:
    """As `register_new_matrix_user` makes it."""
    mac = hmac.new(secret.encode("utf8"), digestmod=hashlib.sha1)
    mac.update(body["nonce"].encode("utf8"))
    for field in (body["username"], body["password"], "admin" if body.get("admin") else "notadmin"):
        mac.update(b"\x00")
        mac.update(field.encode("utf8"))
    if body.get("user_type"):
        mac.update(b"\x00")
        mac.update(body["user_type"].encode("utf8"))
    return mac.hexdigest()


async def register(client: Client, **fields: Any) -> dict[str, Any]:
    body = {"nonce": (await client.get(PATH))["nonce"], "username": "ann", "password": "secret", **fields}
    return await client.post(PATH, {"mac": mac_of(body), **body})


@pytest.mark.parametrize("admin", [True, False])
async def test_whoever_knows_the_secret_makes_accounts(server: Server, admin: bool) -> None:
    made = await register(server.nobody(), admin=admin, displayname="Ann")
    assert made["user_id"] == "@ann:example.org"
    assert made["home_server"] == "example.org"
    client = Client(server.http, made["user_id"], made["device_id"], made["access_token"])
    assert (await client.get("/account/whoami"))["device_id"] == made["device_id"]
    assert (await client.get(f"/profile/{client.user_id}"))["displayname"] == "Ann"
    (account,) = (await server.application.control.perform("user-list", {}))["users"]
    assert account["admin"] == admin
    await server.login(client)


async def test_the_type_of_a_user_is_under_the_mac(server: Server) -> None:
    await register(server.nobody(), username="bot", user_type="bot")
    await register(server.nobody(), username="none", user_type=None)
    nobody = server.nobody()
    body = {"nonce": (await nobody.get(PATH))["nonce"], "username": "ann", "password": "secret"}
    with pytest.raises(Refused, match="M_FORBIDDEN"):
        await nobody.post(PATH, {**body, "mac": mac_of(body), "user_type": "bot"})


@pytest.mark.parametrize(
    "changed", [{"username": "eve"}, {"password": "other"}, {"admin": True}, {"mac": "0" * 40}, {"mac": "ä"}]
)
async def test_what_the_mac_does_not_cover_is_refused(server: Server, changed: dict[str, Any]) -> None:
    nobody = server.nobody()
    body = {"nonce": (await nobody.get(PATH))["nonce"], "username": "ann", "password": "secret"}
    with pytest.raises(Refused) as refused:
        await nobody.post(PATH, {**body, "mac": mac_of(body), **changed})
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert (await server.application.control.perform("user-list", {}))["users"] == []


async def test_a_nonce_is_good_for_a_minute(server: Server) -> None:
    nobody = server.nobody()
    body = {"nonce": (await nobody.get(PATH))["nonce"], "username": "ann", "password": "secret"}
    server.clock.offset_ms += 61_000
    with pytest.raises(Refused, match="Unknown nonce"):
        await nobody.post(PATH, {**body, "mac": mac_of(body)})


@pytest.mark.parametrize("nonce", ["", "made up", "0.0.0", "\x00", "ä" * 100, "." * 1000])
async def test_a_nonce_of_somebody_else_is_refused(server: Server, nonce: str) -> None:
    body = {"nonce": nonce, "username": "ann", "password": "secret"}
    with pytest.raises(Refused, match="Unknown nonce"):
        await server.nobody().post(PATH, {**body, "mac": mac_of(body)})


async def test_many_who_ask_for_nonces_spoil_nobody_elses(server: Server) -> None:
    nobody = server.nobody()
    body = {"nonce": (await nobody.get(PATH))["nonce"], "username": "ann", "password": "secret"}
    for _ in range(50):
        await nobody.get(PATH)
    await server.restart()
    await server.nobody().post(PATH, {**body, "mac": mac_of(body)})


async def test_the_same_request_twice_makes_one_account(server: Server) -> None:
    nobody = server.nobody()
    body = {"nonce": (await nobody.get(PATH))["nonce"], "username": "ann", "password": "secret"}
    await nobody.post(PATH, {**body, "mac": mac_of(body)})
    with pytest.raises(Refused) as refused:
        await nobody.post(PATH, {**body, "mac": mac_of(body)})
    assert refused.value.status == 400


async def test_without_a_secret_there_is_no_such_endpoint(tmp_path: Path) -> None:
    server = Server(tmp_path, f"sqlite:///{tmp_path}/other.db")
    await server.start()
    for call in (server.nobody().get(PATH), server.nobody().post(PATH, {})):
        with pytest.raises(Refused, match="M_UNRECOGNIZED"):
            await call
    await server.stop()
