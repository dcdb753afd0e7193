"""Login, refresh, logout: sessions and their tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import V1, Client, Refused, error_of, refused

if TYPE_CHECKING:
    from tests.conftest import StartServer
    from tests.server import Server

HOUR_MS = 3_600_000


def by_name(name: Any, password: Any = "secret", **fields: Any) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **fields}


async def login(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    return await server.nobody().post("/login", body)


async def refreshable(server: Server, **fields: Any) -> dict[str, Any]:
    """A session with an access token that ends, and a refresh token."""
    return await login(server, by_name("alice", refresh_token=True, **fields))


async def refresh(server: Server, token: str) -> dict[str, Any]:
    return await server.nobody().post("/refresh", {"refresh_token": token})


async def whoami(server: Server, access_token: str) -> dict[str, Any]:
    return await Client(server.http, access_token=access_token).get("/account/whoami")


async def is_unknown(server: Server, access_token: str, *, soft_logout: bool) -> bool:
    error = await error_of(whoami(server, access_token))
    assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")
    return error.body["soft_logout"] is soft_logout


# -- logging in -------------------------------------------------------------------------------------------


async def test_flows_are_told_to_everybody(server: Server) -> None:
    flows = (await server.nobody().get("/login"))["flows"]
    assert flows == [{"type": "m.login.password"}, {"type": "m.login.token", "get_login_token": True}]


@pytest.mark.parametrize("name", ["alice", "Alice", "@alice:example.org", "@ALICE:example.org"])
async def test_login_by_name_or_user_id(server: Server, alice: Client, name: str) -> None:
    answer = await login(server, by_name(name))
    assert answer["user_id"] == alice.user_id
    assert "refresh_token" not in answer
    assert "expires_in_ms" not in answer
    own = await whoami(server, answer["access_token"])
    assert own == {"user_id": alice.user_id, "device_id": answer["device_id"], "is_guest": False}


async def test_login_by_the_deprecated_field(server: Server, alice: Client) -> None:
    body = {"type": "m.login.password", "user": "alice", "password": "secret"}
    assert (await login(server, body))["user_id"] == alice.user_id


async def test_login_tells_the_public_address(start_server: StartServer) -> None:
    server = await start_server(public_base_url="https://matrix.example.org")
    await server.register("alice")
    answer = await login(server, by_name("alice"))
    assert answer["well_known"] == {"m.homeserver": {"base_url": "https://matrix.example.org"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "wrong"},
        {"password": ""},
        {"password": "x" * 10_000},
        {"identifier": {"type": "m.id.user", "user": "nobody"}},
        {"identifier": {"type": "m.id.user", "user": "a\x00b"}},
        {"identifier": {"type": "m.id.user", "user": "x" * 1000}},
        {"identifier": {"type": "m.id.user", "user": "@alice:elsewhere.org"}},
        # This server knows no third-party identifier: 403, says the specification.
        {"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org"}},
        {"identifier": {"type": "m.id.phone", "country": "GB", "phone": "0123"}},
        {"identifier": {"medium": "email", "address": "alice@example.org"}},
        {"identifier": None, "medium": "email", "address": "alice@example.org"},
        {"type": "m.login.token", "token": "unknown"},
    ],
)
async def test_a_failed_login_does_not_tell_why(
    server: Server, alice: Client, fields: dict[str, Any]
) -> None:
    with refused(403, "M_FORBIDDEN"):
        await login(server, {**by_name(alice.user_id), **fields})


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"type": "m.login.unknown"}, "M_UNKNOWN"),
        ({"type": "m.login.password"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "user": "alice"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "password": "secret"}, "M_MISSING_PARAM"),
        ({"type": "m.login.token"}, "M_MISSING_PARAM"),
        (by_name(5), "M_BAD_JSON"),
        (by_name("alice", 5), "M_BAD_JSON"),
        (by_name("alice", identifier="alice"), "M_BAD_JSON"),
        (by_name("alice", identifier={"type": "m.id.user"}), "M_MISSING_PARAM"),
        (by_name("alice", identifier={"type": "m.id.unknown"}), "M_INVALID_PARAM"),
        (by_name("alice", device_id=""), "M_INVALID_PARAM"),
        (by_name("alice", device_id="x" * 256), "M_INVALID_PARAM"),
        (by_name("alice", device_id="a\x00b"), "M_INVALID_PARAM"),
        (by_name("alice", initial_device_display_name="a\x00b"), "M_INVALID_PARAM"),
    ],
)
async def test_a_malformed_login_is_refused(
    server: Server, alice: Client, body: dict[str, Any], errcode: str
) -> None:
    with refused(400, errcode):
        await login(server, body)
    assert len((await alice.get("/devices"))["devices"]) == 1


async def test_a_known_device_gets_a_new_token_and_keeps_its_name(server: Server, alice: Client) -> None:
    first = await login(server, by_name("alice", device_id="PHONE", initial_device_display_name="Phone"))
    second = await login(server, by_name("alice", device_id="PHONE", initial_device_display_name="Other"))
    assert first["device_id"] == second["device_id"] == "PHONE"
    assert await is_unknown(server, first["access_token"], soft_logout=False)
    assert (await whoami(server, second["access_token"]))["device_id"] == "PHONE"
    assert (await alice.get("/devices/PHONE"))["display_name"] == "Phone"


async def test_logging_in_on_a_known_device_ends_its_refresh_tokens(server: Server, alice: Client) -> None:
    assert alice.user_id
    first = await refreshable(server, device_id="PHONE")
    await login(server, by_name("alice", device_id="PHONE"))
    with refused(401, "M_UNKNOWN_TOKEN"):
        await refresh(server, first["refresh_token"])


# -- login tokens -----------------------------------------------------------------------------------------


async def login_token(client: Client, password: str = "secret") -> dict[str, Any]:
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": client.user_id}}
    return await client.post(f"{V1}/login/get_token", {"auth": {**auth, "password": password}})


async def test_a_login_token_logs_in_once(server: Server, alice: Client) -> None:
    challenge = await error_of(alice.post(f"{V1}/login/get_token"))
    assert (challenge.status, challenge.errcode) == (401, None)
    answer = await login_token(alice)
    assert answer["expires_in_ms"] == 120_000
    body = {"type": "m.login.token", "token": answer["login_token"]}
    with refused(400, "M_INVALID_PARAM"):
        await login(server, {**body, "device_id": ""})
    assert (await login(server, body))["user_id"] == alice.user_id
    with refused(403, "M_FORBIDDEN"):
        await login(server, body)


async def test_one_login_token_used_twice_at_once_logs_in_once(server: Server, alice: Client) -> None:
    body = {"type": "m.login.token", "token": (await login_token(alice))["login_token"]}
    answers = await asyncio.gather(*(login(server, body) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert [answer.errcode for answer in answers if isinstance(answer, Refused)] == ["M_FORBIDDEN"] * 2


async def test_one_proof_gives_one_login_token(alice: Client) -> None:
    session = (await error_of(alice.post(f"{V1}/login/get_token"))).body["session"]
    auth = {"type": "m.login.password", "password": "secret", "session": session}
    answers = await asyncio.gather(
        *(alice.post(f"{V1}/login/get_token", {"auth": auth}) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(answer, dict) for answer in answers) == 1


async def test_a_login_token_ends_after_two_minutes(server: Server, alice: Client) -> None:
    token = (await login_token(alice))["login_token"]
    server.clock.offset_ms = 120_001
    with refused(403, "M_FORBIDDEN"):
        await login(server, {"type": "m.login.token", "token": token})


@pytest.mark.parametrize("deed", ["logout all", "password"])
async def test_a_login_token_does_not_outlive_the_sessions(server: Server, alice: Client, deed: str) -> None:
    token = (await login_token(alice))["login_token"]
    if deed == "logout all":
        await alice.post("/logout/all")
    else:
        await server.control("user-reset-password", name="alice", password="other")
    with refused(403, "M_FORBIDDEN"):
        await login(server, {"type": "m.login.token", "token": token})


# -- access tokens ----------------------------------------------------------------------------------------


async def test_the_token_is_taken_from_the_header_or_the_query(server: Server, alice: Client) -> None:
    nobody = server.nobody()
    assert (await nobody.get("/account/whoami", access_token=alice.access_token))["user_id"] == alice.user_id
    for header in (f"Bearer {alice.access_token}", f"bearer {alice.access_token}"):
        answer = await nobody.call("GET", "/account/whoami", headers={"Authorization": header})
        assert answer["user_id"] == alice.user_id


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi"])
async def test_no_token_is_401(server: Server, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().call("GET", "/account/whoami", headers=headers)


@pytest.mark.parametrize("token", ["unknown", "é", "x" * 10_000])
async def test_an_unknown_token_is_401(server: Server, token: str) -> None:
    with refused(401, "M_UNKNOWN_TOKEN"):
        await server.nobody().get("/account/whoami", access_token=token)


async def test_tokens_outlive_a_restart(server: Server, alice: Client) -> None:
    await server.restart()
    assert (await server.reconnect(alice).get("/account/whoami"))["device_id"] == alice.device_id


# -- refreshing -------------------------------------------------------------------------------------------


async def test_an_expired_token_is_a_soft_logout(server: Server, alice: Client) -> None:
    assert alice.user_id
    session = await refreshable(server)
    assert 0 < session["expires_in_ms"] <= HOUR_MS
    server.clock.offset_ms = session["expires_in_ms"] - 1000
    await whoami(server, session["access_token"])
    server.clock.offset_ms = session["expires_in_ms"] + 1
    assert await is_unknown(server, session["access_token"], soft_logout=True)
    new = await refresh(server, session["refresh_token"])
    assert (await whoami(server, new["access_token"]))["device_id"] == session["device_id"]


async def test_the_old_pair_is_good_until_the_new_one_is_used(server: Server, alice: Client) -> None:
    assert alice.user_id
    old = await refreshable(server)
    new = await refresh(server, old["refresh_token"])
    await whoami(server, old["access_token"])
    await whoami(server, new["access_token"])
    assert await is_unknown(server, old["access_token"], soft_logout=False)
    with refused(401, "M_UNKNOWN_TOKEN"):
        await refresh(server, old["refresh_token"])


async def test_using_the_new_refresh_token_ends_the_old_pair_too(server: Server, alice: Client) -> None:
    assert alice.user_id
    old = await refreshable(server)
    new = await refresh(server, old["refresh_token"])
    newest = await refresh(server, new["refresh_token"])
    with refused(401, "M_UNKNOWN_TOKEN"):
        await refresh(server, old["refresh_token"])
    assert await is_unknown(server, old["access_token"], soft_logout=False)
    await whoami(server, newest["access_token"])


async def test_a_lost_answer_is_no_harm(server: Server, alice: Client) -> None:
    assert alice.user_id
    old = await refreshable(server)
    lost = await refresh(server, old["refresh_token"])
    await server.restart()
    new = await refresh(server, old["refresh_token"])
    await whoami(server, new["access_token"])
    assert await is_unknown(server, lost["access_token"], soft_logout=False)


async def test_refreshing_twice_at_once_leaves_one_good_pair(server: Server, alice: Client) -> None:
    assert alice.user_id
    old = await refreshable(server)
    pairs = await asyncio.gather(*(refresh(server, old["refresh_token"]) for _ in range(3)))
    answers = [
        await asyncio.gather(whoami(server, pair["access_token"]), return_exceptions=True) for pair in pairs
    ]
    good = [answer for (answer,) in answers if isinstance(answer, dict)]
    assert len(good) == 1
    errors = [answer.errcode for (answer,) in answers if isinstance(answer, Refused)]
    assert errors == ["M_UNKNOWN_TOKEN"] * 2


async def test_a_transaction_id_outlives_a_refresh(server: Server, alice: Client) -> None:
    room_id = await alice.create_room()
    session = await refreshable(server)
    phone = Client(server.http, alice.user_id, session["device_id"], session["access_token"])
    first = await phone.send(room_id, "hello", transaction_id="t1")
    phone.access_token = (await refresh(server, session["refresh_token"]))["access_token"]
    assert await phone.send(room_id, "hello", transaction_id="t1") == first


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"refresh_token": 5}, 400, "M_BAD_JSON"),
        ({"refresh_token": "unknown"}, 401, "M_UNKNOWN_TOKEN"),
        ({"refresh_token": "a\x00b"}, 401, "M_UNKNOWN_TOKEN"),
    ],
)
async def test_a_bad_refresh_is_refused(server: Server, body: Any, status: int, errcode: str) -> None:
    with refused(status, errcode):
        await server.nobody().post("/refresh", body)


async def test_an_access_token_is_no_refresh_token(server: Server, alice: Client) -> None:
    assert alice.access_token is not None
    with refused(401, "M_UNKNOWN_TOKEN"):
        await refresh(server, alice.access_token)


# -- logging out ------------------------------------------------------------------------------------------


async def test_logout_ends_the_device(server: Server, alice: Client) -> None:
    session = await refreshable(server)
    phone = Client(server.http, alice.user_id, session["device_id"], session["access_token"])
    assert await phone.call("POST", "/logout") == {}
    assert await is_unknown(server, session["access_token"], soft_logout=False)
    with refused(401, "M_UNKNOWN_TOKEN"):
        await refresh(server, session["refresh_token"])
    assert [device["device_id"] for device in (await alice.get("/devices"))["devices"]] == [alice.device_id]


async def test_logout_all_ends_every_device(server: Server, alice: Client) -> None:
    phone = await server.login(alice)
    assert await phone.call("POST", "/logout/all") == {}
    for client in (alice, phone):
        with refused(401, "M_UNKNOWN_TOKEN"):
            await client.get("/account/whoami")
    assert await server.login(alice)


@pytest.mark.parametrize("deed", ["logout", "logout all", "deleted", "password", "login", "deactivated"])
async def test_a_waiting_sync_ends_with_its_session(server: Server, alice: Client, deed: str) -> None:
    phone = await server.login(alice, "PHONE")
    since = (await phone.sync())["next_batch"]
    waiting = asyncio.create_task(phone.sync(since, timeout=60_000))
    await server.until_waiting()
    auth = {"type": "m.login.password", "password": "secret"}
    if deed == "logout":
        await phone.post("/logout")
    elif deed == "logout all":
        await alice.post("/logout/all")
    elif deed == "deleted":
        await alice.delete("/devices/PHONE", {"auth": auth})
    elif deed == "password":
        await alice.post("/account/password", {"auth": auth, "new_password": "other"})
    elif deed == "login":
        await server.login(alice, "PHONE")
    else:
        await alice.post("/account/deactivate", {"auth": auth})
    error = await asyncio.wait_for(error_of(waiting), 10)
    assert (error.status, error.errcode) == (401, "M_UNKNOWN_TOKEN")


async def test_a_waiting_sync_of_another_device_goes_on(server: Server, alice: Client, bob: Client) -> None:
    phone = await server.login(alice)
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since = (await alice.sync())["next_batch"]
    waiting = asyncio.create_task(alice.sync(since, timeout=60_000))
    await server.until_waiting()
    await phone.post("/logout")
    answer = await asyncio.wait_for(waiting, 10)
    assert answer["device_lists"]["changed"] == [alice.user_id]
    await bob.send(room_id, "hello")
    answer = await alice.sync(answer["next_batch"])
    assert room_id in answer["rooms"]["join"]


async def test_a_locked_account_can_only_log_out(server: Server, alice: Client) -> None:
    async def lock(transaction: Any) -> None:
        await transaction.execute("UPDATE accounts SET is_locked = 1 WHERE user_id = $1", alice.user_id)

    phone = await server.login(alice)
    refresh_token = (await refreshable(server))["refresh_token"]
    await server.application.database.write(lock)
    await server.restart()
    alice, phone = server.reconnect(alice), server.reconnect(phone)
    error = await error_of(alice.sync())
    assert (error.status, error.errcode, error.body["soft_logout"]) == (401, "M_USER_LOCKED", True)
    for call in (refresh(server, refresh_token), login(server, by_name("alice"))):
        error = await error_of(call)
        assert (error.status, error.errcode, error.body["soft_logout"]) == (401, "M_USER_LOCKED", True)
    with refused(403, "M_FORBIDDEN"):
        await login(server, by_name("alice", "wrong"))
    await alice.post("/logout")
    await phone.post("/logout/all")
    with refused(401, "M_UNKNOWN_TOKEN"):
        await alice.sync()
