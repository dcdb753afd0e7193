"""What machines learn that watch over the server; and what clients learn while the database is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from homeserver.storage.errors import DatabaseUnavailable
from tests.client import Client, Refused

if TYPE_CHECKING:
    from tests.server import Server


def take_away(server: Server, patch: pytest.MonkeyPatch) -> None:
    """The database cannot be reached until the patch is undone."""

    async def fail(*_: Any) -> Any:
        raise DatabaseUnavailable("PostgreSQL cannot be reached: db.example.org")

    database = type(server.application.database)
    for name in ("fetch_all", "fetch_one", "fetch_value", "write"):
        patch.setattr(database, name, fail)


async def test_the_server_is_well_while_its_database_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = await server.http.get("/_restante/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    take_away(server, monkeypatch)
    response = await server.http.get("/_restante/health")
    assert response.status_code == 503
    assert response.headers["access-control-allow-origin"] == "*"


async def test_nobody_is_logged_out_by_a_database_that_is_away(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients throw the session away on `M_UNKNOWN_TOKEN`."""
    other = await server.login(alice)
    take_away(server, monkeypatch)
    for path in ("/account/whoami", "/sync", "/joined_rooms", "/devices"):
        with pytest.raises(Refused) as refused:
            await other.get(path)
        assert (refused.value.status, refused.value.errcode) == (503, "M_UNKNOWN")
        assert "db.example.org" not in refused.value.body["error"]
    with pytest.raises(Refused) as refused:
        await server.login(alice)
    assert refused.value.status == 503


async def test_after_the_database_has_come_back_all_goes_on(
    server: Server, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await alice.create_room()
    with pytest.MonkeyPatch.context() as patch:
        take_away(server, patch)
        with pytest.raises(Refused) as refused:
            await alice.send(room, "lost", transaction_id="t1")
        assert refused.value.status == 503
    event_id = await alice.send(room, "lost", transaction_id="t1")
    assert (await alice.event(room, event_id))["content"]["body"] == "lost"


async def test_metrics_tell_of_requests_by_route(server: Server, alice: Client) -> None:
    room = await alice.create_room()
    await alice.send(room, "text")
    response = await server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = [
        (sample.name, sample.labels.get("route", ""), sample.value)
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    ]
    route = "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}"
    assert ("restante_http_requests_total", route, 1.0) in samples
    assert room not in response.text
    assert "alice" not in response.text
