"""A server of ours and Synapse, with devices of a foreign library on each."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from tests.client import Client
from tests.clients.stage import js_actor, nio_actor
from tests.interop.people import Somebody, of_synapse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.clients.actors import Actor
    from tests.interop.synapse import Synapse
    from tests.server_process import ServerProcess

_numbers = itertools.count()


@dataclass(frozen=True)
class Ends:
    """A server of ours and Synapse, and a program for each, that runs devices of its users."""

    ours: ServerProcess
    synapse: Synapse
    here: Actor
    there: Actor


@asynccontextmanager
async def set_up(
    folder: Path, ours: ServerProcess, synapse: Synapse, *, here: str, there: str
) -> AsyncIterator[Ends]:
    """Both programs run until the end of the block; the libraries are "js" and "nio"."""
    async with (
        _actor(here, folder / "here", ours.url, ours.directory / "ca.pem") as one,
        _actor(there, folder / "there", synapse.url, ours.directory / "ca.pem") as other,
    ):
        yield Ends(ours, synapse, one, other)


@asynccontextmanager
async def residents(ends: Ends) -> AsyncIterator[tuple[Somebody, Somebody]]:
    """Somebody here and somebody there, who are in no room."""
    ours, synapse = ends.ours, ends.synapse
    async with (
        httpx.AsyncClient(base_url=ours.url, timeout=60) as http,
        httpx.AsyncClient(base_url=synapse.url, verify=synapse.trust, timeout=60) as https,
    ):
        account = await asyncio.to_thread(ours.register, unique("resident"))
        client = Client(http, account.user_id, account.device_id, account.access_token)
        yield Somebody(client, ours.server_name), await of_synapse(synapse, https, "resident")


def unique(name: str) -> str:
    """A name that no test has given to anybody on Synapse."""
    return f"{name}-{next(_numbers)}"


def _actor(library: str, folder: Path, url: str, ca_file: Path) -> Actor:
    folder.mkdir()
    if library == "js":
        return js_actor(url, NODE_EXTRA_CA_CERTS=str(ca_file))
    return nio_actor(url, folder, SSL_CERT_FILE=str(ca_file))
