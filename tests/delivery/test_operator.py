"""What the operator sees of destinations, and may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from homeserver.cli import federation
from homeserver.errors import MatrixError
from tests.delivery.far_servers import CAROL, FAR, FarServers, shared_room, until

if TYPE_CHECKING:
    from tests.client import Client
    from tests.conftest import StartServer
    from tests.server import Server

DAVE = "@dave:other.example"


async def test_destinations_are_listed_with_why_they_wait_and_one_is_tried_at_once(
    server: Server, alice: Client, far: FarServers
) -> None:
    room_id = await shared_room(server, alice, CAROL, DAVE)
    far.away.add(FAR)
    for text in ("1", "2"):
        await alice.send(room_id, text)
    await until(lambda: len(far.bodies("other.example")) == 2 and far.tried == len(far.taken) + 1)

    async def destinations() -> dict[str, Any]:
        answer = await server.control("federation-destinations")
        return {one["server_name"]: one for one in answer["destinations"]}

    by_name = await destinations()
    while not by_name[FAR]["failures"] or by_name["other.example"]["waits"]:
        by_name = await destinations()
    assert by_name[FAR]["waits"]
    assert by_name[FAR]["why"] == "it is away"
    assert by_name[FAR]["retry_ts"] > by_name[FAR]["failing_since_ts"]
    line = federation._state(by_name[FAR])
    assert line.startswith("something waits; fails since ")
    assert "(it is away); next try at " in line
    assert not by_name["other.example"]["waits"]
    assert federation._state(by_name["other.example"]).startswith("has everything; alive at ")
    far.away.clear()
    await server.control("federation-retry", name=FAR)
    await until(lambda: far.bodies() == ["1", "2"])
    with pytest.raises(MatrixError, match=r"Nothing was ever sent to nobody\.example"):
        await server.control("federation-retry", name="nobody.example")


async def test_without_federation_there_are_no_destinations(start_server: StartServer) -> None:
    server = await start_server(federation={"enabled": False})
    with pytest.raises(MatrixError, match="switched off"):
        await server.control("federation-destinations")
    alice = await server.register("alice")
    await alice.put("/sendToDevice/m.test/1", {"messages": {CAROL: {"*": {}}}})
    assert not await server.application.database.fetch_all("SELECT 1 FROM outgoing_to_device")


async def test_what_is_sent_is_counted(server: Server, alice: Client, far: FarServers) -> None:
    room_id = await shared_room(server, alice, CAROL)
    await alice.send(room_id, "hello")
    await until(lambda: far.taken)
    far.away.add(FAR)
    await alice.send(room_id, "hello?")
    await until(lambda: far.tried == 2)
    text = server.application.metrics.render().decode()
    assert 'restante_federation_transactions_sent_total{outcome="delivered"} 1.0' in text
    assert 'restante_federation_delivered_total{kind="event"} 1.0' in text
    assert 'restante_federation_transactions_sent_total{outcome="unreachable"} 1.0' in text
