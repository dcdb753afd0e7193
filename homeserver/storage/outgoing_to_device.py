"""Messages to devices of other servers' users, each until the server has taken it (SS "Send-to-device messaging")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """The content of an `m.direct_to_device`, as JSON, with its place in the log."""

    stream_id: int
    message_id: str
    content: bytes


class OutgoingToDeviceStore:
    """Messages by destination."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        transaction: Transaction,
        transaction_key: int,
        messages: Sequence[tuple[ServerName, str, bytes]],
    ) -> None:
        """Keep messages for destinations, (server, message id, content), unless the transaction id was seen before."""
        rows = []
        for server_name, message_id, content in messages:
            rows.append(
                (server_name, await transaction.next_position(), message_id, content, transaction_key)
            )
            transaction.announce(Topic.DESTINATIONS, server_name)
        await transaction.execute_many(
            "INSERT INTO outgoing_to_device (server_name, stream_id, message_id, content)"
            " SELECT $1::text, $2::bigint, $3::text, $4::bytea"
            " WHERE NOT EXISTS (SELECT 1 FROM to_device_transactions WHERE transaction_key = $5)",
            rows,
        )
        await transaction.execute_many(
            "INSERT INTO destinations (server_name, position) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            [(row[0], row[1] - 1) for row in rows],
        )

    async def load_unknown(self, server_names: Collection[ServerName]) -> set[ServerName]:
        """Those of these servers to which nothing was ever sent."""
        rows = await self._database.fetch_all(
            "SELECT server_name FROM destinations WHERE server_name = ANY($1::text[])", list(server_names)
        )
        return set(server_names) - {ServerName(server_name) for (server_name,) in rows}

    async def load(self, server_name: ServerName, *, upto: int, limit: int) -> list[OutgoingMessage]:
        """The oldest messages of a destination."""
        rows = await self._database.fetch_all(
            "SELECT stream_id, message_id, content FROM outgoing_to_device"
            " WHERE server_name = $1 AND stream_id <= $2 ORDER BY stream_id LIMIT $3",
            server_name,
            upto,
            limit,
        )
        return [
            OutgoingMessage(stream_id, message_id, bytes(content)) for stream_id, message_id, content in rows
        ]

    async def delete_upto(self, transaction: Transaction, server_name: ServerName, upto: int) -> None:
        """Drop what a destination has taken."""
        await transaction.execute_many(
            "DELETE FROM outgoing_to_device WHERE server_name = $1 AND stream_id <= $2", [(server_name, upto)]
        )
