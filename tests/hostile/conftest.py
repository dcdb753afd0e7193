"""A server, one that is hostile, and one that is honest; and the room core, which judges what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.federation_api.remote import Network
from tests.hostile.mallory import Mallory
from tests.hostile.oracle import check_database

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    import nacl.signing

    from tests.federation_api.remote import Remote
    from tests.server import Server

    Judge = Callable[[], Awaitable[None]]


@pytest.fixture
def engine() -> str:
    """What attackers send is judged before it meets the database: `test_on_postgresql.py` has a few on the other one."""
    return "sqlite"


@pytest.fixture
def network(server: Server) -> Network:
    return Network(server)


@pytest.fixture
def mallory(network: Network) -> Mallory:
    """The server `evil.example`, with the user Mallory."""
    evil = network.remote("evil.example")
    return Mallory(evil.server, evil.name, evil.key)


@pytest.fixture
def honest(network: Network) -> Mallory:
    """The server `honest.example`, which does nothing wrong."""
    one = network.remote("honest.example")
    return Mallory(one.server, one.name, one.key)


@pytest.fixture
def judge(server: Server, mallory: Mallory, honest: Mallory) -> Judge:
    """Judges all that the server holds by the room core."""

    async def check() -> None:
        await check_database(server, keys_of(server, mallory, honest))

    return check


def examples(attempt: Callable[[random.Random], None], number: int, *, derandomize: bool) -> None:
    """Try something so often, each time with other chances; the world goes on from one time to the next."""
    failures: list[Exception] = []

    # What failed is shown as it was: it cannot be tried again in the same world.
    @settings(
        max_examples=number,
        derandomize=derandomize,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.randoms(use_true_random=True))
    def example(chance: random.Random) -> None:
        if failures:
            raise failures[0]
        try:
            attempt(chance)
        except Exception as error:
            failures.append(error)
            raise

    example()


def keys_of(server: Server, *others: Remote) -> dict[tuple[str, str], nacl.signing.VerifyKey]:
    """The keys that right signatures are made with."""
    keys = {(one.name, one.key.key_id): one.key.private.verify_key for one in others}
    for own in server.application.remote.servers.keyring._own_keys:
        keys[server.settings.server_name, own.key_id] = own.private.verify_key
    return keys
