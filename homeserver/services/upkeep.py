"""What is done every now and then: rows that have run out go, what was gathered in memory is written."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import structlog

from homeserver.storage.errors import DatabaseClosed
from homeserver.storage.transaction_ids import PARTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from homeserver.clock import Clock
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.server_keys import ServerKeyStore
    from homeserver.storage.to_device import ToDeviceStore
    from homeserver.storage.transaction_ids import TransactionIdStore

    Chore = Callable[[], Awaitable[None]]

_OFTEN_SECONDS = 20
_DAY_MS = 24 * 3_600 * 1000
_TRANSACTION_IDS_MS = 30 * _DAY_MS
_SERVER_KEYS_MS = 365 * _DAY_MS
# There are some ten thousand servers; the rest is what somebody made up to fill the disk.
_MAX_SERVER_KEYS = 400_000
_MAX_SERVER_KEY_DOCUMENTS = 100_000

_log = structlog.get_logger(__name__)


class Expiring(Protocol):
    """A store whose rows run out."""

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop what has run out."""
        ...


class Upkeep:
    """Runs in the background for as long as the server does."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transaction_ids: TransactionIdStore,
        to_device: ToDeviceStore,
        server_keys: ServerKeyStore,
        expiring: Sequence[Expiring],
        chores: Mapping[str, Chore],
    ) -> None:
        """`chores` are done one after the other, the others also where one fails; the log names it."""
        self._database = database
        self._clock = clock
        self._transaction_ids = transaction_ids
        self._to_device = to_device
        self._server_keys = server_keys
        self._expiring = expiring
        self._chores = {"rows that have run out": self._prune_all, **chores}
        self._part = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look_after(self) -> None:
        """Do once what is done every now and then."""
        for name, chore in self._chores.items():
            try:
                await chore()
            except DatabaseClosed:
                raise
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("upkeep_failed", chore=name)

    async def _prune_all(self) -> None:
        await self._database.write(self._prune)

    async def _prune(self, transaction: Transaction) -> None:
        now = self._clock.now_ms()
        for store in self._expiring:
            await store.delete_expired(transaction, now)
        await self._transaction_ids.prune(transaction, now - _TRANSACTION_IDS_MS, self._part)
        await self._to_device.prune_transactions(transaction, now - _TRANSACTION_IDS_MS, self._part)
        await self._server_keys.prune(transaction, now - _SERVER_KEYS_MS)
        if self._part == 0:
            await self._server_keys.prune_beyond(transaction, _MAX_SERVER_KEYS, _MAX_SERVER_KEY_DOCUMENTS)
        self._part = (self._part + 1) % PARTS

    async def _run(self) -> None:
        with contextlib.suppress(DatabaseClosed):
            while True:
                await self.look_after()
                await asyncio.sleep(_OFTEN_SECONDS)
