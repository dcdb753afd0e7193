"""Backups of room keys that the server keeps and cannot read (CS "Server-side key backups")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, InvalidParam, MatrixError, NotFound, TooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.key_backups import BackedUpKey, Backup, KeyBackupStore, Place

MAX_BACKUPS = 100
"""Of a user, at the same time."""
MAX_KEYS = 1_000_000
"""In all backups of a user."""
MAX_ALGORITHM_BYTES = 255
MAX_AUTH_DATA_BYTES = 65_536
PAGE = 200
"""So many keys of a download are in memory at the same time."""
_EPOCH_VERSIONS = 1_000_000
_DELETED_AT_ONCE = 5_000
_DELETIONS_IN_A_ROW = 20


class KeyBackups:
    """What users do with their backups."""

    def __init__(self, database: Database, store: KeyBackupStore) -> None:
        self._database = database
        self._store = store

    # -- backups ---------------------------------------------------------------------------------------

    async def create(self, user_id: UserId, algorithm: str, auth_data: bytes) -> int:
        """Make a new, empty backup; the answer is its version, a number that no other of the user ever had."""
        _check_size(algorithm, auth_data)

        async def work(transaction: Transaction) -> int:
            if await self._store.count(transaction, user_id) >= MAX_BACKUPS:
                raise Forbidden("There are too many backups: delete one first")
            last = await self._store.get_last_version(transaction, user_id)
            # A database that was put back does not know which numbers were given out after the copy was made.
            version = max(last, (self._database.epoch - 1) * _EPOCH_VERSIONS) + 1
            await self._store.insert(transaction, user_id, version, algorithm, auth_data)
            return version

        return await self._database.write(work)

    async def get(self, user_id: UserId, version: int | None = None) -> Backup:
        """A backup, or the newest one; `NotFound` where there is none."""
        if version is None:
            newest = await self._store.get_newest(user_id)
            if newest is None:
                raise NotFound("No current backup version")
            return newest
        return _there(await self._store.get(user_id, version))

    async def update(
        self, user_id: UserId, version: int, algorithm: str, auth_data: bytes, said_version: int | None
    ) -> None:
        """Give a backup other `auth_data`.

        `NotFound` where there is none; `InvalidParam` for another algorithm, or where the client said another
        version.
        """
        _check_size(algorithm, auth_data)

        async def work(transaction: Transaction) -> None:
            backup = _there(await self._store.get(user_id, version, transaction))
            if said_version is not None and said_version != version:
                raise InvalidParam("Version does not match")
            if algorithm != backup.algorithm:
                raise InvalidParam("Algorithm does not match")
            await self._store.set_auth_data(transaction, user_id, version, auth_data)

        await self._database.write(work)

    async def delete(self, user_id: UserId, version: int) -> None:
        """Delete a backup with its keys, as if for the first time; `NotFound` for one that never was."""

        async def work(transaction: Transaction) -> None:
            backup = await self._store.get(user_id, version, transaction)
            if backup is not None:
                await self._store.delete(transaction, user_id, backup)
            elif not 0 < version <= await self._store.get_last_version(transaction, user_id):
                raise _unknown()

        await self._database.write(work)
        await self.delete_dropped()

    # -- keys ------------------------------------------------------------------------------------------

    async def put(self, user_id: UserId, version: int, keys: Sequence[BackedUpKey]) -> Backup:
        """Add keys to the newest backup, each unless a key that is at least as good is there.

        The answer is the backup as it is then. Raises `NotFound` where there is no backup at all, and
        `M_WRONG_ROOM_KEYS_VERSION` where this is not the newest.
        """

        async def work(transaction: Transaction) -> Backup:
            backup = await self._store.get_newest(user_id, transaction)
            if backup is None:
                raise _unknown()
            if backup.version != version:
                raise MatrixError(
                    "Wrong backup version",
                    errcode="M_WRONG_ROOM_KEYS_VERSION",
                    status=403,
                    current_version=str(backup.version),
                )
            known = await self._store.load_worth(transaction, backup, [key.place for key in keys])
            better = [key for key in keys if key.place not in known or key.worth < known[key.place]]
            if not better:
                return backup
            new = sum(key.place not in known for key in better)
            if new and await self._store.count_keys(transaction, user_id) + new > MAX_KEYS:
                raise TooLarge(f"The backups of a user hold at most {MAX_KEYS} keys")
            await self._store.put(transaction, user_id, backup, better, new)
            return _there(await self._store.get(user_id, version, transaction))

        return await self._database.write(work)

    async def pages(
        self, user_id: UserId, version: int, room_id: RoomId | None = None
    ) -> AsyncIterator[list[BackedUpKey]]:
        """The keys of a backup, or of a room in it, in order, a page at a time; `NotFound` for no such backup.

        What is written while somebody reads may or may not be seen.
        """
        backup = await self.get(user_id, version)
        return self._read_pages(backup, room_id)

    async def _read_pages(self, backup: Backup, room_id: RoomId | None) -> AsyncIterator[list[BackedUpKey]]:
        after: Place | None = None
        while True:
            page = await self._store.load_keys(backup, room_id, after, PAGE)
            if page:
                yield page
            if len(page) < PAGE:
                return
            after = page[-1].place

    async def get_key(self, user_id: UserId, version: int, place: Place) -> BackedUpKey:
        """The key of one session; `NotFound` where the backup, or the key, is not there."""
        backup = await self.get(user_id, version)
        key = await self._store.get_key(backup, place)
        if key is None:
            raise NotFound("Key not found")
        return key

    async def delete_all(self, user_id: UserId, version: int) -> Backup:
        """Delete all keys of a backup; the answer is the backup as it is then."""
        emptied = await self._delete(
            user_id, version, lambda t, backup: self._store.delete_all(t, user_id, backup)
        )
        await self.delete_dropped()
        return emptied

    async def delete_of_room(self, user_id: UserId, version: int, room_id: RoomId) -> Backup:
        """Delete the keys of a room."""
        return await self._delete(
            user_id, version, lambda t, backup: self._store.delete_of_room(t, user_id, backup, room_id)
        )

    async def delete_key(self, user_id: UserId, version: int, place: Place) -> Backup:
        """Delete the key of one session; there may be none."""
        return await self._delete(
            user_id, version, lambda t, backup: self._store.delete_key(t, user_id, backup, place)
        )

    async def _delete(
        self, user_id: UserId, version: int, deed: Callable[[Transaction, Backup], Awaitable[None]]
    ) -> Backup:
        async def work(transaction: Transaction) -> Backup:
            await deed(transaction, _there(await self._store.get(user_id, version, transaction)))
            return _there(await self._store.get(user_id, version, transaction))

        return await self._database.write(work)

    async def delete_dropped(self) -> None:
        """Delete the keys that nobody can ask for any more, in many small writes, so that others come in between.

        If there are too many for one time, they are for the next.
        """
        for _ in range(_DELETIONS_IN_A_ROW):
            if not await self._store.has_dropped():
                return
            await self._database.write(lambda t: self._store.delete_dropped(t, _DELETED_AT_ONCE))


def _there(backup: Backup | None) -> Backup:
    if backup is None:
        raise _unknown()
    return backup


def _unknown() -> NotFound:
    return NotFound("Unknown backup version")


def _check_size(algorithm: str, auth_data: bytes) -> None:
    if not algorithm or len(algorithm.encode()) > MAX_ALGORITHM_BYTES or "\x00" in algorithm:
        raise InvalidParam(f"`algorithm` is text of 1 to {MAX_ALGORITHM_BYTES} bytes")
    if len(auth_data) > MAX_AUTH_DATA_BYTES:
        raise TooLarge(f"`auth_data` has more than {MAX_AUTH_DATA_BYTES} bytes")
