"""User-interactive authentication: what a session is bound to, and what it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.client import V1, Client, error_of, refused

if TYPE_CHECKING:
    from tests.server import Server

PASSWORD = "m.login.password"
FLOWS = [{"stages": [PASSWORD]}]


def proof(session: str | None = None, user: Any = None, password: Any = "secret") -> dict[str, Any]:
    auth: dict[str, Any] = {"type": PASSWORD, "password": password}
    if session is not None:
        auth["session"] = session
    if user is not None:
        auth["identifier"] = {"type": "m.id.user", "user": user}
    return auth


async def challenge(client: Client, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The first answer: 401 without a code."""
    error = await error_of(client.call(method, path, body))
    assert (error.status, error.errcode) == (401, None)
    assert "error" not in error.body
    assert (error.body["flows"], error.body["completed"], error.body["params"]) == (FLOWS, [], {})
    return error.body


async def phone_of(server: Server, client: Client, device_id: str = "PHONE") -> Client:
    return await server.login(client, device_id)


async def devices_of(client: Client) -> set[str]:
    return {device["device_id"] for device in (await client.get("/devices"))["devices"]}


@pytest.mark.parametrize("user", [None, "alice", "@alice:example.org"])
async def test_a_password_proves_who_one_is(server: Server, alice: Client, user: str | None) -> None:
    await phone_of(server, alice)
    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    await alice.delete("/devices/PHONE", {"auth": proof(session, user)})
    assert await devices_of(alice) == {alice.device_id}


async def test_the_proof_may_come_at_once(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    await alice.delete("/devices/PHONE", {"auth": {"type": PASSWORD, "user": "alice", "password": "secret"}})
    assert await devices_of(alice) == {alice.device_id}
    # Then there is no session to be kept.
    assert await server.application.database.fetch_all("SELECT 1 FROM user_interactive_sessions") == []


@pytest.mark.parametrize(
    ("auth", "errcode"),
    [
        (proof(password="wrong"), "M_FORBIDDEN"),
        (proof(user="bob"), "M_FORBIDDEN"),
        (proof(user="@alice:elsewhere.org"), "M_FORBIDDEN"),
        (proof(password=5), "M_MISSING_PARAM"),
        ({"type": PASSWORD}, "M_MISSING_PARAM"),
        (proof(user=5), "M_BAD_JSON"),
        ({"type": PASSWORD, "identifier": "alice", "password": "secret"}, "M_BAD_JSON"),
        ({"type": "m.login.dummy"}, "M_UNRECOGNIZED"),
        ({"type": 5}, "M_UNRECOGNIZED"),
    ],
)
async def test_a_failed_stage_can_be_tried_again(
    server: Server, alice: Client, bob: Client, auth: dict[str, Any], errcode: str
) -> None:
    assert bob.user_id
    await phone_of(server, alice)
    error = await error_of(alice.delete("/devices/PHONE", {"auth": auth}))
    assert (error.status, error.errcode) == (401, errcode)
    assert (error.body["flows"], error.body["completed"]) == (FLOWS, [])
    assert await devices_of(alice) == {alice.device_id, "PHONE"}
    await alice.delete("/devices/PHONE", {"auth": proof(error.body["session"])})
    assert await devices_of(alice) == {alice.device_id}


async def test_an_unknown_third_party_identifier_is_403(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    identifier = {"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"}
    auth = {"type": PASSWORD, "identifier": identifier, "password": "secret"}
    with refused(403, "M_FORBIDDEN"):
        await alice.delete("/devices/PHONE", {"auth": auth})


@pytest.mark.parametrize("session", ["unknown", "", 5, ["a"], "a\x00b"])
async def test_an_unknown_session_is_refused(server: Server, alice: Client, session: Any) -> None:
    await phone_of(server, alice)
    with refused(400, "M_INVALID_PARAM"):
        await alice.delete("/devices/PHONE", {"auth": {**proof(), "session": session}})
    with refused(400, "M_BAD_JSON"):
        await alice.delete("/devices/PHONE", {"auth": "secret"})


async def test_the_last_request_may_hold_the_proof_alone(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    body = {"devices": ["PHONE"]}
    session = (await challenge(alice, "POST", "/delete_devices", body))["session"]
    await alice.post("/delete_devices", {"auth": proof(session)})
    assert await devices_of(alice) == {alice.device_id}


async def test_a_session_is_bound_to_its_body(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    session = (await challenge(alice, "POST", "/delete_devices", {"devices": ["PHONE"]}))["session"]
    for other in ({"devices": [alice.device_id]}, {"devices": ["PHONE"], "more": 1}):
        with refused(403, "M_FORBIDDEN"):
            await alice.post("/delete_devices", {**other, "auth": proof(session)})
    assert await devices_of(alice) == {alice.device_id, "PHONE"}
    # It is still good for what it was begun for.
    await alice.post("/delete_devices", {"devices": ["PHONE"], "auth": proof(session)})
    assert await devices_of(alice) == {alice.device_id}


async def test_a_session_is_bound_to_its_endpoint(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    for method, path, body in (
        ("DELETE", f"/devices/{alice.device_id}", {}),
        ("POST", "/delete_devices", {"devices": ["PHONE"]}),
        ("POST", "/account/password", {"new_password": "other"}),
        ("POST", "/account/deactivate", {}),
        ("POST", f"{V1}/login/get_token", {}),
    ):
        with refused(403, "M_FORBIDDEN"):
            await alice.call(method, path, {**body, "auth": proof(session)})
    with refused(403, "M_FORBIDDEN"):
        await server.nobody().post("/register", {"auth": {"session": session, "type": "m.login.dummy"}})
    assert await devices_of(alice) == {alice.device_id, "PHONE"}


async def test_a_session_is_bound_to_its_user(server: Server, alice: Client, bob: Client) -> None:
    await phone_of(server, bob)
    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    with refused(403, "M_FORBIDDEN"):
        await bob.delete("/devices/PHONE", {"auth": proof(session)})
    assert await devices_of(bob) == {bob.device_id, "PHONE"}


async def test_a_session_is_good_on_every_device_of_the_user(server: Server, alice: Client) -> None:
    phone = await phone_of(server, alice)
    session = (await challenge(alice, "DELETE", f"/devices/{alice.device_id}", {}))["session"]
    await phone.delete(f"/devices/{alice.device_id}", {"auth": proof(session)})
    assert await devices_of(phone) == {"PHONE"}


async def test_a_session_serves_once(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    await alice.delete("/devices/PHONE", {"auth": proof(session)})
    await phone_of(server, alice)
    for auth in (proof(session), {"session": session}):
        with refused(400, "M_INVALID_PARAM"):
            await alice.delete("/devices/PHONE", {"auth": auth})
    assert await devices_of(alice) == {alice.device_id, "PHONE"}


async def test_a_session_outlives_a_restart_but_not_an_hour(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    await server.restart()
    alice = server.reconnect(alice)
    other = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    await alice.delete("/devices/PHONE", {"auth": proof(session)})
    server.clock.offset_ms = 3_600_001
    with refused(400, "M_INVALID_PARAM"):
        await alice.delete("/devices/PHONE", {"auth": proof(other)})


async def test_nothing_happens_without_a_proof(server: Server, alice: Client) -> None:
    await phone_of(server, alice)
    for auth in ({}, {"session": None}, {"type": ""}):
        error = await error_of(alice.delete("/devices/PHONE", {"auth": auth}))
        assert (error.status, error.errcode) == (401, None)
    assert await devices_of(alice) == {alice.device_id, "PHONE"}


async def test_a_password_sent_in_a_first_request_is_not_stored_readable(
    server: Server, alice: Client
) -> None:
    body = {"new_password": "correct horse"}
    await challenge(alice, "POST", "/account/password", body)
    rows = await server.application.database.fetch_all("SELECT body FROM user_interactive_sessions")
    assert rows
    assert all(b"horse" not in bytes(row[0]) for row in rows)


async def test_a_password_can_be_shown_on_a_page(server: Server, alice: Client, bob: Client) -> None:
    assert bob.user_id
    await phone_of(server, alice)
    path = f"/auth/{PASSWORD}/fallback/web"

    async def fill_in(session: str, user: str, password: str) -> str:
        form = f"session={session}&user={user}&password={password}"
        return await server.nobody().call("POST", path, content=form.encode())

    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    assert 'name="password"' in await server.nobody().get(path, session=session)
    assert "Wrong" in await fill_in(session, "alice", "wrong")
    # The password of another user proves nothing.
    assert "onAuthDone" in await fill_in(session, "bob", "secret")
    with refused(403, "M_FORBIDDEN"):
        await alice.delete("/devices/PHONE", {"auth": {"session": session}})
    session = (await challenge(alice, "DELETE", "/devices/PHONE", {}))["session"]
    assert "onAuthDone" in await fill_in(session, "alice", "secret")
    await alice.delete("/devices/PHONE", {"auth": {"session": session}})
    assert await devices_of(alice) == {alice.device_id}
