"""No table grows without somebody having said what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.migrations import RETENTION
from homeserver.storage.postgres import PostgresDatabase

if TYPE_CHECKING:
    from homeserver.storage.database import Database

ONLY_ON_POSTGRESQL = {"announcements"}


async def test_every_table_has_a_retention_and_every_retention_a_table(database: Database) -> None:
    absent = set() if isinstance(database, PostgresDatabase) else ONLY_ON_POSTGRESQL
    assert await database.table_names() == RETENTION.keys() - absent


def test_every_retention_says_what_prunes_the_table() -> None:
    assert all(retention.pruned_by for retention in RETENTION.values())
