"""When the devices of users changed: what those who share a room with them have to hear of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.announcements import Topic
from homeserver.storage.outgoing_devices import OutgoingDeviceStore
from homeserver.storage.shared_rooms import joined_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from homeserver.ids import DeviceId
    from homeserver.storage.database import Database, Transaction

KEPT_CHANGES = 30


class DeviceListStore:
    """Changes of device lists by user.

    A row stands for one change, or for all changes between two positions: of each user the newest are kept apart,
    and the oldest row takes in whatever is older. So whoever asks for an interval of long ago may be told of a
    change that came before or after it, but never misses one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._outgoing = OutgoingDeviceStore(database)

    async def note_change(
        self, transaction: Transaction, user_id: UserId, devices: Collection[DeviceId] = ()
    ) -> None:
        """Devices of a user, their names or keys, or the cross-signing keys of the user have changed.

        `devices` are those of which other servers are to be told, `CROSS_SIGNING_KEYS` for these keys; none where only
        a name has changed, or the user is of another server.
        """
        # "An ID sent by the server for this update, unique for a given user_id."
        positions = [(device_id, await transaction.next_position()) for device_id in devices]
        position = positions[-1][1] if positions else await transaction.next_position()
        if positions:
            await self._outgoing.note(transaction, user_id, positions)
        await transaction.execute_many(
            "INSERT INTO device_list_changes (user_id, first_stream_id, stream_id) VALUES ($1, $2, $2)",
            [(user_id, position)],
        )
        transaction.announce(Topic.DEVICE_LISTS, user_id)
        thinned = await transaction.fetch_all(
            "DELETE FROM device_list_changes WHERE user_id = $1 AND stream_id < ("
            "SELECT stream_id FROM device_list_changes WHERE user_id = $1 ORDER BY stream_id DESC"
            " LIMIT 1 OFFSET $2) RETURNING first_stream_id",
            user_id,
            KEPT_CHANGES - 1,
        )
        if thinned:
            await transaction.execute(
                "UPDATE device_list_changes SET first_stream_id = $2 WHERE user_id = $1 AND stream_id = ("
                "SELECT min(stream_id) FROM device_list_changes WHERE user_id = $1)",
                user_id,
                min(first for (first,) in thinned),
            )

    async def last_change(self, user_id: UserId) -> int:
        """The position of the last change of a user; 0 where there was none."""
        last = await self._database.fetch_value(
            "SELECT max(stream_id) FROM device_list_changes WHERE user_id = $1", user_id
        )
        return last or 0

    async def load_changed(self, user_ids: Iterable[UserId], *, after: int, upto: int) -> set[UserId]:
        """Those of these users who have changes with `after < position <= upto`."""
        rows = await self._database.fetch_all(
            "SELECT DISTINCT user_id FROM device_list_changes"
            " WHERE user_id = ANY($1::text[]) AND stream_id > $2 AND first_stream_id <= $3",
            list(user_ids),
            after,
            upto,
        )
        return {UserId(user_id) for (user_id,) in rows}

    async def load_changed_members(self, room_nids: Iterable[int], *, after: int, upto: int) -> set[UserId]:
        """Those who were in one of these rooms at `upto` and have changes with `after < position <= upto`."""
        rows = await self._database.fetch_all(
            "SELECT DISTINCT m.user_id FROM memberships m WHERE m.room_nid = ANY($1::bigint[])"
            " AND EXISTS (SELECT 1 FROM device_list_changes c"
            " WHERE c.user_id = m.user_id AND c.stream_id > $2 AND c.first_stream_id <= $3)"
            f" AND {joined_at('$3')}",
            list(room_nids),
            after,
            upto,
        )
        return {UserId(user_id) for (user_id,) in rows}
