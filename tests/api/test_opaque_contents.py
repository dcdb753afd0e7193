"""What is encrypted goes out as it came in: the same JSON values, every ciphertext byte for byte."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.client import Client
    from tests.server import Server

# As a client may write them: escapes that need not be, in the order that it likes.
CIPHERTEXT = r"AwgAEnACgAkLmt6q\/+= \u002B \u00e9 é \ud83d\ude00 😀 \u2028 \" \\ " + "x" * 40_000
MEGOLM = (
    '{ "session_id":"s/+=" ,"sender_key": "k","device_id":"D",\n'
    f'"ciphertext" : "{CIPHERTEXT}","algorithm":"m.megolm.v1.aes-sha2",'
    '"m.relates_to":{"rel_type":"m.thread","event_id":"$root","org.example":[1,-0,9007199254740991,null,true,{}]}}'
).encode()
OLM = (
    '{"sender_key":"k","org.example.number":1.50, "ciphertext":'
    f'{{"c/+=": {{"body":"{CIPHERTEXT}" ,"type":0}}}},"algorithm":"m.olm.v1.curve25519-aes-sha2"}}'
).encode()


async def raw(client: Client, path: str, **query: str) -> bytes:
    """An answer as the bytes that it is."""
    response = await client.http.get(
        f"/_matrix/client/v3{path}", params=query, headers={"Authorization": f"Bearer {client.access_token}"}
    )
    assert response.status_code == 200
    return response.content


def the_encrypted(value: Any) -> list[Any]:
    """The contents of all encrypted events anywhere in an answer."""
    if isinstance(value, dict):
        if value.get("type") == "m.room.encrypted":
            return [value["content"]]
        value = list(value.values())
    return [content for item in value for content in the_encrypted(item)] if isinstance(value, list) else []


async def test_an_encrypted_event_comes_back_with_the_same_values_wherever_it_is_read(
    server: Server, alice: Client, bob: Client
) -> None:
    room_id = await alice.create_room(preset="public_chat")
    await bob.join(room_id)
    since = (await bob.sync())["next_batch"]
    path = f"/rooms/{room_id}/send/m.room.encrypted/t1"
    event_id = (await alice.call("PUT", path, content=MEGOLM))["event_id"]
    sent = json.loads(MEGOLM)

    async def assert_same(client: Client) -> None:
        for place, query in (
            ("/sync", {}),
            ("/sync", {"since": since, "set_presence": "offline"} if client.user_id == bob.user_id else {}),
            (f"/rooms/{room_id}/messages", {"dir": "b"}),
            (f"/rooms/{room_id}/event/{event_id}", {}),
            (f"/rooms/{room_id}/context/{event_id}", {}),
        ):
            contents = the_encrypted(json.loads(await raw(client, place, **query)))
            assert contents == [sent], place
            # To Python, True is 1 and 1 is 1.0: as text they are not.
            assert json.dumps(contents[0], sort_keys=True) == json.dumps(sent, sort_keys=True).replace(
                "-0,", "0,"
            )

    for client in (alice, bob):
        await assert_same(client)
    await server.restart()
    for client in (alice, bob, await server.login(alice)):
        await assert_same(server.reconnect(client))


async def test_a_message_to_a_device_comes_byte_for_byte(server: Server, alice: Client, bob: Client) -> None:
    body = b'{"messages":{"%s":{"%s":%s}}}' % (bob.user_id.encode(), bob.device_id.encode(), OLM)
    await alice.call("PUT", "/sendToDevice/m.room.encrypted/t1", content=body)
    for _ in range(2):
        answer = await raw(bob, "/sync", set_presence="offline")
        assert OLM in answer
        assert the_encrypted(json.loads(answer)) == [json.loads(OLM)]
        await server.restart()
        bob = server.reconnect(bob)


async def test_what_was_backed_up_comes_back_with_the_same_values(server: Server, alice: Client) -> None:
    backup = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": json.loads(OLM)}
    version = (await alice.post("/room_keys/version", backup))["version"]
    key = b'{"session_data":%s,"is_verified":false,"forwarded_count":0,"first_message_index":0}' % (
        OLM.replace(b"x" * 40_000, b"x" * 4_000)
    )
    path = "/room_keys/keys/!room:example.org/s"
    await alice.call("PUT", path, content=key, version=version)
    for _ in range(2):
        assert await alice.get(path, version=version) == json.loads(key)
        assert (await alice.get("/room_keys/version"))["auth_data"] == json.loads(OLM)
        await server.restart()
        alice = server.reconnect(alice)
