"""What is done every now and then: rows that have run out go, what was gathered in memory is written."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from homeserver.storage.errors import DatabaseClosed

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.services.access_tokens import AccessTokens
    from homeserver.services.presence import Presence
    from homeserver.storage.database import Database
    from homeserver.storage.transaction_ids import TransactionIdStore

_OFTEN_SECONDS = 20
_SELDOM_SECONDS = 3_600
_TRANSACTION_IDS_MS = 30 * 24 * 3_600 * 1000

_log = structlog.get_logger(__name__)


class Upkeep:
    """Runs in the background for as long as the server does."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        transaction_ids: TransactionIdStore,
        access_tokens: AccessTokens,
        presence: Presence,
    ) -> None:
        self._database = database
        self._clock = clock
        self._transaction_ids = transaction_ids
        self._access_tokens = access_tokens
        self._presence = presence
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what was gathered, and end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._access_tokens.flush_seen()

    async def _run(self) -> None:
        seldom = self._clock.monotonic()
        while True:
            try:
                await self._presence.sweep()
                await self._access_tokens.flush_seen()
                if self._clock.monotonic() >= seldom:
                    seldom = self._clock.monotonic() + _SELDOM_SECONDS
                    before = self._clock.now_ms() - _TRANSACTION_IDS_MS
                    await self._database.write(lambda t, ts=before: self._transaction_ids.prune(t, ts))  # type: ignore[misc]
            except DatabaseClosed:
                return
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("upkeep_failed")
            await asyncio.sleep(_OFTEN_SECONDS)
