"""Clients that run in browsers, on pages of other origins (CS "Web Browser Clients", "Well-known URIs")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from tests.client import Client

ORIGIN = "https://app.element.io"
WELL_KNOWN = "/.well-known/matrix/client"


@pytest.fixture
async def public_server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(
        tmp_path, f"sqlite:///{tmp_path}/restante.db", public_base_url="https://matrix.example.org:8448/"
    )
    await running.start()
    yield running
    await running.stop()


def readable(response: httpx.Response, origin: str) -> bool:
    """Whether a browser shows an answer to a page of that origin (Fetch, "CORS check")."""
    return response.headers.get("access-control-allow-origin") in ("*", origin)


async def fetch(
    server: Server, method: str, path: str, headers: dict[str, str], content: bytes = b""
) -> httpx.Response:
    """What a browser does for a page of another origin: ask first, then send what was allowed."""
    preflight = await server.http.options(
        path,
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in headers)),
        },
    )
    assert 200 <= preflight.status_code < 300
    assert readable(preflight, ORIGIN)
    methods = {name.strip() for name in preflight.headers["access-control-allow-methods"].split(",")}
    allowed = {name.strip().lower() for name in preflight.headers["access-control-allow-headers"].split(",")}
    assert method in methods
    assert {name.lower() for name in headers} <= allowed
    response = await server.http.request(method, path, headers={"Origin": ORIGIN, **headers}, content=content)
    assert readable(response, ORIGIN)
    return response


async def test_a_page_of_another_origin_can_do_all_that_a_client_does(server: Server, alice: Client) -> None:
    token = {"Authorization": f"Bearer {alice.access_token}"}
    room = await alice.create_room()
    body = {"Content-Type": "application/json"}
    versions = await fetch(server, "GET", "/_matrix/client/versions", {})
    assert "v1.12" in versions.json()["versions"]
    sent = await fetch(
        server,
        "PUT",
        f"/_matrix/client/v3/rooms/{room}/send/m.room.message/t1",
        {**token, **body},
        b'{"msgtype":"m.text","body":"hello"}',
    )
    assert sent.json()["event_id"].startswith("$")
    synced = await fetch(server, "GET", "/_matrix/client/v3/sync", token)
    assert room in synced.json()["rooms"]["join"]
    deleted = await fetch(
        server, "DELETE", f"/_matrix/client/v3/user/{alice.user_id}/rooms/{room}/tags/x", token
    )
    assert deleted.json() == {}


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("GET", "/_matrix/client/v3/sync", {}, b"", 401),
        ("GET", "/_matrix/client/v3/sync", {"Authorization": "Bearer no"}, b"", 401),
        ("GET", "/_matrix/client/v3/nothing", {}, b"", 404),
        ("DELETE", "/_matrix/client/v3/sync", {}, b"", 405),
        ("POST", "/_matrix/client/v3/login", {}, b"{", 400),
        ("POST", "/_matrix/client/v3/login", {}, b" " * 2_000_000, 413),
        ("GET", WELL_KNOWN, {}, b"", 404),
        ("GET", "/.well-known/matrix/server", {}, b"", 404),
    ],
)
async def test_a_page_of_another_origin_can_read_every_refusal(
    server: Server, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    response = await fetch(server, method, path, headers, content)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() >= {"errcode", "error"}


async def test_clients_find_the_public_address_by_the_name_of_the_server(public_server: Server) -> None:
    response = await fetch(public_server, "GET", WELL_KNOWN, {})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"m.homeserver": {"base_url": "https://matrix.example.org:8448"}}


async def test_a_login_tells_the_public_address(public_server: Server) -> None:
    alice = await public_server.register("alice")
    answer: dict[str, Any] = await public_server.nobody().post(
        "/login",
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": alice.user_id},
            "password": "secret",
        },
    )
    assert answer["well_known"] == {"m.homeserver": {"base_url": "https://matrix.example.org:8448"}}


async def test_without_a_public_address_clients_are_told_to_go_on_without(server: Server) -> None:
    """CS "Well-known URIs": "If the returned status code is 404, then IGNORE"."""
    response = await server.http.get(WELL_KNOWN)
    assert response.status_code == 404
    assert response.json()["errcode"] == "M_NOT_FOUND"
