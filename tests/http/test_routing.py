from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.http.routing import Match, Route, Router, client

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.http.request import Request


async def handler(request: Request) -> Response:
    raise NotImplementedError


def router(*paths: str) -> Router:
    return Router([Route("GET", path, handler) for path in paths])


@pytest.mark.parametrize(
    ("path", "found", "values"),
    [
        ("/rooms/!a/state", "/rooms/{room}/state", {"room": "!a"}),
        ("/rooms/!a/state/", "/rooms/{room}/state", {"room": "!a"}),
        ("/rooms/list/state", "/rooms/list/{what}", {"what": "state"}),
        ("/rooms/list", "/rooms/list", {}),
        ("/rooms/list/all", "/rooms/list/{what}", {"what": "all"}),
        (
            "/rooms/list/state/a/b",
            "/rooms/{room}/state/{type}/{key}",
            {"room": "list", "type": "a", "key": "b"},
        ),
        ("/rooms//state", "/rooms/{room}/state", {"room": ""}),
        ("/rooms/%21a/state", "/rooms/{room}/state", {"room": "!a"}),
        ("/rooms/a%2Fb/state", "/rooms/{room}/state", {"room": "a/b"}),
    ],
)
def test_a_fixed_segment_goes_before_a_parameter_unless_it_leads_nowhere(
    path: str, found: str, values: dict[str, str]
) -> None:
    match = router(
        "/rooms/{room}/state",
        "/rooms/{room}/state/{type}/{key}",
        "/rooms/list",
        "/rooms/list/{what}",
    ).find("GET", path.encode())
    assert isinstance(match, Match)
    assert match.route.path == found
    assert match.parameters == values


@pytest.mark.parametrize(
    "path", ["/", "/rooms", "/rooms/list/all/more", "/rooms/a/b/c/d/e", "/x", "/rooms%2Flist"]
)
def test_a_path_that_nobody_serves_is_not_found(path: str) -> None:
    assert router("/rooms/{room}/state", "/rooms/list/{what}").find("GET", path.encode()) is None


def test_the_same_path_may_call_its_parameters_differently_for_each_method() -> None:
    both = Router([Route("GET", "/a/{one}", handler), Route("PUT", "/a/{two}", handler)])
    got, put = both.find("GET", b"/a/x"), both.find("PUT", b"/a/x")
    assert isinstance(got, Match)
    assert isinstance(put, Match)
    assert (got.parameters, put.parameters) == ({"one": "x"}, {"two": "x"})
    assert both.find("DELETE", b"/a/x") == {"GET", "PUT"}


def test_two_routes_for_one_thing_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two routes"):
        router("/a/{one}", "/a/{two}")


def test_an_endpoint_of_clients_has_both_of_its_prefixes() -> None:
    assert [route.path for route in client("GET", "/sync", handler)] == [
        "/_matrix/client/r0/sync",
        "/_matrix/client/v3/sync",
    ]


def test_a_long_path_costs_no_more_than_its_length() -> None:
    routes = router(*("/a" * fixed + "/{x}" * (8 - fixed) for fixed in range(9)))
    assert routes.find("GET", b"/a" * 100_000) is None
    assert routes.find("GET", b"/a" * 8 + b"/b") is None
