"""Every endpoint of the server-server API is answered; what calls them is tested in `tests/federation/test_client.py`."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

import pytest

from federation.request_auth import sign_request
from tests import openapi
from tests.client import refused
from tests.server import RESOURCES

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server

LIST = openapi.DATA.parent / "endpoints.tsv"
pytestmark = pytest.mark.skipif(not LIST.exists(), reason="the list of endpoints is not at hand")

OF_POLICY_SERVERS = ("POST", "/_matrix/policy/v1/sign")
""" "This endpoint is otherwise optional": who has none is no policy server."""


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def listed() -> dict[tuple[str, str], str]:
    """Method and path -> who signs the request."""
    with LIST.open() as file:
        return {
            (row["method"], _shape(row["path"])): row["auth"]
            for row in csv.DictReader(file, delimiter="\t")
            if row["api"] == "server-server"
        }


async def test_every_endpoint_is_there(server: Server) -> None:
    there = {(route.method, _shape(route.path)) for route in server.application.api.routes(RESOURCES)}
    assert listed().keys() - there == {OF_POLICY_SERVERS}


async def test_what_is_to_be_signed_is_refused_without_a_signature(server: Server) -> None:
    checked = 0
    for (method, path), auth in listed().items():
        if auth != "signed" or (method, path) == OF_POLICY_SERVERS:
            continue
        answer = await server.http.request(method, path.replace("{}", "anything"), content=b"{}")
        assert (answer.status_code, answer.json()["errcode"]) == (401, "M_UNAUTHORIZED"), path
        checked += 1
    assert checked > 20


async def test_this_server_is_no_policy_server_and_says_so(one: Remote) -> None:
    answer = await one.server.http.post("/_matrix/policy/v1/sign", json={})
    assert (answer.status_code, answer.json()["errcode"]) == (404, "M_UNRECOGNIZED")


async def test_a_name_in_other_letters_is_another_server(alice: Client, one: Remote) -> None:
    """ "Server names must be treated as case-sensitive." """
    with refused(404, "M_NOT_FOUND"):
        await one.get("/query/profile", user_id="@alice:EXAMPLE.org")
    with refused(404, "M_NOT_FOUND"):
        await one.get("/query/directory", room_alias="#tea:EXAMPLE.org")
    for origin, destination in (("one.example", "EXAMPLE.org"), ("ONE.example", "example.org")):
        target = f"/_matrix/federation/v1/query/profile?user_id={alice.user_id}"
        header = sign_request(one.key, origin, destination, "GET", target)
        answer = await one.server.http.get(target, headers={"Authorization": header})
        assert (answer.status_code, answer.json()["errcode"]) == (401, "M_UNAUTHORIZED")
