"""Devices and keys of other servers' users, as their servers told them, and how far these can be relied on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from homeserver.ids import DeviceId, UserId
from homeserver.storage.cross_signing import MASTER, SELF_SIGNING

if TYPE_CHECKING:
    from collections.abc import Collection

    from homeserver.ids import ServerName
    from homeserver.storage.database import Database, Reader, Transaction

_KEPT_UPDATES = 50


@dataclass(frozen=True, slots=True)
class RemoteDevice:
    """The keys of a device, JSON with the signatures of its user, and its name, where that was told."""

    keys: bytes
    display_name: str | None


@dataclass(slots=True)
class RemoteUserKeys:
    """The keys of a user: of devices, and for cross-signing by usage, as JSON with the user's signatures."""

    devices: dict[DeviceId, RemoteDevice] = field(default_factory=dict)
    cross_signing: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class RemoteDeviceList:
    """How things stand with the device list of a user."""

    user_id: UserId
    epoch: int | None
    """The server's epoch when the list was last asked for; None where it never was."""
    in_doubt: bool
    is_shown: bool
    """Whether somebody was answered from the list, and was not told since that it changed."""
    heard_position: int
    heard: dict[int, str]
    """The updates that were heard of last: a hash of each by its `stream_id`."""
    may_be_unshared: bool = False
    """Whether it is not known if a room in common remains."""

    def is_whole(self, epoch: int) -> bool:
        """Whether the list can be relied on."""
        return self.epoch == epoch and not self.in_doubt

    def has_heard(self, stream_id: int, content_hash: str) -> None:
        """Note an update that was heard of."""
        self.heard.pop(stream_id, None)
        self.heard[stream_id] = content_hash
        for oldest in list(self.heard)[:-_KEPT_UPDATES]:
            del self.heard[oldest]


_COLUMNS = "user_id, epoch, in_doubt, is_shown, heard_position, heard, left_position"


def _read(row: tuple) -> RemoteDeviceList:  # type: ignore[type-arg]
    user_id, epoch, in_doubt, is_shown, heard_position, heard, left_position = row
    return RemoteDeviceList(
        UserId(user_id),
        epoch,
        bool(in_doubt),
        bool(is_shown),
        heard_position,
        dict(orjson.loads(heard)),
        left_position is not None,
    )


class RemoteDeviceListStore:
    """Device lists by user."""

    def __init__(self, database: Database, server_name: ServerName) -> None:
        self._database = database
        self._ours = f":{server_name}"

    # -- how far they can be relied on -----------------------------------------------------------------

    async def load(
        self, user_ids: Collection[UserId], reader: Reader | None = None
    ) -> dict[UserId, RemoteDeviceList]:
        """Those of these lists that there are."""
        rows = await (reader or self._database).fetch_all(
            f"SELECT {_COLUMNS} FROM remote_device_lists WHERE user_id = ANY($1::text[])", list(user_ids)
        )
        return {row[0]: _read(row) for row in rows}

    async def set_standing(self, transaction: Transaction, one: RemoteDeviceList) -> None:
        """Store how things stand with a list; the keys stay."""
        await transaction.execute(
            "INSERT INTO remote_device_lists (user_id, epoch, in_doubt, is_shown, heard_position, heard)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id) DO UPDATE SET epoch = excluded.epoch,"
            " in_doubt = excluded.in_doubt, is_shown = excluded.is_shown,"
            " heard_position = excluded.heard_position, heard = excluded.heard",
            one.user_id,
            one.epoch,
            int(one.in_doubt),
            int(one.is_shown),
            one.heard_position,
            orjson.dumps(list(one.heard.items())),
        )

    async def set_shown(self, transaction: Transaction, user_ids: Collection[UserId]) -> None:
        """Somebody was answered from these lists."""
        await transaction.execute(
            "UPDATE remote_device_lists SET is_shown = 1 WHERE user_id = ANY($1::text[])", list(user_ids)
        )

    # -- the keys --------------------------------------------------------------------------------------

    async def load_keys(
        self, user_ids: Collection[UserId], reader: Reader | None = None
    ) -> dict[UserId, RemoteUserKeys]:
        """The keys of those of these users whose list was asked for at some time."""
        reader = reader or self._database
        keys: dict[UserId, RemoteUserKeys] = {}
        for user_id, master, self_signing in await reader.fetch_all(
            "SELECT user_id, master_key, self_signing_key FROM remote_device_lists"
            " WHERE user_id = ANY($1::text[]) AND epoch IS NOT NULL",
            list(user_ids),
        ):
            told = ((MASTER, master), (SELF_SIGNING, self_signing))
            keys[user_id] = RemoteUserKeys(
                cross_signing={usage: bytes(key) for usage, key in told if key is not None}
            )
        for user_id, device_id, device, name in await reader.fetch_all(
            "SELECT user_id, device_id, keys, display_name FROM remote_devices"
            " WHERE user_id = ANY($1::text[]) ORDER BY user_id, device_id",
            list(keys),
        ):
            keys[user_id].devices[DeviceId(device_id)] = RemoteDevice(bytes(device), name)
        return keys

    async def set_keys(self, transaction: Transaction, user_id: UserId, keys: RemoteUserKeys) -> None:
        """Store all keys of a user in the place of others; the row of the list must be there."""
        await transaction.execute(
            "UPDATE remote_device_lists SET master_key = $2, self_signing_key = $3 WHERE user_id = $1",
            user_id,
            keys.cross_signing.get(MASTER),
            keys.cross_signing.get(SELF_SIGNING),
        )
        await transaction.execute("DELETE FROM remote_devices WHERE user_id = $1", user_id)
        await self._insert_devices(transaction, user_id, keys.devices)

    async def set_device(
        self, transaction: Transaction, user_id: UserId, device_id: DeviceId, device: RemoteDevice | None
    ) -> None:
        """Store the keys of one device, or drop them."""
        await transaction.execute(
            "DELETE FROM remote_devices WHERE user_id = $1 AND device_id = $2", user_id, device_id
        )
        if device is not None:
            await self._insert_devices(transaction, user_id, {device_id: device})

    @staticmethod
    async def _insert_devices(
        transaction: Transaction, user_id: UserId, devices: dict[DeviceId, RemoteDevice]
    ) -> None:
        await transaction.execute_many(
            "INSERT INTO remote_devices (user_id, device_id, keys, display_name) VALUES ($1, $2, $3, $4)",
            [(user_id, device_id, device.keys, device.display_name) for device_id, device in devices.items()],
        )

    # -- rooms in common -------------------------------------------------------------------------------

    async def load_in_room_with(
        self, transaction: Transaction, user_id: UserId, others: Collection[UserId]
    ) -> set[UserId]:
        """Those of these users who are in a room with a user."""
        rows = await transaction.fetch_all(
            "SELECT DISTINCT o.user_id FROM memberships m JOIN memberships o ON o.room_nid = m.room_nid"
            " WHERE m.user_id = $1 AND m.membership = 'join'"
            " AND o.user_id = ANY($2::text[]) AND o.membership = 'join'",
            user_id,
            list(others),
        )
        return {UserId(other) for (other,) in rows}

    async def note_left(self, transaction: Transaction, left: Collection[tuple[UserId, int]]) -> None:
        """Users went out of rooms, ours or others: what is kept of whoever may not be heard of any more is in doubt.

        Whether there is another room in common is found out later: until then nothing is relied on.
        """
        if not left:
            return
        position = await transaction.next_position()
        users = [user_id for user_id, _ in left if not user_id.endswith(self._ours)]
        rooms = {room_nid for user_id, room_nid in left if user_id.endswith(self._ours)}
        if users:
            await transaction.execute(
                "UPDATE remote_device_lists SET in_doubt = 1, heard_position = $2, left_position = $2"
                " WHERE user_id = ANY($1::text[])",
                users,
                position,
            )
        for room_nid in rooms:
            if await transaction.fetch_value(
                "SELECT 1 FROM memberships WHERE room_nid = $1 AND membership = 'join' AND user_id LIKE $2 LIMIT 1",
                room_nid,
                f"%{self._ours}",
            ):
                continue
            await transaction.execute(
                "UPDATE remote_device_lists SET in_doubt = 1, heard_position = $2, left_position = $2"
                " WHERE user_id IN (SELECT user_id FROM memberships WHERE room_nid = $1 AND membership = 'join')",
                room_nid,
                position,
            )

    async def load_left(self, limit: int) -> list[tuple[UserId, int]]:
        """Users of whom it is not known whether a room with somebody here remains, and since when."""
        rows = await self._database.fetch_all(
            "SELECT user_id, left_position FROM remote_device_lists WHERE left_position IS NOT NULL"
            " ORDER BY left_position LIMIT $1",
            limit,
        )
        return [(UserId(user_id), position) for user_id, position in rows]

    async def shares_a_room(self, user_id: UserId) -> bool:
        """Whether a user is in a room with somebody of this server."""
        return bool(
            await self._database.fetch_value(
                "SELECT 1 FROM memberships m JOIN memberships l ON l.room_nid = m.room_nid"
                " WHERE m.user_id = $1 AND m.membership = 'join'"
                " AND l.membership = 'join' AND l.user_id LIKE $2 LIMIT 1",
                user_id,
                f"%{self._ours}",
            )
        )

    async def settle_left(
        self, transaction: Transaction, user_id: UserId, position: int, *, shares_a_room: bool
    ) -> None:
        """Note that a user still shares a room, or drop what is known of them; not if they left again since."""
        if shares_a_room:
            await transaction.execute(
                "UPDATE remote_device_lists SET left_position = NULL WHERE user_id = $1 AND left_position = $2",
                user_id,
                position,
            )
        elif await transaction.execute(
            "DELETE FROM remote_device_lists WHERE user_id = $1 AND left_position = $2", user_id, position
        ):
            await transaction.execute("DELETE FROM remote_devices WHERE user_id = $1", user_id)
