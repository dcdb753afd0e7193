"""A server, and servers elsewhere that it asks for keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.remote_keys.far_server import FarServer, Network

if TYPE_CHECKING:
    from tests.server import Server


@pytest.fixture
def network(server: Server) -> Network:
    return Network(server)


@pytest.fixture
def far(network: Network) -> FarServer:
    """The server `far.example`."""
    return FarServer(network, "far.example")
