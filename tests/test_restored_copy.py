"""What docs/encryption.md has people do with a copy of the database that they put back."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from homeserver.clock import Clock
from homeserver.storage.engines import open_database
from tests import keys
from tests.client import bodies, refused

if TYPE_CHECKING:
    from homeserver.storage.database import Transaction
    from tests.client import Client
    from tests.postgresql import Cluster
    from tests.server import Server

DOCUMENT = Path(__file__).parent.parent / "docs" / "encryption.md"
STATEMENTS = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0].split(";")[:-1]


async def copy(server: Server, database_url: str, cluster: Cluster | None, *, back: bool) -> None:
    """Make a copy of the database, or put it back, while the server is stopped."""
    await server.stop()
    if cluster is None:
        database = Path(database_url.removeprefix("sqlite:///"))
        kept = database.with_name("copy.db")
        shutil.copyfile(kept, database) if back else shutil.copyfile(database, kept)
    else:
        name = urlsplit(database_url).path.strip("/")
        target, source = (name, f"{name}_copy") if back else (f"{name}_copy", name)
        if back:
            await cluster.drop_database(target)
        await cluster.execute(f"CREATE DATABASE {target} TEMPLATE {source}")
        if back:
            await cluster.drop_database(source)
    if back:
        await make_ready(database_url, Path(server.settings.data_dir))
    await server.start()


async def make_ready(database_url: str, folder: Path) -> None:
    """Run what the document says."""

    async def work(transaction: Transaction) -> None:
        for statement in STATEMENTS:
            assert await transaction.execute(statement) > 0, statement

    database = await open_database(database_url, "example.org", Clock(), directory=folder)
    await database.write(work)
    await database.close()


async def create_backup(client: Client) -> str:
    body = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}}
    return (await client.post("/room_keys/version", body))["version"]


async def test_a_copy_that_is_put_back_as_is_written_gives_no_key_twice_and_loses_nothing_new(
    server: Server, alice: Client, bob: Client, database_url: str, cluster: Cluster | None
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await alice.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await bob.join(room_id)
    device = keys.Device(alice)
    await device.upload(3)
    await alice.send(room_id, "before")
    assert await create_backup(alice) == "1"
    await copy(server, database_url, cluster, back=False)
    alice, bob = server.reconnect(alice), server.reconnect(bob)

    claimed = await keys.claim_one(bob, alice)
    assert claimed is not None
    tablet = await server.login(alice)
    assert await create_backup(alice) == "2"
    for number in range(20):
        await bob.send(room_id, f"lost {number}")
    sinces = [(await client.sync())["next_batch"] for client in (alice, bob)]

    await copy(server, database_url, cluster, back=True)
    alice, bob, tablet = (server.reconnect(client) for client in (alice, bob, tablet))
    assert await keys.claim_one(bob, alice) is None
    with refused(401, "M_UNKNOWN_TOKEN"):
        await tablet.sync()
    answer = await alice.sync(sinces[0])
    assert answer["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert bob.user_id in answer["device_lists"]["changed"]
    await alice.post("/keys/upload", {"one_time_keys": device.one_time_keys(2)})
    assert alice.user_id in (await bob.sync(sinces[1]))["device_lists"]["changed"]
    new = await keys.claim_one(bob, alice)
    assert new is not None
    assert new != claimed
    # A client that knew the second backup must not take the next one for it.
    assert (await alice.get("/room_keys/version"))["version"] == "1"
    assert await create_backup(alice) not in ("1", "2")
    await bob.send(room_id, "after")
    after = await alice.sync(answer["next_batch"])
    assert bodies(after["rooms"]["join"][room_id]["timeline"]["events"]) == ["after"]
    # Whoever comes with the token from before, too.
    after = await alice.sync(sinces[0])
    assert bodies(after["rooms"]["join"][room_id]["timeline"]["events"]) == ["after"]
    assert bodies((await alice.messages(room_id))["chunk"]) == ["after", "before"]
