"""Backups of room keys, by user and version. What a client backs up is bytes here.

The keys of a backup are a set with a number of its own. Whatever may drop very many keys at once gives up the set,
which costs nothing, and `delete_dropped` deletes its rows later, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from homeserver.ids import RoomId
from homeserver.storage.accounts import NOT_DEACTIVATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Reader, Transaction

_COLUMNS = "version, algorithm, auth_data, set_nid, etag, key_count"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup. `etag` and `key_count` follow the keys in it."""

    version: int
    algorithm: str
    auth_data: bytes
    set_nid: int
    etag: int
    key_count: int


class Place(NamedTuple):
    """Where a key stands in a backup. A room id has no space in it here."""

    room_id: RoomId
    session_id: str


class Worth(NamedTuple):
    """What is known of a key in a backup, the better key first in order (CS "Server-side key backups").

    "the key that has is_verified set to true", then "the key with a lower first_message_index", then "the key with
    a lower forwarded_count".
    """

    is_unverified: bool
    first_message_index: int
    forwarded_count: int


@dataclass(frozen=True, slots=True)
class BackedUpKey:
    """The key of a session; `session_data` is JSON."""

    place: Place
    worth: Worth
    session_data: bytes


class KeyBackupStore:
    """Backups and the keys in them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- backups ---------------------------------------------------------------------------------------

    async def get_newest(self, user_id: UserId, reader: Reader | None = None) -> Backup | None:
        """The newest backup of a user that is not deleted."""
        row = await (reader or self._database).fetch_one(
            f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = $1 AND is_deleted = 0"
            " ORDER BY version DESC LIMIT 1",
            user_id,
        )
        return Backup(*row) if row else None

    async def get(self, user_id: UserId, version: int, reader: Reader | None = None) -> Backup | None:
        """A backup that is not deleted."""
        row = await (reader or self._database).fetch_one(
            f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = $1 AND version = $2 AND is_deleted = 0",
            user_id,
            version,
        )
        return Backup(*row) if row else None

    async def get_last_version(self, transaction: Transaction, user_id: UserId) -> int:
        """The highest number that a backup of the user has or had; 0 where there was none."""
        last = await transaction.fetch_value(
            "SELECT max(version) FROM key_backups WHERE user_id = $1", user_id
        )
        return last or 0

    async def count(self, transaction: Transaction, user_id: UserId) -> int:
        """How many backups a user has."""
        counted: int | None = await transaction.fetch_value(
            "SELECT count(*) FROM key_backups WHERE user_id = $1 AND is_deleted = 0", user_id
        )
        return counted or 0

    async def count_keys(self, transaction: Transaction, user_id: UserId) -> int:
        """How many keys are in all backups of a user."""
        counts = await transaction.fetch_all("SELECT key_count FROM key_backups WHERE user_id = $1", user_id)
        return sum(count for (count,) in counts)

    async def insert(
        self, transaction: Transaction, user_id: UserId, version: int, algorithm: str, auth_data: bytes
    ) -> None:
        """Store a new, empty backup; its version is the highest so far."""
        await transaction.execute(
            f"INSERT INTO key_backups (user_id, {_COLUMNS})"
            " SELECT $1::text, $2::bigint, $3::text, $4::bytea, $5::bigint, 0, 0"
            f" WHERE {NOT_DEACTIVATED}",
            user_id,
            version,
            algorithm,
            auth_data,
            await transaction.next_position(),
        )
        # Its number bears witness from now on.
        await transaction.execute("DELETE FROM key_backups WHERE user_id = $1 AND is_deleted = 1", user_id)

    async def set_auth_data(
        self, transaction: Transaction, user_id: UserId, version: int, auth_data: bytes
    ) -> None:
        """Give a backup other `auth_data`."""
        await transaction.execute(
            "UPDATE key_backups SET auth_data = $3 WHERE user_id = $1 AND version = $2",
            user_id,
            version,
            auth_data,
        )

    async def delete(self, transaction: Transaction, user_id: UserId, backup: Backup) -> None:
        """Delete a backup with its keys."""
        await self._drop_set(transaction, backup.set_nid)
        if backup.version == await self.get_last_version(transaction, user_id):
            await transaction.execute(
                "UPDATE key_backups SET is_deleted = 1, auth_data = $3, key_count = 0"
                " WHERE user_id = $1 AND version = $2",
                user_id,
                backup.version,
                b"",
            )
        else:
            await transaction.execute(
                "DELETE FROM key_backups WHERE user_id = $1 AND version = $2", user_id, backup.version
            )

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop all backups of a user."""
        await transaction.execute(
            "INSERT INTO dropped_key_sets (set_nid)"
            " SELECT set_nid FROM key_backups WHERE user_id = $1 AND is_deleted = 0",
            user_id,
        )
        await transaction.execute("DELETE FROM key_backups WHERE user_id = $1", user_id)

    # -- keys ------------------------------------------------------------------------------------------

    async def load_worth(
        self, transaction: Transaction, backup: Backup, places: Sequence[Place]
    ) -> dict[Place, Worth]:
        """What is known of those of these keys that are in a backup."""
        rows = await transaction.fetch_all(
            "SELECT place, is_verified, first_message_index, forwarded_count FROM backed_up_keys"
            " WHERE set_nid = $1 AND place = ANY($2::text[])",
            backup.set_nid,
            [_text(place) for place in places],
        )
        return {_place(text): Worth(not verified, index, count) for text, verified, index, count in rows}

    async def put(
        self, transaction: Transaction, user_id: UserId, backup: Backup, keys: Sequence[BackedUpKey], new: int
    ) -> None:
        """Store keys, in place of those that stand there; `new` of them stand where there was none."""
        await transaction.execute_many(
            "INSERT INTO backed_up_keys"
            " (set_nid, place, is_verified, first_message_index, forwarded_count, session_data)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (set_nid, place) DO UPDATE SET"
            " is_verified = excluded.is_verified, first_message_index = excluded.first_message_index,"
            " forwarded_count = excluded.forwarded_count, session_data = excluded.session_data",
            [
                (
                    backup.set_nid,
                    _text(key.place),
                    int(not key.worth.is_unverified),
                    key.worth.first_message_index,
                    key.worth.forwarded_count,
                    key.session_data,
                )
                for key in keys
            ],
        )
        await self._changed(transaction, user_id, backup, backup.key_count + new)

    async def load_keys(
        self, backup: Backup, room_id: RoomId | None, after: Place | None, limit: int
    ) -> list[BackedUpKey]:
        """The next keys of a backup, or of a room in it, in order."""
        first, end = _range(room_id)
        rows = await self._database.fetch_all(
            "SELECT place, is_verified, first_message_index, forwarded_count, session_data"
            " FROM backed_up_keys WHERE set_nid = $1 AND place > $2 AND place < $3 ORDER BY place LIMIT $4",
            backup.set_nid,
            first if after is None else _text(after),
            end,
            limit,
        )
        return [
            BackedUpKey(_place(text), Worth(not verified, index, count), bytes(data))
            for text, verified, index, count, data in rows
        ]

    async def get_key(self, backup: Backup, place: Place) -> BackedUpKey | None:
        """The key of one session."""
        row = await self._database.fetch_one(
            "SELECT is_verified, first_message_index, forwarded_count, session_data FROM backed_up_keys"
            " WHERE set_nid = $1 AND place = $2",
            backup.set_nid,
            _text(place),
        )
        if row is None:
            return None
        verified, index, count, data = row
        return BackedUpKey(place, Worth(not verified, index, count), bytes(data))

    async def delete_all(self, transaction: Transaction, user_id: UserId, backup: Backup) -> None:
        """Empty a backup."""
        if backup.key_count == 0:
            return
        await self._drop_set(transaction, backup.set_nid)
        await transaction.execute(
            "UPDATE key_backups SET set_nid = $3 WHERE user_id = $1 AND version = $2",
            user_id,
            backup.version,
            await transaction.next_position(),
        )
        await self._changed(transaction, user_id, backup, 0)

    async def delete_of_room(
        self, transaction: Transaction, user_id: UserId, backup: Backup, room_id: RoomId
    ) -> None:
        """Delete the keys of a room."""
        deleted = await transaction.execute(
            "DELETE FROM backed_up_keys WHERE set_nid = $1 AND place > $2 AND place < $3",
            backup.set_nid,
            *_range(room_id),
        )
        if deleted:
            await self._changed(transaction, user_id, backup, backup.key_count - deleted)

    async def delete_key(
        self, transaction: Transaction, user_id: UserId, backup: Backup, place: Place
    ) -> None:
        """Delete the key of one session."""
        if await transaction.execute(
            "DELETE FROM backed_up_keys WHERE set_nid = $1 AND place = $2", backup.set_nid, _text(place)
        ):
            await self._changed(transaction, user_id, backup, backup.key_count - 1)

    async def _changed(
        self, transaction: Transaction, user_id: UserId, backup: Backup, key_count: int
    ) -> None:
        await transaction.execute(
            "UPDATE key_backups SET etag = $3, key_count = $4 WHERE user_id = $1 AND version = $2",
            user_id,
            backup.version,
            backup.etag + 1,
            key_count,
        )

    # -- what was dropped ------------------------------------------------------------------------------

    async def _drop_set(self, transaction: Transaction, set_nid: int) -> None:
        await transaction.execute("INSERT INTO dropped_key_sets (set_nid) VALUES ($1)", set_nid)

    async def has_dropped(self) -> bool:
        """Whether there are keys to be deleted by `delete_dropped`."""
        return await self._database.fetch_value("SELECT 1 FROM dropped_key_sets LIMIT 1") is not None

    async def delete_dropped(self, transaction: Transaction, limit: int) -> None:
        """Delete so many of the keys that nobody can ask for any more."""
        set_nid = await transaction.fetch_value("SELECT min(set_nid) FROM dropped_key_sets")
        if set_nid is None:
            return
        deleted = await transaction.execute(
            "DELETE FROM backed_up_keys WHERE set_nid = $1 AND place IN"
            " (SELECT place FROM backed_up_keys WHERE set_nid = $1 ORDER BY place LIMIT $2)",
            set_nid,
            limit,
        )
        if deleted < limit:
            await transaction.execute("DELETE FROM dropped_key_sets WHERE set_nid = $1", set_nid)


def _text(place: Place) -> str:
    return f"{place.room_id} {place.session_id}"


def _place(text: str) -> Place:
    room_id, _, session_id = text.partition(" ")
    return Place(RoomId(room_id), session_id)


def _range(room_id: RoomId | None) -> tuple[str, str]:
    """What all places of a room, or of any room, lie between."""
    # The character after the space, and the one after that with which every room id begins.
    return ("!", '"') if room_id is None else (f"{room_id} ", f"{room_id}!")
