"""When to take note of how far the cursor of another server has come (`homeserver.storage.handovers`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.handovers import Handover

if TYPE_CHECKING:
    from homeserver.ids import ServerName
    from homeserver.storage.database import Transaction
    from homeserver.storage.handovers import HandoverStore

_APART_MS = 1_000
"""Handovers that are closer together than this are one."""
_UNTIL_THINNED = 64


@dataclass(slots=True)
class HandoverMarks:
    """The marks of one destination that this process has made."""

    position: int | None = None
    """Where the last one stands."""
    since_ts: int = 0
    """When the first handover was that the last one stands for."""
    untended: int = _UNTIL_THINNED
    """How many there may be since they were thinned out: at first nobody knows."""

    async def note(
        self, transaction: Transaction, store: HandoverStore, server_name: ServerName, upto: int, now_ms: int
    ) -> None:
        """The destination has the events up to a position. What is written has no effect here before `noted`."""
        await store.note(
            transaction,
            server_name,
            Handover(upto, now_ms),
            instead_of=self.position if self._is_soon(now_ms) else None,
        )
        if self.untended >= _UNTIL_THINNED:
            await store.thin(transaction, server_name, now_ms)

    def noted(self, upto: int, now_ms: int) -> None:
        """The same, once that is committed."""
        if self.untended >= _UNTIL_THINNED:
            self.untended = 0
        if not self._is_soon(now_ms):
            self.since_ts = now_ms
            self.untended += 1
        self.position = upto

    def _is_soon(self, now_ms: int) -> bool:
        return self.position is not None and 0 <= now_ms - self.since_ts < _APART_MS
