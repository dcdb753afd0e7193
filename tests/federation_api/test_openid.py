"""A token by which a user proves who they are, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.client import refused

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

USER_INFO = "/_matrix/federation/v1/openid/userinfo"


def path(client: Client) -> str:
    return f"/user/{client.user_id}/openid/request_token"


async def test_the_token_says_whose_it_is(server: Server, alice: Client) -> None:
    answer = await alice.post(path(alice))
    assert answer["token_type"] == "Bearer"
    assert answer["matrix_server_name"] == "example.org"
    found = await server.nobody().get(USER_INFO, access_token=answer["access_token"])
    assert found == {"sub": alice.user_id}


async def test_the_token_opens_nothing_else_and_no_other_token_does(server: Server, alice: Client) -> None:
    token = (await alice.post(path(alice)))["access_token"]
    with refused(401, "M_UNKNOWN_TOKEN"):
        await server.nobody().get("/account/whoami", access_token=token)
    with refused(401, "M_UNKNOWN_TOKEN"):
        await server.nobody().get(USER_INFO, access_token=alice.access_token)
    with refused(401, "M_MISSING_TOKEN"):
        await server.nobody().get(USER_INFO)


async def test_nobody_gets_a_token_of_somebody_else(alice: Client, bob: Client) -> None:
    with refused(403, "M_FORBIDDEN"):
        await alice.post(path(bob))


async def test_a_token_runs_out_and_goes(server: Server, alice: Client) -> None:
    answer = await alice.post(path(alice))
    server.clock.offset_ms += answer["expires_in"] * 1000 + 1
    with refused(401, "M_UNKNOWN_TOKEN"):
        await server.nobody().get(USER_INFO, access_token=answer["access_token"])
    await server.application.upkeep.look_after()
    assert await server.application.database.fetch_value("SELECT count(*) FROM openid_tokens") == 0


async def test_of_very_many_tokens_the_newest_stay(server: Server, alice: Client) -> None:
    tokens = [(await alice.post(path(alice)))["access_token"] for _ in range(102)]
    for token in tokens[:2]:
        with refused(401, "M_UNKNOWN_TOKEN"):
            await server.nobody().get(USER_INFO, access_token=token)
    for token in tokens[2:4]:
        assert await server.nobody().get(USER_INFO, access_token=token) == {"sub": alice.user_id}


async def test_the_tokens_of_a_closed_account_are_gone(server: Server, alice: Client) -> None:
    token = (await alice.post(path(alice)))["access_token"]
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "secret",
    }
    await alice.post("/account/deactivate", {"auth": auth})
    with refused(401, "M_UNKNOWN_TOKEN"):
        await server.nobody().get(USER_INFO, access_token=token)
