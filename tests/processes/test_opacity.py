"""Nothing secret is in what a server leaves behind, and nothing that people write is in its log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

from homeserver.cli import control
from tests import traces
from tests.client import Client, Refused, error_of
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import Cluster

UNENCRYPTED = "an unencrypted message"


def by_password(name: str, password: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": name},
        "password": password,
        **more,
    }


class Secrets(dict[str, str]):
    """Texts that are to be looked for, by name."""

    def new(self, name: str) -> str:
        self[name] = f"{name.replace(' ', '-')}-{secrets.token_urlsafe(12)}"
        return self[name]

    def keep(self, name: str, value: str) -> str:
        self[name] = value
        return value


async def proved(client: Client, method: str, path: str, password: str, body: dict[str, Any]) -> Any:
    """A request with user-interactive authentication, in two steps."""
    asked = (await error_of(client.call(method, path, body))).body
    auth = by_password(client.user_id, password, session=asked["session"])
    return await client.call(method, path, {**body, "auth": auth})


async def live(nobody: Client, secret: Secrets) -> Client:
    """Register, log in, refresh, get things wrong, change the password: everything that a secret goes through."""
    password = secret.new("first password")
    registration = {"username": "alice", "password": password}
    asked = (await error_of(nobody.post("/register", registration))).body
    auth = {"type": "m.login.dummy", "session": asked["session"]}
    answer = await nobody.post("/register", {**registration, "auth": auth})
    secret.keep("token of the registration", answer["access_token"])
    alice = Client(nobody.http, answer["user_id"], answer["device_id"], answer["access_token"])

    # An open session, whose request holds a password.
    await error_of(nobody.post("/register", {"username": "bob", "password": secret.new("waiting password")}))
    for wrong in (secret.new("wrong password"), [secret.new("password in a list")]):
        await error_of(nobody.post("/login", by_password("alice", wrong)))
    for torn in (b'{"password": "%s', b'{"type": "m.login.password", "password": "%s"} x', b"%s"):
        text = secret.new(f"torn password {len(torn)}")
        await error_of(nobody.call("POST", "/login", content=torn % text.encode()))

    login = await nobody.post("/login", by_password("alice", password, refresh_token=True))
    phone = Client(
        nobody.http, alice.user_id, login["device_id"], secret.keep("token", login["access_token"])
    )
    await phone.sync()
    by_query = {"access_token": phone.access_token}
    await nobody.get("/account/whoami", **by_query)
    for method, path in (("GET", "/unknown"), ("PATCH", "/sync"), ("GET", "/sync")):
        await error_of(nobody.call(method, path, timeout="x", **by_query))
    unknown = secret.new("unknown token")
    for client, query in (
        (nobody, {"access_token": unknown}),
        (Client(nobody.http, access_token=unknown), {}),
    ):
        await error_of(client.get("/account/whoami", **query))

    refresh = secret.keep("refresh token", login["refresh_token"])
    pair = await nobody.post("/refresh", {"refresh_token": refresh})
    secret.keep("next token", pair["access_token"])
    secret.keep("next refresh token", pair["refresh_token"])
    phone.access_token = pair["access_token"]
    await phone.sync()
    await error_of(nobody.post("/refresh", {"refresh_token": refresh}))
    await error_of(nobody.post("/refresh", {"refresh_token": [pair["refresh_token"]]}))

    given = await proved(alice, "POST", "/_matrix/client/v1/login/get_token", password, {})
    token = {"type": "m.login.token", "token": secret.keep("login token", given["login_token"])}
    secret.keep("token by login token", (await nobody.post("/login", token))["access_token"])
    await error_of(nobody.post("/login", token))
    given = await proved(alice, "POST", "/_matrix/client/v1/login/get_token", password, {})
    secret.keep("unused login token", given["login_token"])

    await proved(alice, "DELETE", f"/devices/{phone.device_id}", password, {})
    changed = {"new_password": secret.new("second password"), "logout_devices": False}
    await proved(alice, "POST", "/account/password", password, changed)
    # Begun, and never finished.
    await error_of(alice.post("/account/password", {"new_password": secret.new("abandoned password")}))
    return alice


async def administer(nobody: Client, secret: Secrets, server: ServerProcess, shared_secret: str) -> None:
    """Make accounts by the command line and by the shared secret."""
    user = {"name": "carol", "password": secret.new("password by the socket")}
    await asyncio.to_thread(control.perform, server.config_path, "user-create", **user)
    await nobody.post("/login", by_password("carol", user["password"]))
    path = "/_synapse/admin/v1/register"
    fields = [(await nobody.get(path))["nonce"], "dora", secret.new("password by the secret"), "notadmin"]
    mac = hmac.new(shared_secret.encode(), "\0".join(fields).encode(), hashlib.sha1).hexdigest()
    body = dict(zip(("nonce", "username", "password"), fields, strict=False))
    answer = await nobody.post(path, {**body, "mac": mac})
    secret.keep("token by the secret", answer["access_token"])
    await error_of(nobody.post(path, {**body, "mac": "x"}))


async def write(alice: Client, written: Secrets) -> None:
    """Everything that people and their clients write, well formed or not."""
    room_id = await alice.create_room(name=written.new("name of the room"), topic=written.new("topic"))
    await alice.send(room_id, written.new(UNENCRYPTED), transaction_id=written.new("transaction"))
    await alice.send(room_id, {"algorithm": "x", "ciphertext": written.new("ciphertext")}, "m.room.encrypted")
    await alice.put(f"/profile/{alice.user_id}/displayname", {"displayname": written.new("display name")})
    data = f"/user/{alice.user_id}/account_data"
    await alice.put(f"{data}/m.secret_storage.key.k", {"mac": written.new("secret storage")})
    await alice.post(f"/user/{alice.user_id}/filter", {"room": {"rooms": [written.new("filter")]}})
    messages = {alice.user_id: {"*": {"ciphertext": written.new("message to devices")}}}
    await alice.put("/sendToDevice/m.room.encrypted/t1", {"messages": messages})
    backup = {
        "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": {"a": written.new("auth data")},
    }
    version = (await alice.post("/room_keys/version", backup))["version"]
    key = {"first_message_index": 0, "forwarded_count": 0, "is_verified": True}
    session = f"/room_keys/keys/{room_id}/{written.new('session')}"
    await alice.put(
        session, {**key, "session_data": {"ciphertext": written.new("backed up")}}, version=version
    )
    await alice.put(f"/rooms/{room_id}/typing/{alice.user_id}", {"typing": True, "timeout": 1000})
    await alice.sync(filter={"room": {"rooms": [written.new("filter in the query")]}})
    await error_of(alice.sync(written.new("since")))
    # What is refused.
    for method, path, content in (
        ("PUT", f"/rooms/{room_id}/send/m.room.message/t", b'{"body": "%s"'),
        ("PUT", f"/rooms/{room_id}/send/m.room.message/t", b'["%s"]'),
        ("PUT", f"/rooms/{room_id}/send/m.room.message/t", b'{"n": 1e3, "body": "%s"}'),
        ("PUT", f"/rooms/{room_id}/state/m.room.member/@b:c", b'{"membership": "%s"}'),
        ("PUT", f"/rooms/{room_id}/state/m.room.power_levels/", b'{"users": {"%s": 100}, "ban": "x"}'),
        ("PUT", "/sendToDevice/m.room.encrypted/t2", b'{"messages": "%s"}'),
        ("PUT", "/room_keys/keys", b'{"rooms": {"%s": 1}}'),
        ("PUT", session, b'{"session_data": "%s"}'),
        ("POST", "/room_keys/version", b'{"algorithm": ["%s"], "auth_data": {}}'),
        ("PUT", f"{data}/m.secret_storage.key.k", b"%s"),
        ("POST", "/createRoom", b'{"preset": "%s"}'),
        ("POST", "/keys/upload", b'{"device_keys": "%s"}'),
        ("POST", "/keys/upload", b'{"one_time_keys": {"signed_curve25519:A": "%s"}}'),
    ):
        text = written.new(f"refused {len(written)}").encode()
        with suppress(Refused):
            await alice.call(method, path, content=content % text, version=version)


async def test_neither_files_nor_rows_nor_logs_hold_a_secret(
    database_url: str, cluster: Cluster | None, tmp_path: Path
) -> None:
    secret, written = Secrets(), Secrets()
    server = ServerProcess(
        tmp_path,
        server_name="example.org",
        database={"url": database_url},
        logging={"level": "debug", "format": "json"},
        registration={"mode": "open", "shared_secret": written.new("shared secret")},
    )
    leavings = traces.Leavings(server, database_url, cluster)
    with server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            nobody = Client(http)
            alice = await live(nobody, secret)
            await administer(nobody, secret, server, written["shared secret"])
            await write(alice, written)
            while_running = await leavings.find(secret)
            metrics = (await http.get("/metrics")).text
    assert while_running == set()
    assert await leavings.find(secret) == set()
    # The search works: what is not secret is there, in a row and in a file.
    message = {UNENCRYPTED: written[UNENCRYPTED]}
    places = {place for _, form, place in await leavings.find(message) if form == "plain"}
    assert {place.startswith("the table ") for place in places} == {True, False}
    told = traces.told(server, metrics)
    assert traces.traces({**secret, **written}, told) == set()
    known = {"a request": "/_matrix/client/v3/room_keys/version", "debug": '"level":"debug"'}
    assert {name for name, _, place in traces.traces(known, told) if place == "the log"} == set(known)
