"""Sending to devices (CS "Send-to-Device messaging").

A message is stored as it goes out, its content byte for byte as it came. It is in the inbox of each of its devices
once the sending is answered; `homeserver.sync.to_device` hands it out, and drops it once it was acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from homeserver.errors import InvalidParam, TooLarge
from homeserver.ids import MAX_ID_BYTES, DeviceId, UserId, is_user_id, random_string, server_name_of
from homeserver.storage.transaction_ids import transaction_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homeserver.clock import Clock
    from homeserver.ids import ServerName
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Reader, Transaction
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.outgoing_to_device import OutgoingToDeviceStore
    from homeserver.storage.to_device import ToDeviceStore

MAX_CONTENT_BYTES = 65_536
"""As large as an event may be. The specification has no limit."""
MAX_KIBIBYTES = 10_000
"""For all devices that one request sends to."""
ALL_DEVICES = "*"
_KIBIBYTE = 1024
_MAX_DIRECT_BYTES = 100_000
_MESSAGE_ID_LENGTH = 24
_UNKNOWN_SERVER_KIBIBYTES = 1_000

Contents = Mapping[str, Mapping[str, bytes]]
"""What goes to whom: user id -> device id, or `*` for all devices -> the content, JSON as it came."""


class SendingLimit(Protocol):
    """Bounds how much somebody may send."""

    def check(self, name: str, key: str, count: int) -> None:
        """Count KiB that are to be stored; `LimitExceeded` where it is too much."""


class ToDevice:
    """Puts messages into the inboxes of devices."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        clock: Clock,
        store: ToDeviceStore,
        devices: DeviceStore,
        limit: SendingLimit,
        outgoing: OutgoingToDeviceStore | None,
    ) -> None:
        """`outgoing` takes what is for other servers; None where there is no way to them."""
        self._server_name = server_name
        self._database = database
        self._clock = clock
        self._store = store
        self._devices = devices
        self._limit = limit
        self._outgoing = outgoing

    async def send(
        self, requester: Requester, event_type: str, transaction_id: str, contents: Contents
    ) -> None:
        """Send a message to each of some devices; done once, however often it is asked for.

        Users and devices that are not there are passed over. Raises `InvalidParam`, `TooLarge`, `LimitExceeded`.
        """
        _check(event_type, contents)
        here: dict[UserId, Mapping[str, bytes]] = {}
        elsewhere: dict[ServerName, dict[str, Mapping[str, bytes]]] = {}
        for user_id, by_device in contents.items():
            server_name = server_name_of(user_id)
            if server_name == self._server_name:
                here[UserId(user_id)] = by_device
            elif self._outgoing is not None and is_user_id(user_id) and by_device:
                elsewhere.setdefault(server_name, {})[user_id] = by_device
        messages = await self._addressed(self._database, requester.user_id, event_type, here)
        outgoing = [
            (server_name, *message)
            for server_name, of_server in elsewhere.items()
            for message in _direct_messages(requester.user_id, event_type, of_server)
        ]
        if not messages and not outgoing:
            return
        size = sum(map(_kibibytes, messages)) + sum(map(_kibibytes, outgoing))
        if self._outgoing is not None and elsewhere:
            # To look for a server that nobody knows costs more than what it is to get.
            size += _UNKNOWN_SERVER_KIBIBYTES * len(await self._outgoing.load_unknown(elsewhere))
        if size > MAX_KIBIBYTES:
            raise TooLarge(f"This would be more than {MAX_KIBIBYTES} KiB of messages")
        self._limit.check("to_device", requester.user_id, size)
        key = transaction_key(
            requester.user_id, requester.device_id, f"sendToDevice {event_type}", transaction_id
        )
        await self._write(key, messages, outgoing)

    async def receive(
        self, sender: UserId, event_type: str, message_id: str, messages: Mapping[str, Any]
    ) -> None:
        """Take in what a user of another server sent (SS "Send-to-Device messaging"); once for each `message_id`.

        What is malformed or too large is passed over. Durable when this returns.
        """
        contents: dict[str, dict[str, bytes]] = {}
        for user_id, by_device in messages.items():
            if server_name_of(user_id) == self._server_name and isinstance(by_device, dict):
                contents[user_id] = {
                    device_id: orjson.dumps(content)
                    for device_id, content in by_device.items()
                    if isinstance(content, dict)
                }
        try:
            _check(event_type, contents)
        except (InvalidParam, TooLarge):
            return
        here = {UserId(user_id): by_device for user_id, by_device in contents.items()}
        if not here:
            return
        key, now = transaction_key(sender, None, "m.direct_to_device", message_id), self._clock.now_ms()

        async def work(transaction: Transaction) -> None:
            # Inside: of several that are taken in at the same time, the first asks first and is written first.
            addressed = await self._addressed(transaction, sender, event_type, here)
            if addressed and sum(map(_kibibytes, addressed)) <= MAX_KIBIBYTES:
                await self._store.insert(transaction, key, now, addressed)

        await self._database.write(work)

    async def _write(
        self,
        key: int,
        messages: Sequence[tuple[UserId, DeviceId, bytes]],
        outgoing: Sequence[tuple[ServerName, str, bytes]] = (),
    ) -> None:
        now = self._clock.now_ms()

        async def work(transaction: Transaction) -> None:
            if self._outgoing is not None and outgoing:
                # First: what comes after remembers the transaction id.
                await self._outgoing.insert(transaction, key, outgoing)
            await self._store.insert(transaction, key, now, messages)

        await self._database.write(work)

    async def _addressed(
        self,
        reader: Reader,
        sender: UserId,
        event_type: str,
        contents: Mapping[UserId, Mapping[str, bytes]],
    ) -> list[tuple[UserId, DeviceId, bytes]]:
        """The devices that there are among those addressed, each with its message as it will go out.

        "Only one message can be sent to each device per transaction": one to it alone goes before one to all.
        """
        if not contents:
            return []
        head = b'{"type":%b,"sender":%b,"content":' % (orjson.dumps(event_type), orjson.dumps(sender))
        messages = []
        for user_id, device_ids in (await self._devices.load_ids(contents, reader)).items():
            by_device = contents[user_id]
            for device_id in device_ids:
                content = by_device.get(device_id, by_device.get(ALL_DEVICES))
                if content is not None:
                    messages.append((user_id, device_id, b"%b%b}" % (head, content)))
        return messages


def _check(event_type: str, contents: Contents) -> None:
    if len(event_type.encode()) > MAX_ID_BYTES:
        raise InvalidParam(f"The type of a message has at most {MAX_ID_BYTES} bytes")
    for by_device in contents.values():
        for content in by_device.values():
            if len(content) > MAX_CONTENT_BYTES:
                raise TooLarge(f"A message has at most {MAX_CONTENT_BYTES} bytes")


def _direct_messages(
    sender: UserId, event_type: str, contents: Mapping[str, Mapping[str, bytes]]
) -> Iterator[tuple[str, bytes]]:
    """What goes to one server, as contents of `m.direct_to_device` of moderate size, each with its message id."""
    parts: list[dict[str, list[bytes]]] = [{}]
    size = 0
    for user_id, by_device in contents.items():
        for device_id, content in by_device.items():
            if size and size + len(content) > _MAX_DIRECT_BYTES:
                parts.append({})
                size = 0
            size += len(content)
            parts[-1].setdefault(user_id, []).append(b"%b:%b" % (orjson.dumps(device_id), content))
    for part in parts:
        message_id = random_string(_MESSAGE_ID_LENGTH)
        messages = b",".join(
            b"%b:{%b}" % (orjson.dumps(user_id), b",".join(of_user)) for user_id, of_user in part.items()
        )
        yield (
            message_id,
            b'{"sender":%b,"type":%b,"message_id":%b,"messages":{%b}}'
            % (orjson.dumps(sender), orjson.dumps(event_type), orjson.dumps(message_id), messages),
        )


def _kibibytes(message: tuple[str, str, bytes]) -> int:
    return -(-len(message[2]) // _KIBIBYTE)
