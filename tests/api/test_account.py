"""One's own account: a new password, the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.services.membership import Membership
from tests.client import Client, Refused, error_of, refused

if TYPE_CHECKING:
    from tests.server import Server

AUTH = {"type": "m.login.password", "password": "secret"}


async def change_password(client: Client, new_password: Any = "other", **fields: Any) -> Any:
    return await client.post("/account/password", {"new_password": new_password, "auth": AUTH, **fields})


async def log_in(server: Server, password: str, name: str = "alice") -> Any:
    identifier = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": identifier, "password": password}
    return await server.nobody().post("/login", body)


async def deactivate(client: Client, **fields: Any) -> Any:
    return await client.post("/account/deactivate", {"auth": AUTH, **fields})


# -- passwords --------------------------------------------------------------------------------------------


async def test_a_new_password_takes_the_place_of_the_old(server: Server, alice: Client) -> None:
    assert await change_password(alice) == {}
    with refused(403, "M_FORBIDDEN"):
        await log_in(server, "secret")
    assert await log_in(server, "other")


async def test_a_new_password_logs_out_every_other_device(server: Server, alice: Client) -> None:
    phone = await server.login(alice)
    await change_password(alice)
    with refused(401, "M_UNKNOWN_TOKEN"):
        await phone.sync()
    devices = (await alice.get("/devices"))["devices"]
    assert [device["device_id"] for device in devices] == [alice.device_id]


async def test_devices_stay_where_the_user_wants_it(server: Server, alice: Client) -> None:
    phone = await server.login(alice)
    await change_password(alice, logout_devices=False)
    await phone.sync()
    assert len((await alice.get("/devices"))["devices"]) == 2


@pytest.mark.parametrize(
    ("password", "errcode"),
    [("", "M_WEAK_PASSWORD"), ("x" * 513, "M_INVALID_PARAM"), (5, "M_BAD_JSON"), (None, "M_BAD_JSON")],
)
async def test_a_bad_password_is_refused_before_any_stage(
    server: Server, alice: Client, password: Any, errcode: str
) -> None:
    for body in ({"new_password": password}, {"new_password": password, "auth": AUTH}):
        with refused(400, errcode):
            await alice.post("/account/password", body)
    assert await log_in(server, "secret")


async def test_the_new_password_comes_from_the_first_request(server: Server, alice: Client) -> None:
    error = await error_of(alice.post("/account/password", {"new_password": "other"}))
    assert (error.status, error.errcode) == (401, None)
    session = error.body["session"]
    with refused(403, "M_FORBIDDEN"):
        await alice.post(
            "/account/password", {"new_password": "planted", "auth": {**AUTH, "session": session}}
        )
    await alice.post("/account/password", {"auth": {**AUTH, "session": session}})
    assert await log_in(server, "other")


async def test_a_password_change_needs_a_login(server: Server) -> None:
    with refused(401, "M_MISSING_TOKEN"):
        await change_password(server.nobody())


async def test_no_login_with_the_old_password_outlives_the_change(server: Server, alice: Client) -> None:
    """Logins that run while the password changes end with it, or fail."""
    results = await asyncio.gather(
        *(log_in(server, "secret") for _ in range(3)),
        change_password(alice),
        *(log_in(server, "secret") for _ in range(3)),
        return_exceptions=True,
    )
    for answer in results:
        if isinstance(answer, dict) and "access_token" in answer:
            client = Client(server.http, access_token=answer["access_token"])
            with refused(401, "M_UNKNOWN_TOKEN"):
                await client.get("/account/whoami")
        elif isinstance(answer, Refused):
            assert answer.errcode == "M_FORBIDDEN"
    devices = (await alice.get("/devices"))["devices"]
    assert [device["device_id"] for device in devices] == [alice.device_id]


# -- deactivation -----------------------------------------------------------------------------------------


async def test_a_deactivated_account_is_closed(server: Server, alice: Client) -> None:
    phone = await server.login(alice)
    assert await deactivate(alice) == {"id_server_unbind_result": "success"}
    for client in (alice, phone):
        with refused(401, "M_UNKNOWN_TOKEN"):
            await client.sync()
    with refused(403, "M_USER_DEACTIVATED"):
        await log_in(server, "secret")
    with refused(400, "M_USER_IN_USE"):
        await server.register("alice")
    with refused(400, "M_USER_IN_USE"):
        await server.nobody().get("/register/available", username="alice")


async def test_deactivation_needs_a_proof(server: Server, alice: Client) -> None:
    error = await error_of(alice.post("/account/deactivate", {"erase": True}))
    assert (error.status, error.errcode) == (401, None)
    assert error.body["flows"] == [{"stages": ["m.login.password"]}]
    with refused(401, "M_MISSING_TOKEN"):
        await deactivate(server.nobody())
    with refused(400, "M_BAD_JSON"):
        await deactivate(alice, erase="yes")
    await alice.sync()


async def test_a_deactivated_user_leaves_every_room(server: Server, alice: Client, bob: Client) -> None:
    joined = await bob.create_room(preset="public_chat")
    await alice.join(joined)
    invited = await bob.create_room(invite=[alice.user_id])
    await deactivate(alice)
    for room_id in (joined, invited):
        member = await bob.get_state(room_id, "m.room.member", alice.user_id)
        assert member["membership"] == "leave"


async def test_nothing_is_kept_for_a_deactivated_user(server: Server, alice: Client, bob: Client) -> None:
    room_id = await bob.create_room(preset="public_chat")
    await alice.join(room_id)
    await alice.post(f"/user/{alice.user_id}/filter", {"room": {"rooms": [room_id]}})
    await alice.put(f"/user/{alice.user_id}/account_data/org.example", {"a": 1})
    await alice.put(f"/profile/{alice.user_id}/org.example.field", {"org.example.field": 1})
    await deactivate(alice)
    for table in ("devices", "access_tokens", "refresh_tokens", "profiles", "account_data", "filters"):
        rows = await server.application.database.fetch_all(
            f"SELECT 1 FROM {table} WHERE user_id = $1", alice.user_id
        )
        assert rows == [], table
    with refused(404, "M_NOT_FOUND"):
        await bob.get(f"/profile/{alice.user_id}")
    with refused(404, "M_NOT_FOUND"):
        await bob.get(f"/profile/{alice.user_id}/displayname")


async def test_leaving_is_taken_up_after_a_restart(
    server: Server, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await bob.create_room(preset="public_chat")
    await alice.join(room_id)

    async def broken_off(*_: Any) -> None:
        message = "the program ends here"
        raise RuntimeError(message)

    # The account is closed, and the program ends before the user has left.
    with monkeypatch.context() as patch:
        patch.setattr(Membership, "leave_all", broken_off)
        with refused(500, "M_UNKNOWN"):
            await deactivate(alice)
    await server.restart()
    bob = server.reconnect(bob)
    assert (await bob.get_state(room_id, "m.room.member", alice.user_id))["membership"] == "leave"


async def test_nobody_logs_in_while_the_account_is_closed(server: Server, alice: Client) -> None:
    results = await asyncio.gather(
        *(log_in(server, "secret") for _ in range(3)), deactivate(alice), return_exceptions=True
    )
    for answer in results:
        if isinstance(answer, dict) and "access_token" in answer:
            with refused(401, "M_UNKNOWN_TOKEN"):
                await Client(server.http, access_token=answer["access_token"]).sync()
    rows = await server.application.database.fetch_all(
        "SELECT 1 FROM devices WHERE user_id = $1", alice.user_id
    )
    assert rows == []


async def test_the_password_of_a_closed_account_cannot_be_reset(server: Server, alice: Client) -> None:
    await server.control("user-deactivate", name="alice")
    with pytest.raises(Exception, match="deactivated"):
        await server.control("user-reset-password", name="alice", password="other")
    with refused(401, "M_UNKNOWN_TOKEN"):
        await alice.sync()


async def test_no_third_party_identifiers_are_kept(alice: Client) -> None:
    assert await alice.get("/account/3pid") == {"threepids": []}


# -- erasure ----------------------------------------------------------------------------------------------


async def texts_of(client: Client, room_id: str) -> list[Any]:
    chunk = (await client.messages(room_id, dir="f"))["chunk"]
    return [event["content"].get("body") for event in chunk if event["type"] == "m.room.message"]


async def test_newcomers_see_the_events_of_an_erased_user_redacted(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await bob.create_room(preset="public_chat")
    await alice.join(room_id)
    edited = await alice.send(room_id, "one")
    event_id = await bob.send(room_id, "two")
    relation = {"rel_type": "m.replace", "event_id": edited}
    await alice.send(room_id, {"body": "*", "m.new_content": {"body": "secret"}, "m.relates_to": relation})
    await deactivate(alice, erase=True)
    carol = await server.register("carol")
    await carol.join(room_id)
    assert await texts_of(carol, room_id) == [None, "two", None]
    assert await texts_of(bob, room_id) == ["one", "two", "*"]
    assert (await carol.event(room_id, edited))["content"] == {}
    assert "secret" not in str(await carol.get(f"/rooms/{room_id}/context/{event_id}", limit=50))
    assert "secret" not in str(await carol.sync(filter={"room": {"timeline": {"limit": 50}}}))
    member = next(
        event
        for event in (await carol.get(f"/rooms/{room_id}/members"))["chunk"]
        if event["state_key"] == alice.user_id
    )
    assert member["content"] == {"membership": "leave"}
    assert "displayname" not in str(member)
    await server.restart()
    assert await texts_of(server.reconnect(carol), room_id) == [None, "two", None]
    assert await texts_of(server.reconnect(bob), room_id) == ["one", "two", "*"]


async def test_the_state_of_a_room_outlives_the_erasure_of_who_made_it(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat", name="Tea", room_version="10")
    await bob.join(room_id)
    await alice.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await deactivate(alice, erase=True)
    carol = await server.register("carol")
    await carol.join(room_id)
    state = (await carol.sync())["rooms"]["join"][room_id]
    events = [*state["state"]["events"], *state["timeline"]["events"]]
    contents = {event["type"]: event["content"] for event in events}
    assert contents["m.room.name"] == {"name": "Tea"}
    assert contents["m.room.encryption"] == {"algorithm": "m.megolm.v1.aes-sha2"}


async def test_without_erasure_newcomers_see_everything(server: Server, alice: Client, bob: Client) -> None:
    room_id = await bob.create_room(preset="public_chat")
    await alice.join(room_id)
    await alice.send(room_id, "one")
    await deactivate(alice)
    carol = await server.register("carol")
    await carol.join(room_id)
    assert await texts_of(carol, room_id) == ["one"]
