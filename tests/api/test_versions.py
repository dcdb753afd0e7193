"""What clients ask first: versions, capabilities, where the server is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from tests.client import Refused

if TYPE_CHECKING:
    from tests.client import Client
    from tests.conftest import StartServer
    from tests.server import Server


async def test_versions_are_told_without_a_login(server: Server) -> None:
    answer = await server.nobody().get("/_matrix/client/versions")
    assert [version for version in answer["versions"] if version.startswith("v")] == [
        f"v1.{minor}" for minor in range(1, 13)
    ]
    # "Whether or not the namespaced feature is supported": what is not supported is not listed.
    assert set(answer["unstable_features"].values()) == {True}


async def test_capabilities(alice: Client, server: Server) -> None:
    capabilities = (await alice.get("/capabilities"))["capabilities"]
    assert capabilities["m.room_versions"]["default"] == "12"
    assert capabilities["m.room_versions"]["available"] == dict.fromkeys(ROOM_VERSIONS, "stable")
    assert len(ROOM_VERSIONS) == 12
    for name in ("change_password", "profile_fields", "set_displayname", "set_avatar_url", "get_login_token"):
        assert capabilities[f"m.{name}"] == {"enabled": True}
    assert capabilities["m.3pid_changes"] == {"enabled": False}
    with pytest.raises(Refused) as refused:
        await server.nobody().get("/capabilities")
    assert (refused.value.status, refused.value.errcode) == (401, "M_MISSING_TOKEN")


async def test_well_known_tells_the_public_address(start_server: StartServer) -> None:
    server = await start_server(public_base_url="https://matrix.example.org")
    answer = await server.nobody().get("/.well-known/matrix/client")
    assert answer == {"m.homeserver": {"base_url": "https://matrix.example.org"}}


async def test_well_known_is_absent_where_the_address_is_not_configured(server: Server) -> None:
    with pytest.raises(Refused) as refused:
        await server.nobody().get("/.well-known/matrix/client")
    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize("path", ["/user_directory/search", "/pushers/set"])
async def test_what_does_not_exist_yet_is_unrecognized(alice: Client, path: str) -> None:
    with pytest.raises(Refused) as refused:
        await alice.post(path.format(alice.user_id))
    assert (refused.value.status, refused.value.errcode) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize("prefix", ["r0", "v3"])
async def test_old_and_new_prefixes_lead_to_the_same(alice: Client, prefix: str) -> None:
    assert (await alice.get(f"/_matrix/client/{prefix}/account/whoami"))["user_id"] == alice.user_id
