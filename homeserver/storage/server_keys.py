"""Signing keys of other servers: what `federation.keyring` keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from federation.server_keys import KeyDocument, ServerKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.storage.database import Database, Transaction


class ServerKeyStore:
    """Keys by server and id, and the last document that each server gave."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_keys(self, server_names: Collection[str]) -> list[ServerKey]:
        """All known keys of some servers."""
        rows = await self._database.fetch_all(
            "SELECT server_name, key_id, public_key, valid_until_ts, is_retired, is_direct FROM server_keys"
            " WHERE server_name = ANY($1::text[])",
            list(server_names),
        )
        return [
            ServerKey(name, key_id, public, until, retired=bool(retired), direct=bool(direct))
            for name, key_id, public, until, retired, direct in rows
        ]

    async def load_documents(self, server_names: Collection[str]) -> list[KeyDocument]:
        """The last document that each of some servers gave itself, without its keys taken out."""
        rows = await self._database.fetch_all(
            "SELECT server_name, content, valid_until_ts, fetched_ts FROM server_key_documents"
            " WHERE server_name = ANY($1::text[])",
            list(server_names),
        )
        return [
            KeyDocument(name, orjson.loads(content), (), until, fetched, direct=True)
            for name, content, until, fetched in rows
        ]

    async def save(self, keys: Sequence[ServerKey], document: KeyDocument | None, fetched_ts: int) -> None:
        """Keep keys, in place of those with the same server and id, and the document, in place of the last."""

        async def work(transaction: Transaction) -> None:
            await transaction.execute_many(
                "INSERT INTO server_keys"
                " (server_name, key_id, public_key, valid_until_ts, is_retired, is_direct, fetched_ts)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (server_name, key_id) DO UPDATE SET"
                " public_key = excluded.public_key, valid_until_ts = excluded.valid_until_ts,"
                " is_retired = excluded.is_retired, is_direct = excluded.is_direct, fetched_ts = excluded.fetched_ts",
                [
                    (
                        key.server_name,
                        key.key_id,
                        key.public_base64,
                        key.valid_until_ts,
                        int(key.retired),
                        int(key.direct),
                        fetched_ts,
                    )
                    for key in keys
                ],
            )
            if document is not None:
                await transaction.execute(
                    "INSERT INTO server_key_documents (server_name, content, valid_until_ts, fetched_ts)"
                    " VALUES ($1, $2, $3, $4) ON CONFLICT (server_name) DO UPDATE SET"
                    " content = excluded.content, valid_until_ts = excluded.valid_until_ts,"
                    " fetched_ts = excluded.fetched_ts",
                    document.server_name,
                    orjson.dumps(document.content),
                    document.valid_until_ts,
                    fetched_ts,
                )

        await self._database.write(work)

    async def prune(self, transaction: Transaction, fetched_before_ts: int) -> None:
        """Drop what was not fetched for long."""
        await transaction.execute("DELETE FROM server_keys WHERE fetched_ts < $1", fetched_before_ts)
        await transaction.execute("DELETE FROM server_key_documents WHERE fetched_ts < $1", fetched_before_ts)

    async def prune_beyond(self, transaction: Transaction, most_keys: int, most_documents: int) -> None:
        """Keep so many keys and documents at most, those that were fetched last: anybody can have names and keys."""
        for table, most in (("server_keys", most_keys), ("server_key_documents", most_documents)):
            await transaction.execute(
                f"DELETE FROM {table} WHERE fetched_ts <="
                f" (SELECT fetched_ts FROM {table} ORDER BY fetched_ts DESC LIMIT 1 OFFSET $1)",
                most,
            )
