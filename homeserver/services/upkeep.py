"""What is done every now and then: rows that have run out go, what was gathered in memory is written."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import structlog

from homeserver.storage.errors import DatabaseClosed
from homeserver.storage.transaction_ids import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.clock import Clock
    from homeserver.services.access_tokens import AccessTokens
    from homeserver.services.key_backups import KeyBackups
    from homeserver.services.media.housekeeping import MediaHousekeeping
    from homeserver.services.presence import Presence
    from homeserver.services.remote_keys.queries import RemoteKeys
    from homeserver.services.typing import Typing
    from homeserver.storage.access_tokens import AccessTokenStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.server_keys import ServerKeyStore
    from homeserver.storage.to_device import ToDeviceStore
    from homeserver.storage.transaction_ids import TransactionIdStore
    from homeserver.storage.user_interactive import UserInteractiveStore

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
        user_interactive: UserInteractiveStore,
        token_store: AccessTokenStore,
        access_tokens: AccessTokens,
        presence: Presence,
        typing: Typing,
        key_backups: KeyBackups,
        server_keys: ServerKeyStore,
        expiring: Sequence[Expiring],
        remote_keys: RemoteKeys,
        media: MediaHousekeeping,
    ) -> None:
        self._database = database
        self._clock = clock
        self._transaction_ids = transaction_ids
        self._to_device = to_device
        self._user_interactive = user_interactive
        self._token_store = token_store
        self._access_tokens = access_tokens
        self._presence = presence
        self._typing = typing
        self._key_backups = key_backups
        self._server_keys = server_keys
        self._expiring = expiring
        self._remote_keys = remote_keys
        self._media = media
        self._part = 0
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

    async def look_after(self) -> None:
        """Do once what is done every now and then."""
        await self._presence.sweep()
        await self._typing.end_expired()
        await self._access_tokens.flush_seen()
        await self._database.write(self._prune)
        await self._key_backups.delete_dropped()
        await self._remote_keys.forget_unshared()
        await self._media.look_after()

    async def _prune(self, transaction: Transaction) -> None:
        now = self._clock.now_ms()
        await self._user_interactive.delete_expired(transaction, now)
        await self._token_store.delete_expired_logins(transaction, now)
        for store in self._expiring:
            await store.delete_expired(transaction, now)
        await self._transaction_ids.prune(transaction, now - _TRANSACTION_IDS_MS, self._part)
        await self._to_device.prune_transactions(transaction, now - _TRANSACTION_IDS_MS, self._part)
        await self._server_keys.prune(transaction, now - _SERVER_KEYS_MS)
        if self._part == 0:
            await self._server_keys.prune_beyond(transaction, _MAX_SERVER_KEYS, _MAX_SERVER_KEY_DOCUMENTS)
        self._part = (self._part + 1) % PARTS

    async def _run(self) -> None:
        while True:
            try:
                await self.look_after()
            except DatabaseClosed:
                return
            except Exception:  # noqa: BLE001 - it is logged, and tried again
                _log.exception("upkeep_failed")
            await asyncio.sleep(_OFTEN_SECONDS)
