"""Bad input to every route: the specified error, nothing changed, and never a 5xx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import openapi
from tests.bad_input.requests import plan
from tests.bad_input.world import World

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

VISITS = 28
SOAK_VISITS = 300
_SETTINGS: dict[str, Any] = {
    "deadline": None,
    "database": None,
    # The world goes on from one visit to the next: what failed is shown as it was.
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
    "report_multiple_bugs": False,
}
NOT_CONFIGURED = {
    ("GET", "/.well-known/matrix/client"),
    ("GET", "/.well-known/matrix/server"),
    ("GET", "/_matrix/client/v1/register/m.login.registration_token/validity"),
    ("GET", "/_matrix/client/v3/auth/{stage}/fallback/web"),
    ("POST", "/_matrix/client/v3/auth/{stage}/fallback/web"),
    ("GET", "/_synapse/admin/v1/register"),
    ("POST", "/_synapse/admin/v1/register"),
}
_EVENT = "{roomId}/{eventId}"
TAKE_A_SIGNED_EVENT = {
    *(
        ("PUT", f"/_matrix/federation/v1/{name}/{_EVENT}")
        for name in ("send_join", "send_knock", "send_leave", "invite")
    ),
    *(("PUT", f"/_matrix/federation/v2/{name}/{_EVENT}") for name in ("send_join", "send_leave", "invite")),
    ("PUT", "/_matrix/federation/v1/exchange_third_party_invite/{roomId}"),
    *((method, "/_matrix/federation/v1/3pid/onbind") for method in ("PUT", "POST")),
}
"""What comes there is an event, or an invite, that somebody has signed; `tests/federation_api` brings such."""
KNOW_NONE = {("GET", "/_matrix/federation/v1/query/{queryType}")}
_MEDIA = "{serverName}/{mediaId}"
FROZEN = {
    ("GET", f"/_matrix/media/v3/{path}")
    for path in (f"download/{_MEDIA}", f"download/{_MEDIA}/{{fileName}}", f"thumbnail/{_MEDIA}")
}
pytestmark = pytest.mark.skipif(not openapi.DATA.is_dir(), reason="the descriptions are not at hand")


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, database_url)
    made.run(made.open())
    yield made
    made.run(made.close())
    made.runner.close()


def attack(world: World, visits: int, *, derandomize: bool) -> None:
    """Visits in which every endpoint is asked once, in any order."""
    # One prefix for each endpoint: the same handler stands behind the others.
    routes = sorted({(route.method, route.path) for route in world.routes() if "/r0/" not in route.path})
    failures: list[Exception] = []

    @settings(max_examples=visits, derandomize=derandomize, **_SETTINGS)
    @given(st.randoms(use_true_random=True))
    def visit(chance: random.Random) -> None:
        # What failed once has failed: the world is another one when it is tried again.
        if failures:
            raise failures[0]
        try:
            for method, path in chance.sample(routes, len(routes)):
                world.run(world.send(plan(chance, method, path)))
        except Exception as error:
            failures.append(error)
            raise

    visit()
    assert world.refused > visits * len(routes) / 4
    # What is always refused is not tested deeply: most routes must have been used as they are meant to be, too.
    refused = {route for route, statuses in world.statuses.items() if 200 not in statuses}
    refused -= NOT_CONFIGURED | TAKE_A_SIGNED_EVENT | KNOW_NONE | FROZEN
    assert len(refused) < len(routes) / 8, sorted(refused)


def test_bad_input_is_refused_with_the_specified_error_and_changes_nothing(world: World) -> None:
    attack(world, VISITS, derandomize=True)


@pytest.mark.soak
def test_much_bad_input_is_refused_with_the_specified_error_and_changes_nothing(world: World) -> None:
    attack(world, SOAK_VISITS, derandomize=False)
