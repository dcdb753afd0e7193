"""One-time keys under `kill -9`: none is given out twice, and none that was uploaded is lost but by a lost answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.keys import Device, claim_one
from tests.processes.devices import Sender, connected, send_and_kill
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.client import Client

# So few that what was uploaded is claimed at once, even before an upload that was not answered comes again.
LOW, BATCH = 2, 20


class Claimer(Sender):
    """Claims keys of a device, one after the other."""

    def __init__(self, client: Client, target: Client, name: str) -> None:
        super().__init__(client, "", name)
        self.target = target
        self.given: list[tuple[str, Any]] = []

    async def deliver(self, _: str) -> str:
        key = await claim_one(self.client, self.target)
        if key is not None:
            self.given.append(key)
        return ""


class Uploader(Sender):
    """Uploads keys whenever few are left; what was not answered is uploaded again, as clients do."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, "", "uploader")
        self.device = Device(client)
        self.uploaded: dict[str, Any] = {}
        self._batch: dict[str, Any] = {}

    async def deliver(self, _: str) -> str:
        if not self._batch:
            counts = (await self.client.post("/keys/upload"))["one_time_key_counts"]
            if counts["signed_curve25519"] < LOW:
                self._batch = self.device.one_time_keys(BATCH)
                self.uploaded |= self._batch
        if self._batch:
            await self.client.post("/keys/upload", {"one_time_keys": self._batch})
            self._batch = {}
        return ""


@pytest.mark.parametrize(
    ("engine", "kills"),
    [
        ("sqlite", 10),
        ("postgresql", 5),
        pytest.param("sqlite", 300, marks=pytest.mark.soak),
        pytest.param("postgresql", 300, marks=pytest.mark.soak),
    ],
    indirect=["engine"],
)
async def test_no_key_is_given_out_twice_whenever_the_server_is_killed(
    kills: int, database_url: str, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path, server_name="example.org", database={"url": database_url}) as server:
        accounts = [server.register(name) for name in ("alice", "bob", "carol")]
        async with connected(server, *accounts) as (alice, bob, carol):
            uploader = Uploader(alice)
            await uploader.device.upload()
            claimers = [Claimer(client, alice, client.user_id) for client in (bob, carol)]
            await send_and_kill(server, [uploader, *claimers], [], kills)
            # What nobody knows whether it was stored is uploaded once more.
            await uploader.deliver("")
            await uploader.deliver("")
            rest = []
            while (key := await claim_one(bob, alice)) is not None:
                rest.append(key)

    given = [key for claimer in claimers for key in claimer.given] + rest
    names = [name for name, _ in given]
    assert len(names) == len(set(names)), "a key was given out twice"
    assert all(uploader.uploaded[name] == key for name, key in given)
    for claimer in claimers:
        own = [name for name, _ in claimer.given]
        assert own == sorted(own), "keys were not given out in the order of their uploads"
    # A claim whose answer was lost has taken one key at most.
    missing = uploader.uploaded.keys() - set(names)
    assert len(missing) <= sum(claimer.tried_again for claimer in claimers)
    assert len(given) > kills
