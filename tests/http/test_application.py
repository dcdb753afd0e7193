"""What every answer has in common, whatever the endpoint."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from homeserver import logs
from homeserver.errors import Conflict, Forbidden, LimitExceeded
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.http.application import HttpApplication
from homeserver.http.response import json_response
from homeserver.http.routing import Route, Router
from homeserver.metrics import Metrics
from homeserver.storage.errors import DatabaseClosed, DatabaseUnavailable

if TYPE_CHECKING:
    from starlette.responses import Response

    from homeserver.http.request import Request

ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
ALLOWED_HEADERS = "X-Requested-With, Content-Type, Authorization"
EXPOSED_HEADERS = "ETag, Retry-After"


class Endpoints:
    """Routes of tests, and what was asked of them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.raises: BaseException | None = None

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/thing/{name}", self.answer),
            Route("PUT", "/thing/{name}", self.read, max_body_bytes=1000),
        ]

    async def answer(self, request: Request) -> Response:
        self.requests.append(request)
        if self.raises is not None:
            raise self.raises
        return json_response({"name": request.path_parameters["name"]})

    async def read(self, request: Request) -> Response:
        self.requests.append(request)
        return json_response(await request.json())


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def client_of(
    endpoints: Endpoints, metrics: Metrics, proxies: tuple[str, ...] = (), address: str = "192.0.2.7"
) -> httpx.AsyncClient:
    application = HttpApplication(Router(endpoints.routes()), metrics, proxies)
    transport = httpx.ASGITransport(application, client=(address, 4000))
    return httpx.AsyncClient(transport=transport, base_url="http://example.org")


@pytest.fixture
def client(endpoints: Endpoints, metrics: Metrics) -> httpx.AsyncClient:
    return client_of(endpoints, metrics)


def assert_open_to_browsers(response: httpx.Response) -> None:
    """CS "Web Browser Clients"."""
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-allow-methods"] == ALLOWED_METHODS
    assert response.headers["access-control-allow-headers"] == ALLOWED_HEADERS
    assert response.headers["access-control-expose-headers"] == EXPOSED_HEADERS


def assert_error(response: httpx.Response, status: int, errcode: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert_open_to_browsers(response)
    body = response.json()
    assert body["errcode"] == errcode
    assert isinstance(body["error"], str)
    return body


async def test_browsers_of_other_origins_may_read_every_answer(client: httpx.AsyncClient) -> None:
    response = await client.get("/thing/a")
    assert response.status_code == 200
    assert response.json() == {"name": "a"}
    assert_open_to_browsers(response)


async def test_an_unknown_path_is_404_and_an_unknown_method_405_without_work(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    assert_error(await client.get("/nothing"), 404, "M_UNRECOGNIZED")
    assert_error(await client.get("/thing"), 404, "M_UNRECOGNIZED")
    assert_error(await client.get("/thing/a/b"), 404, "M_UNRECOGNIZED")
    refused = await client.post("/thing/a", content=b"{")
    assert_error(refused, 405, "M_UNRECOGNIZED")
    assert refused.headers["allow"] == "GET, HEAD, OPTIONS, PUT"
    assert_error(await client.request("BREW", "/thing/a"), 405, "M_UNRECOGNIZED")
    assert endpoints.requests == []


async def test_head_is_get_without_the_body(client: httpx.AsyncClient) -> None:
    whole, head = await client.get("/thing/a"), await client.head("/thing/a")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == whole.headers
    missing = await client.head("/nothing")
    assert (missing.status_code, missing.content) == (404, b"")


@pytest.mark.parametrize("path", ["/thing/a", "/nothing", "/thing/%00"])
async def test_options_answers_on_every_path_without_work(
    client: httpx.AsyncClient, endpoints: Endpoints, path: str
) -> None:
    response = await client.options(path, headers={"Authorization": "Bearer nobody"})
    assert (response.status_code, response.content) == (204, b"")
    assert_open_to_browsers(response)
    assert response.headers["access-control-max-age"] == "86400"
    assert endpoints.requests == []


@pytest.mark.parametrize(
    ("error", "status", "errcode"),
    [
        (Forbidden("no"), 403, "M_FORBIDDEN"),
        (AuthRuleViolated("5.1", "not in the room"), 403, "M_FORBIDDEN"),
        (EventRefused("odd"), 400, "M_BAD_JSON"),
        (EventRefused("big", too_large=True), 413, "M_TOO_LARGE"),
        (Conflict(), 409, "M_UNKNOWN"),
        (DatabaseClosed(), 503, "M_UNKNOWN"),
        (DatabaseUnavailable("PostgreSQL cannot be reached: host db.example.org"), 503, "M_UNKNOWN"),
        (KeyError("what people wrote"), 500, "M_UNKNOWN"),
    ],
)
async def test_an_error_of_any_layer_becomes_a_matrix_error(
    client: httpx.AsyncClient, endpoints: Endpoints, error: Exception, status: int, errcode: str
) -> None:
    endpoints.raises = error
    body = assert_error(await client.get("/thing/a"), status, errcode)
    assert "what people wrote" not in body["error"]
    assert "db.example.org" not in body["error"]


async def test_an_error_does_not_repeat_all_that_was_sent(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    endpoints.raises = Forbidden("x" * 100_000)
    assert len(assert_error(await client.get("/thing/a"), 403, "M_FORBIDDEN")["error"]) == 500


async def test_an_unforeseen_error_tells_the_request_by_which_it_is_found_in_the_log(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    endpoints.raises = ZeroDivisionError()
    body = assert_error(await client.get("/thing/a"), 500, "M_UNKNOWN")
    assert endpoints.requests[0].request_id in body["error"]
    await client.get("/thing/a")
    assert endpoints.requests[0].request_id != endpoints.requests[1].request_id


async def test_a_request_that_is_cut_short_because_the_server_stops_can_be_made_again(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    endpoints.raises = asyncio.CancelledError()
    assert_error(await client.get("/thing/a"), 503, "M_UNKNOWN")


async def test_who_is_too_fast_learns_when_to_come_back_and_which_limit_it_was(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    endpoints.raises = LimitExceeded("messages", 1200)
    response = await client.get("/thing/a")
    body = assert_error(response, 429, "M_LIMIT_EXCEEDED")
    assert body["retry_after_ms"] == 1200
    assert "messages" in body["error"]
    assert response.headers["retry-after"] == "2"


async def test_metrics_know_routes_and_never_what_clients_make_up(
    client: httpx.AsyncClient, metrics: Metrics
) -> None:
    await client.get("/thing/a")
    await client.head("/thing/b")
    await client.get("/made/up")
    await client.request("MADEUP", "/thing/a")
    labels = {
        (sample.labels["method"], sample.labels["route"])
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "restante_http_requests_total"
    }
    assert labels == {
        ("GET", "/thing/{name}"),
        ("HEAD", "/thing/{name}"),
        ("GET", "unrecognized"),
        ("other", "unrecognized"),
    }


async def test_each_answer_is_logged_for_those_who_look_for_faults_and_by_its_route_only(
    client: httpx.AsyncClient, endpoints: Endpoints
) -> None:
    settings = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    try:
        with structlog.testing.capture_logs() as lines:
            await client.put("/thing/private?access_token=private", content=b'{"body": "private"}')
    finally:
        structlog.configure(**settings)
    (line,) = lines
    assert line.pop("seconds") >= 0
    assert line == {
        "event": "answered",
        "log_level": "debug",
        "method": "PUT",
        "route": "/thing/{name}",
        "status": 200,
    }
    assert logs.request_id.get() == endpoints.requests[0].request_id


@pytest.mark.parametrize(
    ("proxies", "address", "forwarded", "seen"),
    [
        # Nobody is believed who is not named.
        ((), "192.0.2.7", "203.0.113.9", "192.0.2.7"),
        (("192.0.2.8",), "192.0.2.7", "203.0.113.9", "192.0.2.7"),
        (("192.0.2.7",), "192.0.2.7", "203.0.113.9", "203.0.113.9"),
        # What stands before the address that the proxy saw is the client's own invention.
        (("192.0.2.7",), "192.0.2.7", "127.0.0.1, 203.0.113.9", "203.0.113.9"),
        (("192.0.2.0/24",), "192.0.2.7", "203.0.113.9, 192.0.2.8", "203.0.113.9"),
        (("192.0.2.7",), "192.0.2.7", "", "192.0.2.7"),
        (("192.0.2.7",), "192.0.2.7", "unknown", "192.0.2.7"),
        (("192.0.2.7",), "192.0.2.7", "203.0.113.9, unknown", "192.0.2.7"),
        (("192.0.2.7",), "192.0.2.7", "x" * 5000, "192.0.2.7"),
        (("192.0.2.7",), "192.0.2.7", "2001:DB8::0:1", "2001:db8::1"),
        # A socket that takes both protocols shows IPv4 so.
        (("127.0.0.1",), "::ffff:127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ((), "::ffff:203.0.113.9", "", "203.0.113.9"),
    ],
)
async def test_only_trusted_proxies_say_where_a_request_is_from(
    endpoints: Endpoints,
    metrics: Metrics,
    proxies: tuple[str, ...],
    address: str,
    forwarded: str,
    seen: str,
) -> None:
    client = client_of(endpoints, metrics, proxies, address)
    await client.get("/thing/a", headers={"X-Forwarded-For": forwarded})
    assert endpoints.requests[0].client_address == seen


@pytest.mark.parametrize(
    ("content", "status", "errcode"),
    [
        (b"", 400, "M_NOT_JSON"),
        (b"{", 400, "M_NOT_JSON"),
        (b"{'a': 1}", 400, "M_NOT_JSON"),
        (b'{"a": NaN}', 400, "M_NOT_JSON"),
        (b'{"a": "\xff"}', 400, "M_NOT_JSON"),
        (b'{"a": "\\ud800"}', 400, "M_NOT_JSON"),
        (b"\xef\xbb\xbf{}", 400, "M_NOT_JSON"),
        (b"[]", 400, "M_BAD_JSON"),
        (b"null", 400, "M_BAD_JSON"),
        (b'"text"', 400, "M_BAD_JSON"),
        (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", 400, "M_BAD_JSON"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, 413, "M_TOO_LARGE"),
        (b"[" * 990, 400, "M_NOT_JSON"),
        (b'{"a": "' + b"x" * 2000 + b'"}', 413, "M_TOO_LARGE"),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused_with_its_reason(
    client: httpx.AsyncClient, content: bytes, status: int, errcode: str
) -> None:
    assert_error(await client.put("/thing/a", content=content), status, errcode)


async def test_a_body_of_unknown_length_is_bounded_too(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 100
            yield b" " * 100

    assert_error(await client.put("/thing/a", content=endless()), 413, "M_TOO_LARGE")
    assert sent < 3000


async def test_a_body_needs_no_content_type(client: httpx.AsyncClient) -> None:
    for content_type in ("", "text/plain", "application/json; charset=utf-8", "nonsense"):
        response = await client.put(
            "/thing/a",
            content=b'{"a": 1}',
            headers={"Content-Type": content_type, "Content-Encoding": "identity"},
        )
        assert response.json() == {"a": 1}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/thing/%21a%3Ab.org", "!a:b.org"),
        ("/thing/!a:b.org", "!a:b.org"),
        ("/thing/a%2Fb", "a/b"),
        ("/thing/a%252Fb", "a%2Fb"),
        ("/thing/%25", "%"),
        ("/thing/a+b", "a+b"),
        ("/thing/%C3%A9", "é"),
        ("/thing/a/", "a"),
        ("/thing/..%2f..%2fetc", "../../etc"),
    ],
)
async def test_a_path_is_decoded_once(client: httpx.AsyncClient, path: str, name: str) -> None:
    assert (await client.get(path)).json() == {"name": name}


@pytest.mark.parametrize("path", ["/thing/%00", "/thing/%ff", "/thing/%ed%a0%80", "/thing/a%00b"])
async def test_a_path_that_is_not_text_is_refused(client: httpx.AsyncClient, path: str) -> None:
    assert_error(await client.get(path), 400, "M_INVALID_PARAM")
