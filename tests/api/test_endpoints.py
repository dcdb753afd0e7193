"""Every endpoint of the specification exists, or answers as one that does not; the README says which do not."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homeserver.api.client.versions import VERSIONS
from tests import openapi
from tests.server import RESOURCES, Server

if TYPE_CHECKING:
    from tests.client import Client

README = Path(__file__).parent.parent.parent / "README.md"
LIST = openapi.DATA.parent / "endpoints.tsv"
NEWER = ("/_matrix/client/v1/mutual_rooms", "/_matrix/client/v1/auth_metadata", "/_matrix/policy/v1/sign")
"""Later than all that we claim, though the list does not say since when they are there."""
pytestmark = pytest.mark.skipif(not LIST.exists(), reason="the list of endpoints is not at hand")

MISSING = {
    "previews of links": r"/media/(v3|v1)?/?preview_url$|/media/preview_url$",
    "push": r"/(notifications|pushers|pushrules)\b",
    "email addresses and telephone numbers": r"/3pid\b|/requestToken$",
    "single sign-on": r"/sso/",
    "search": r"/search$",
    "application services": r"/appservice/|/thirdparty/",
    "reporting": r"/report/|/admin/whois/|/turnServer$",
    "what the specification calls deprecated": r"/events\b|/initialSync$",
    "contacts of administrators": r"/support$",
}
"""The lines of "What is still missing" in the README, by their beginnings, and the paths that each means."""


@dataclass(frozen=True)
class Endpoint:
    """A row of the list."""

    api: str
    method: str
    path: str
    since: str

    @property
    def shape(self) -> tuple[str, str]:
        return self.method, shape(self.path)

    @property
    def is_claimed(self) -> bool:
        """Whether the versions that we tell have it."""
        return self.path not in NEWER and (not self.since or f"v{self.since}" in VERSIONS)


def shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path).rstrip("/")


def endpoints() -> list[Endpoint]:
    with LIST.open() as file:
        return [
            Endpoint(row["api"], row["method"], row["path"], row["since"])
            for row in csv.DictReader(file, delimiter="\t")
            # The others are answered by application services and push gateways.
            if row["api"] in ("client-server", "server-server")
        ]


def served(server: Server) -> set[tuple[str, str]]:
    return {(route.method, shape(route.path)) for route in server.application.api.routes(RESOURCES)}


def missing_in_readme() -> list[str]:
    section = README.read_text().partition("## What is still missing")[2].partition("\n## ")[0]
    return re.findall(r"^- (.*)$", section, re.MULTILINE)


def example_of(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "anything", path)


async def test_an_endpoint_that_is_not_there_says_so_to_everybody(server: Server, alice: Client) -> None:
    there = served(server)
    paths = {path for _, path in there}
    checked = 0
    for endpoint in endpoints():
        if endpoint.shape in there:
            continue
        for headers in ({}, {"Authorization": f"Bearer {alice.access_token}"}):
            response = await server.http.request(
                endpoint.method, example_of(endpoint.path), headers=headers, content=b"not JSON"
            )
            expected = 405 if shape(endpoint.path) in paths else 404
            assert response.status_code == expected, endpoint
            assert response.json()["errcode"] == "M_UNRECOGNIZED"
            assert response.headers["access-control-allow-origin"] == "*"
        checked += 1
    assert checked > 50


async def test_an_endpoint_that_is_there_takes_no_other_method(server: Server) -> None:
    there = served(server)
    for path in {route.path for route in server.application.api.routes(RESOURCES)}:
        for method in ("GET", "PUT", "POST", "DELETE", "PATCH"):
            if (method, shape(path)) in there:
                continue
            response = await server.http.request(method, example_of(path))
            assert response.status_code == 405, (method, path)
            assert response.json()["errcode"] == "M_UNRECOGNIZED"
            assert method not in response.headers["allow"]


async def test_the_readme_names_every_endpoint_that_is_missing_and_none_that_is_there(server: Server) -> None:
    there = served(server)
    missing = [one for one in endpoints() if one.is_claimed and one.shape not in there]
    lines = missing_in_readme()
    found = {next((key for key in MISSING if line.startswith(key)), None) for line in lines}
    assert found == set(MISSING), lines
    for endpoint in missing:
        assert [key for key, pattern in MISSING.items() if re.search(pattern, endpoint.path)], endpoint
    for line, pattern in MISSING.items():
        assert [one for one in missing if re.search(pattern, one.path)], f"nothing of this is missing: {line}"


async def test_what_was_there_before_version_1_1_is_there_under_both_prefixes(server: Server) -> None:
    there = served(server)
    for endpoint in endpoints():
        method, path = endpoint.shape
        if "/client/v3/" in path and not endpoint.since and (method, path) in there:
            assert (method, path.replace("/v3/", "/r0/")) in there, endpoint


async def test_beyond_the_specification_there_is_what_clients_and_tools_are_known_to_use(
    server: Server,
) -> None:
    known = {one.shape for one in endpoints()}
    known |= {(method, path.replace("/v3/", "/r0/")) for method, path in known}
    assert served(server) - known == {
        ("GET", "/_restante/health"),
        # Sliding sync, as it was accepted and as it was deployed before (MSC4186).
        ("POST", "/_matrix/client/v4/sync"),
        ("POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"),
        # Thread subscriptions (MSC4306, MSC4308).
        ("GET", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
        ("PUT", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
        ("DELETE", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
        ("GET", "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"),
        # This server's own (docs/offline.md).
        ("GET", "/_matrix/client/unstable/dev.restante.missed/summary"),
        ("GET", "/_matrix/client/unstable/dev.restante.missed/messages"),
        ("GET", "/_matrix/client/unstable/dev.restante.delivery/rooms/{}/events/{}"),
        ("GET", "/metrics"),
        ("GET", "/_synapse/admin/v1/register"),
        ("POST", "/_synapse/admin/v1/register"),
        # Described in prose only: CS "Fallback", and a state key that is empty.
        ("GET", "/_matrix/client/v3/auth/{}/fallback/web"),
        ("POST", "/_matrix/client/v3/auth/{}/fallback/web"),
        ("GET", "/_matrix/client/r0/auth/{}/fallback/web"),
        ("POST", "/_matrix/client/r0/auth/{}/fallback/web"),
        ("GET", "/_matrix/client/v3/rooms/{}/state/{}"),
        ("PUT", "/_matrix/client/v3/rooms/{}/state/{}"),
        ("GET", "/_matrix/client/r0/rooms/{}/state/{}"),
        ("PUT", "/_matrix/client/r0/rooms/{}/state/{}"),
        # The first versions, which servers fall back on.
        ("PUT", "/_matrix/federation/v1/send_join/{}/{}"),
        ("PUT", "/_matrix/federation/v1/send_leave/{}/{}"),
        # What identity servers call.
        ("POST", "/_matrix/federation/v1/3pid/onbind"),
        ("GET", "/_matrix/client/unstable/rooms/{}/relations/{}"),
        ("GET", "/_matrix/client/unstable/rooms/{}/relations/{}/{}"),
        ("GET", "/_matrix/client/unstable/rooms/{}/relations/{}/{}/{}"),
        # MSC3814
        ("PUT", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"),
        ("GET", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"),
        ("DELETE", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"),
        ("GET", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events"),
        ("POST", "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events"),
    }


async def test_a_listener_serves_its_resources_and_its_health(server: Server) -> None:
    def paths(*resources: str) -> set[str]:
        return {route.path for route in server.application.api.routes(resources)}

    health = "/_restante/health"
    assert paths() == {health}
    assert paths("federation") > {health, "/.well-known/matrix/server", "/_matrix/key/v2/server"}
    assert paths("metrics") == {health, "/metrics"}
    assert paths("admin") == {health, "/_synapse/admin/v1/register"}
    assert paths("client") > {health, "/.well-known/matrix/client", "/_matrix/client/v3/sync"}
    assert "/metrics" not in paths("client", "federation", "admin")
