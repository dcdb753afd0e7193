"""Who is too fast, and is told so (CS "Rate limiting"). Rate limits are on here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.http.rate_limits import RATE_LIMITS
from tests.client import Client, Refused
from tests.keys import Device
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(tmp_path, f"sqlite:///{tmp_path}/restante.db", rate_limits={"enabled": True})
    await running.start()
    # Time stands still, so that how fast the machine is decides nothing.
    running.clock.monotonic = lambda: 1000 + running.clock.offset_ms / 1000
    yield running
    await running.stop()


async def exhaust(deed: Callable[[int], Awaitable[Any]], most: int = 600) -> tuple[int, Refused]:
    """How often something may be done, and what comes then."""
    for count in range(most):
        try:
            await deed(count)
        except Refused as refused:
            return count, refused
    raise AssertionError(f"{most} times were not too often")


def assert_limited(refused: Refused, name: str) -> None:
    assert (refused.status, refused.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert name in refused.body["error"]
    assert isinstance(refused.body["retry_after_ms"], int)
    assert int(refused.headers["retry-after"]) * 1000 >= refused.body["retry_after_ms"]


async def wrong_password(server: Server, user: str, password: str = "wrong") -> None:
    body = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    }
    try:
        await server.nobody().post("/login", body)
    except Refused as refused:
        if refused.errcode != "M_FORBIDDEN":
            raise


async def test_wrong_passwords_are_counted_for_each_account_and_right_ones_are_not(
    server: Server, alice: Client, bob: Client
) -> None:
    for _ in range(5):
        await server.login(alice)
    count, refused = await exhaust(lambda _: wrong_password(server, alice.user_id))
    assert count == RATE_LIMITS["login_account"].burst
    assert_limited(refused, "login_account")
    with pytest.raises(Refused) as refused_too:
        await server.login(alice)
    assert_limited(refused_too.value, "login_account")
    await server.login(bob)
    server.clock.offset_ms += refused.body["retry_after_ms"]
    await server.login(alice)


async def test_an_account_that_does_not_exist_is_limited_like_one_that_does(server: Server) -> None:
    count, refused = await exhaust(lambda _: wrong_password(server, "@nobody:example.org"))
    assert count == RATE_LIMITS["login_account"].burst
    assert_limited(refused, "login_account")


async def test_passwords_cannot_be_guessed_by_user_interactive_authentication(alice: Client) -> None:
    async def guess(number: int) -> None:
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": alice.user_id},
            "password": f"guess{number}",
        }
        with pytest.raises(Refused) as refused:
            await alice.post("/account/password", {"new_password": "x", "auth": auth})
        if refused.value.errcode != "M_FORBIDDEN":
            raise refused.value

    count, refused = await exhaust(guess)
    assert count == RATE_LIMITS["login_account"].burst
    assert_limited(refused, "login_account")


async def test_logins_are_counted_for_each_address(server: Server) -> None:
    count, refused = await exhaust(lambda number: wrong_password(server, f"user{number}"))
    assert count == RATE_LIMITS["login_address"].burst
    assert_limited(refused, "login_address")


async def test_registrations_are_counted_for_each_address(server: Server) -> None:
    count, refused = await exhaust(lambda number: server.register(f"user{number}"))
    assert count == RATE_LIMITS["registration"].burst
    assert_limited(refused, "registration")
    with pytest.raises(Refused) as names:
        await server.nobody().get("/register/available", username="somebody")
    assert_limited(names.value, "registration")


async def test_messages_are_counted_for_each_user(server: Server, alice: Client, bob: Client) -> None:
    room = await alice.create_room(preset="public_chat")
    await bob.join(room)
    other_device = await server.login(alice)
    count, refused = await exhaust(lambda _: (alice if _ % 2 else other_device).send(room, "text"))
    assert count == RATE_LIMITS["messages"].burst
    assert_limited(refused, "messages")
    with pytest.raises(Refused) as state:
        await alice.set_state(room, "m.room.topic", {"topic": "x"})
    assert_limited(state.value, "messages")
    await bob.send(room, "text")


async def test_to_device_messages_are_counted_by_their_size_for_each_user_and_device_that_gets_them(
    server: Server, alice: Client, bob: Client
) -> None:
    for number in range(9):
        await server.login(bob, f"D{number}")
    content = {"text": "x" * 60_000}

    async def send(number: int) -> None:
        body = {"messages": {bob.user_id: {"*": content}}}
        await alice.put(f"/sendToDevice/m.test/{number}", body)

    count, refused = await exhaust(send)
    # Ten devices, and 59 KiB for each with what is around the text.
    assert count == RATE_LIMITS["to_device"].burst // (10 * 59)
    assert_limited(refused, "to_device")
    for number in range(3):
        # What nobody gets costs nothing.
        messages = {"@nobody:example.org": {"*": content}}
        await alice.put(f"/sendToDevice/m.other/{number}", {"messages": messages})
    await bob.put("/sendToDevice/m.test/1", {"messages": {alice.user_id: {"*": content}}})


async def test_joins_invites_and_new_rooms_are_counted_for_each_user(alice: Client, bob: Client) -> None:
    room = await alice.create_room(preset="public_chat")

    async def join(_: int) -> None:
        await bob.join(room)

    count, refused = await exhaust(join)
    assert count == RATE_LIMITS["joins"].burst
    assert_limited(refused, "joins")
    count, refused = await exhaust(lambda _: _unless_limited(alice.invite(room, "@carol:example.org")))
    assert count == RATE_LIMITS["invites"].burst
    assert_limited(refused, "invites")
    with pytest.raises(Refused) as created:
        await alice.create_room(invite=["@bob:example.org"])
    assert_limited(created.value, "invites")
    _, refused = await exhaust(lambda _: alice.create_room())
    assert_limited(refused, "room_creation")


@pytest.mark.parametrize(
    ("name", "deed"),
    [
        ("profile", lambda user: user.put(f"/profile/{user.user_id}/displayname", {"displayname": "x"})),
        ("initial_syncs", lambda user: user.sync()),
        ("key_changes", lambda user: Device(user).upload()),
        ("key_changes", lambda user: _unless_limited(user.post("/keys/device_signing/upload"))),
        ("key_changes", lambda user: user.post("/keys/signatures/upload")),
        ("requests", lambda user: user.get("/account/whoami")),
        ("anonymous", lambda user: Client(user.http).get(f"/profile/{user.user_id}")),
        (
            "anonymous",
            lambda user: _unless_limited(Client(user.http, access_token="stolen").get("/account/whoami")),
        ),
    ],
)
async def test_other_dear_things_are_counted(
    alice: Client, name: str, deed: Callable[[Client], Awaitable[Any]]
) -> None:
    count, refused = await exhaust(lambda _: deed(alice))
    assert count <= RATE_LIMITS[name].burst
    assert_limited(refused, name)


async def test_one_time_keys_that_are_asked_for_are_counted_one_by_one(alice: Client) -> None:
    wanted = {alice.user_id: {str(number): "signed_curve25519" for number in range(1_000)}}
    count, refused = await exhaust(lambda _: alice.post("/keys/claim", {"one_time_keys": wanted}))
    assert count == RATE_LIMITS["claims"].burst // 1_000
    assert_limited(refused, "claims")


async def _unless_limited(call: Awaitable[Any]) -> None:
    try:
        await call
    except Refused as refused:
        if refused.status == 429:
            raise


async def test_a_long_poll_is_one_request_however_often_it_is_woken(alice: Client, bob: Client) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    nothing = {"room": {"ephemeral": {"types": []}, "timeline": {"types": []}, "state": {"types": []}}}
    since = (await bob.sync(filter=nothing))["next_batch"]
    waiting = asyncio.create_task(bob.sync(since, filter=nothing, timeout=60_000))
    await asyncio.sleep(0)
    for number in range(20):
        await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": number % 2 == 0})
    waiting.cancel()
    # A request that is given up is answered like one at a stop.
    with pytest.raises(Refused):
        await waiting
    count, _ = await exhaust(lambda _: bob.get("/account/whoami"), most=2 * RATE_LIMITS["requests"].burst)
    assert count >= RATE_LIMITS["requests"].burst - 4
