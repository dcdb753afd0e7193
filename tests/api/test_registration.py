"""Registration: names, tokens, terms, guests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.client import V1, Client, Refused, error_of, refused

if TYPE_CHECKING:
    from tests.conftest import StartServer
    from tests.server import Server

DUMMY = {"type": "m.login.dummy"}
TERMS = {
    "version": "1.2",
    "documents": {"privacy": {"en": {"name": "Privacy", "url": "https://example.org/privacy.html"}}},
}
VALIDITY = f"{V1}/register/m.login.registration_token/validity"


async def register(server: Server, name: str | None = "alice", auth: Any = DUMMY, **fields: Any) -> Any:
    body = {"password": "secret", "auth": auth, **fields}
    return await server.nobody().post("/register", body | ({} if name is None else {"username": name}))


async def test_a_new_account_is_logged_in(server: Server) -> None:
    answer = await register(server, "alice", device_id="PHONE", initial_device_display_name="Her phone")
    assert answer["user_id"] == "@alice:example.org"
    assert answer["device_id"] == "PHONE"
    assert "refresh_token" not in answer
    alice = Client(server.http, answer["user_id"], "PHONE", answer["access_token"])
    (device,) = (await alice.get("/devices"))["devices"]
    assert (device["device_id"], device["display_name"]) == ("PHONE", "Her phone")
    assert (await alice.get(f"/profile/{alice.user_id}"))["displayname"] == "alice"


async def test_a_device_id_is_made_where_the_client_names_none(server: Server) -> None:
    first, second = await register(server, "alice"), await register(server, "bob")
    assert first["device_id"] != second["device_id"]


async def test_no_login_where_the_client_wants_none(server: Server) -> None:
    answer = await register(server, "alice", inhibit_login=True)
    assert answer.keys() == {"user_id", "home_server"}


async def test_a_client_that_can_refresh_gets_a_token_that_expires(server: Server) -> None:
    answer = await register(server, "alice", refresh_token=True)
    assert answer["refresh_token"]
    assert answer["expires_in_ms"] > 0


async def test_a_name_is_made_where_the_client_has_none(server: Server) -> None:
    first, second = await register(server, None), await register(server, None)
    assert first["user_id"] != second["user_id"]


async def test_capitals_become_small(server: Server) -> None:
    assert (await register(server, "Alice"))["user_id"] == "@alice:example.org"
    assert (await error_of(register(server, "ALICE"))).errcode == "M_USER_IN_USE"


@pytest.mark.parametrize(
    "name", ["", "with space", "a:b", "@alice:example.org", "é", "_hidden", "a\x00b", "x" * 250]
)
async def test_an_invalid_name_is_refused_before_any_stage(server: Server, name: str) -> None:
    error = await error_of(register(server, name, None))
    assert (error.status, error.errcode) == (400, "M_INVALID_USERNAME")
    if "\x00" not in name:
        error = await error_of(server.nobody().get("/register/available", username=name))
        assert (error.status, error.errcode) == (400, "M_INVALID_USERNAME")


async def test_a_taken_name_is_refused_before_any_stage(server: Server, alice: Client) -> None:
    assert alice.user_id == "@alice:example.org"
    error = await error_of(register(server, "alice", None))
    assert (error.status, error.errcode) == (400, "M_USER_IN_USE")
    error = await error_of(server.nobody().get("/register/available", username="alice"))
    assert (error.status, error.errcode) == (400, "M_USER_IN_USE")
    assert await server.nobody().get("/register/available", username="bob") == {"available": True}


@pytest.mark.parametrize(
    ("fields", "errcode"),
    [
        ({"password": ""}, "M_WEAK_PASSWORD"),
        ({"password": "x" * 513}, "M_INVALID_PARAM"),
        ({"password": 5}, "M_BAD_JSON"),
        ({"username": 5}, "M_BAD_JSON"),
        ({"device_id": ""}, "M_INVALID_PARAM"),
        ({"device_id": "x" * 256}, "M_INVALID_PARAM"),
        ({"device_id": "a\x00b"}, "M_INVALID_PARAM"),
        ({"initial_device_display_name": "a\x00b"}, "M_INVALID_PARAM"),
        ({"inhibit_login": "yes"}, "M_BAD_JSON"),
        ({"auth": "dummy"}, "M_BAD_JSON"),
    ],
)
async def test_what_cannot_be_is_refused_before_any_stage(
    server: Server, fields: dict[str, Any], errcode: str
) -> None:
    body = {"username": "alice", "password": "secret", **fields}
    error = await error_of(server.nobody().post("/register", body))
    assert (error.status, error.errcode) == (400, errcode)
    assert await server.nobody().get("/register/available", username="alice") == {"available": True}


async def test_an_account_needs_a_password(server: Server) -> None:
    error = await error_of(server.nobody().post("/register", {"username": "alice", "auth": DUMMY}))
    assert (error.status, error.errcode) == (400, "M_MISSING_PARAM")


async def test_two_at_once_for_one_name_make_one_account(server: Server) -> None:
    answers = await asyncio.gather(
        *(register(server, "alice", password=f"secret {number}") for number in range(4)),
        return_exceptions=True,
    )
    made = [answer for answer in answers if isinstance(answer, dict)]
    assert len(made) == 1
    errors = [answer for answer in answers if isinstance(answer, Refused)]
    assert [error.errcode for error in errors] == ["M_USER_IN_USE"] * 3


async def test_a_closed_server_makes_no_accounts(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "closed"})
    for call in (
        register(server),
        register(server, auth=None),
        server.nobody().get("/register/available", username="alice"),
        server.nobody().get(VALIDITY, token="abc"),
        server.nobody().post("/register", kind="guest"),
    ):
        assert (await error_of(call)).status == 403


# -- bodies that change on the way ------------------------------------------------------------------------


async def test_the_flows_can_be_asked_for_with_an_empty_body(server: Server) -> None:
    """Clients learn the flows by an empty request, and go on with its session."""
    challenge = await error_of(server.nobody().post("/register", {}))
    assert challenge.status == 401
    assert challenge.body["flows"] == [{"stages": ["m.login.dummy"]}]
    assert challenge.body["completed"] == []
    assert challenge.errcode is None
    session = challenge.body["session"]
    again = await error_of(register(server, "alice", {"session": session}))
    assert (again.status, again.body["session"]) == (401, session)
    last = {"auth": {"type": "m.login.dummy", "session": session}, "initial_device_display_name": "Phone"}
    answer = await server.nobody().post("/register", last)
    assert answer["user_id"] == "@alice:example.org"
    assert await server.login(Client(server.http, answer["user_id"]))


async def test_a_name_that_was_taken_meanwhile_can_be_changed(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "open", "terms": TERMS})
    session = (await error_of(register(server, "alice", None))).body["session"]
    auth = {"type": "m.login.terms", "session": session}
    await register(server, "alice", {"type": "m.login.terms"})
    assert (await error_of(register(server, "alice", auth))).errcode == "M_USER_IN_USE"
    assert (await register(server, "alicia", auth))["user_id"] == "@alicia:example.org"


async def test_a_session_outlives_a_restart(server: Server) -> None:
    session = (await error_of(register(server, "alice", None))).body["session"]
    await server.restart()
    answer = await server.nobody().post("/register", {"auth": {**DUMMY, "session": session}})
    assert answer["user_id"] == "@alice:example.org"


# -- registration tokens ----------------------------------------------------------------------------------


async def token_server(start_server: StartServer, **token: Any) -> Server:
    server = await start_server(registration={"mode": "token"})
    await server.control("registration-token-create", token="letmein", **token)
    return server


def with_token(token: Any = "letmein", **auth: Any) -> dict[str, Any]:
    return {"type": "m.login.registration_token", "token": token, **auth}


async def test_a_token_lets_one_in(start_server: StartServer) -> None:
    server = await token_server(start_server)
    challenge = await error_of(register(server, "alice", None))
    assert challenge.body["flows"] == [{"stages": ["m.login.registration_token"]}]
    assert (await register(server, "alice", with_token()))["user_id"] == "@alice:example.org"


@pytest.mark.parametrize(
    ("token", "errcode"),
    [("wrong", "M_FORBIDDEN"), ("", "M_FORBIDDEN"), ("a\x00b", "M_FORBIDDEN"), (5, "M_MISSING_PARAM")],
)
async def test_a_bad_token_does_not(start_server: StartServer, token: Any, errcode: str) -> None:
    server = await token_server(start_server)
    error = await error_of(register(server, "alice", with_token(token)))
    assert (error.status, error.errcode) == (401, errcode)
    assert error.body["flows"]
    assert error.body["completed"] == []
    error = await error_of(register(server, "alice", {**DUMMY, "session": error.body["session"]}))
    assert error.status == 401


async def test_a_token_is_used_up(start_server: StartServer) -> None:
    server = await token_server(start_server, uses=2)
    for name in ("alice", "bob"):
        assert (await server.nobody().get(VALIDITY, token="letmein")) == {"valid": True}
        await register(server, name, with_token())
    assert (await server.nobody().get(VALIDITY, token="letmein")) == {"valid": False}
    assert (await error_of(register(server, "carol", with_token()))).errcode == "M_FORBIDDEN"


async def test_the_last_use_of_a_token_makes_one_account(start_server: StartServer) -> None:
    server = await token_server(start_server, uses=1)
    answers = await asyncio.gather(
        *(register(server, f"user{number}", with_token()) for number in range(4)), return_exceptions=True
    )
    assert sum(isinstance(answer, dict) for answer in answers) == 1
    assert {answer.errcode for answer in answers if isinstance(answer, Refused)} == {"M_FORBIDDEN"}


async def test_a_refused_registration_uses_up_nothing(start_server: StartServer) -> None:
    server = await token_server(start_server, uses=1)
    session = (await error_of(register(server, "alice", None))).body["session"]
    await error_of(server.nobody().post("/register", {"auth": with_token(session=session), "password": ""}))
    assert (await server.nobody().get(VALIDITY, token="letmein")) == {"valid": True}
    await register(server, "alice", with_token(session=session))


async def test_a_token_expires(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "token"})
    now = server.clock.now_ms()
    await server.control("registration-token-create", token="letmein", expires_ts=now + 60_000)
    assert (await server.nobody().get(VALIDITY, token="letmein")) == {"valid": True}
    server.clock.offset_ms = 60_001
    assert (await server.nobody().get(VALIDITY, token="letmein")) == {"valid": False}
    assert (await error_of(register(server, "alice", with_token()))).errcode == "M_FORBIDDEN"


async def test_the_validity_of_any_text_can_be_asked(start_server: StartServer) -> None:
    server = await token_server(start_server)
    for token in ("", "unknown", "x" * 300, "é"):
        assert (await server.nobody().get(VALIDITY, token=token)) == {"valid": False}
    error = await error_of(server.nobody().get(VALIDITY))
    assert (error.status, error.errcode) == (400, "M_MISSING_PARAM")


async def test_an_open_server_knows_its_tokens_too(server: Server) -> None:
    await server.control("registration-token-create", token="letmein")
    assert (await server.nobody().get(VALIDITY, token="letmein")) == {"valid": True}
    assert (await server.nobody().get(VALIDITY, token="other")) == {"valid": False}


# -- terms ------------------------------------------------------------------------------------------------


async def test_the_stages_come_in_their_order(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "token", "terms": TERMS})
    await server.control("registration-token-create", token="letmein")
    challenge = await error_of(register(server, "alice", None))
    assert challenge.body["flows"] == [{"stages": ["m.login.registration_token", "m.login.terms"]}]
    assert challenge.body["params"] == {
        "m.login.terms": {
            "policies": {
                "privacy": {
                    "version": "1.2",
                    "en": {"name": "Privacy", "url": "https://example.org/privacy.html"},
                }
            }
        }
    }
    session = challenge.body["session"]
    terms = {"type": "m.login.terms", "session": session}
    early = await error_of(register(server, "alice", terms))
    assert (early.status, early.errcode, early.body["completed"]) == (401, "M_FORBIDDEN", [])
    halfway = await error_of(register(server, "alice", with_token(session=session)))
    assert (halfway.status, halfway.errcode) == (401, None)
    assert halfway.body["completed"] == ["m.login.registration_token"]
    # "Completed stages cannot be retried": it stays completed, whatever is sent.
    again = await error_of(register(server, "alice", with_token("wrong", session=session)))
    assert (again.status, again.errcode) == (401, None)
    assert again.body["completed"] == ["m.login.registration_token"]
    assert (await register(server, "alice", terms))["user_id"] == "@alice:example.org"


async def test_terms_can_be_accepted_on_a_page(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "open", "terms": TERMS})
    session = (await error_of(register(server, "alice", None))).body["session"]
    path = "/auth/m.login.terms/fallback/web"
    page = await server.nobody().get(path, session=session)
    assert "https://example.org/privacy.html" in page
    assert session in page
    done = await server.nobody().call("POST", path, content=f"session={session}".encode())
    assert "window.onAuthDone" in done
    assert 'postMessage("authDone", "*")' in done
    answer = await server.nobody().post("/register", {"auth": {"session": session}})
    assert answer["user_id"] == "@alice:example.org"


async def test_a_token_can_be_shown_on_a_page(start_server: StartServer) -> None:
    server = await token_server(start_server)
    session = (await error_of(register(server, "alice", None))).body["session"]
    path = "/auth/m.login.registration_token/fallback/web"
    assert 'name="token"' in await server.nobody().get(path, session=session)
    wrong = await server.nobody().call("POST", path, content=f"session={session}&token=wrong".encode())
    assert "not good" in wrong
    assert "onAuthDone" not in wrong
    error = await error_of(server.nobody().post("/register", {"auth": {"session": session}}))
    assert error.body["completed"] == []
    done = await server.nobody().call("POST", path, content=f"session={session}&token=letmein".encode())
    assert "onAuthDone" in done
    answer = await server.nobody().post("/register", {"auth": {"session": session}})
    assert answer["user_id"] == "@alice:example.org"


async def test_there_is_no_page_for_an_unknown_session_or_stage(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "open", "terms": TERMS})
    session = (await error_of(register(server, "alice", None))).body["session"]
    error = await error_of(server.nobody().get("/auth/m.login.terms/fallback/web", session="unknown"))
    assert (error.status, error.errcode) == (400, "M_INVALID_PARAM")
    error = await error_of(server.nobody().get("/auth/m.login.terms/fallback/web"))
    assert (error.status, error.errcode) == (400, "M_MISSING_PARAM")
    for call in (
        server.nobody().get("/auth/m.login.recaptcha/fallback/web", session=session),
        server.nobody().call(
            "POST", "/auth/m.login.recaptcha/fallback/web", content=f"session={session}".encode()
        ),
    ):
        with refused(404, "M_NOT_FOUND"):
            await call
    error = await error_of(server.nobody().call("POST", "/auth/m.login.terms/fallback/web", content=b""))
    assert (error.status, error.errcode) == (400, "M_MISSING_PARAM")


# -- guests -----------------------------------------------------------------------------------------------


async def guest_of(server: Server) -> Client:
    # "All parameters in the request body with the exception of initial_device_display_name MUST BE ignored."
    body = {"username": 5, "device_id": "MINE", "initial_device_display_name": "Kiosk"}
    answer = await server.nobody().post("/register", body, kind="guest")
    assert answer["device_id"] != "MINE"
    return Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])


async def test_guests_are_let_in_where_the_server_wants_them(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "closed", "allow_guests": True})
    guest = await guest_of(server)
    assert (await guest.get("/account/whoami"))["is_guest"] is True
    assert (await guest.get(f"/devices/{guest.device_id}"))["display_name"] == "Kiosk"
    await guest.put(f"/devices/{guest.device_id}", {"display_name": "Hall"})
    await guest.put(f"/profile/{guest.user_id}/displayname", {"displayname": "Visitor"})
    await guest.delete(f"/profile/{guest.user_id}/displayname")
    await guest.sync()


async def test_guests_may_do_no_more_than_the_specification_lets_them(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "closed", "allow_guests": True})
    guest = await guest_of(server)
    own = f"/user/{guest.user_id}"
    for method, path, body in (
        ("PUT", f"/profile/{guest.user_id}/avatar_url", {"avatar_url": "mxc://example.org/a"}),
        ("DELETE", f"/profile/{guest.user_id}/avatar_url", None),
        ("DELETE", f"/devices/{guest.device_id}", {}),
        ("POST", "/delete_devices", {"devices": []}),
        ("POST", "/account/password", {"new_password": "secret"}),
        ("POST", "/account/deactivate", {}),
        ("POST", "/createRoom", {}),
        ("POST", f"{own}/filter", {}),
        ("GET", f"{own}/filter/0", None),
        ("PUT", f"{own}/account_data/org.example", {}),
        ("GET", f"{own}/account_data/org.example", None),
        ("GET", f"{own}/rooms/!a:example.org/tags", None),
        ("GET", "/pushrules/", None),
        ("PUT", f"/presence/{guest.user_id}/status", {"presence": "online"}),
        ("PUT", f"/rooms/!a:example.org/typing/{guest.user_id}", {"typing": False}),
        ("POST", "/rooms/!a:example.org/receipt/m.read/$a", {}),
        ("POST", "/rooms/!a:example.org/read_markers", {}),
    ):
        error = await error_of(guest.call(method, path, body))
        assert (error.status, error.errcode) == (403, "M_GUEST_ACCESS_FORBIDDEN"), path


async def test_a_server_without_guests_says_so(server: Server) -> None:
    error = await error_of(server.nobody().post("/register", {}, kind="guest"))
    assert (error.status, error.errcode) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    error = await error_of(server.nobody().post("/register", {}, kind="robot"))
    assert (error.status, error.errcode) == (400, "M_INVALID_PARAM")


async def test_a_guest_becomes_a_user_with_the_same_name_and_rooms(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "open", "allow_guests": True})
    guest = await guest_of(server)
    alice = await server.register("alice")
    room_id = await alice.create_room(
        preset="public_chat",
        initial_state=[{"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}],
    )
    await guest.join(room_id)
    localpart = guest.user_id[1:].partition(":")[0]
    answer = await register(server, localpart, guest_access_token=guest.access_token)
    assert answer["user_id"] == guest.user_id
    user = Client(server.http, answer["user_id"], answer["device_id"], answer["access_token"])
    assert (await user.get("/account/whoami"))["is_guest"] is False
    assert (await user.get("/joined_rooms"))["joined_rooms"] == [room_id]
    assert len((await user.get("/devices"))["devices"]) == 1
    with refused(401, "M_UNKNOWN_TOKEN"):
        await guest.sync()
    assert await server.login(user)


async def test_only_a_guest_becomes_a_user(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "open", "allow_guests": True})
    guest, other, alice = await guest_of(server), await guest_of(server), await server.register("alice")
    localpart = guest.user_id[1:].partition(":")[0]
    for name, token in (
        (None, guest.access_token),
        ("bob", guest.access_token),
        (localpart, other.access_token),
        ("alice", alice.access_token),
    ):
        with refused(403, "M_FORBIDDEN"):
            await register(server, name, guest_access_token=token)
    with refused(401, "M_UNKNOWN_TOKEN"):
        await register(server, localpart, guest_access_token="unknown")
    with refused(400, "M_USER_IN_USE"):
        await register(server, localpart)
    await guest.sync()
