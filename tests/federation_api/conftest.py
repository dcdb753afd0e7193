"""A server, and servers elsewhere that ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.federation_api.remote import Network

if TYPE_CHECKING:
    from tests.client import Client
    from tests.federation_api.remote import Remote
    from tests.server import Server


@pytest.fixture
def network(server: Server) -> Network:
    return Network(server)


@pytest.fixture
def one(network: Network) -> Remote:
    """The server `one.example`."""
    return network.remote("one.example")


@pytest.fixture
def two(network: Network) -> Remote:
    """The server `two.example`."""
    return network.remote("two.example")


@pytest.fixture
async def room(alice: Client, one: Remote) -> str:
    """A public room of Alice's that Zoe of `one.example` is in."""
    room_id = await alice.create_room(preset="public_chat", name="The room")
    await one.become("join", room_id, one.user("zoe"))
    return room_id
