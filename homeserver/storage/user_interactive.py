"""Sessions of user-interactive authentication.

The body of a request may hold a password, so it is sealed under the session's id, of which only a hash is stored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from crypto.sealing import seal, unseal

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class UserInteractiveSession:
    """A session: what it is for, the request that began it, what was proved so far."""

    session_id: str
    purpose: bytes
    body: bytes
    completed: dict[str, Any]
    expires_ts: int


class UserInteractiveStore:
    """Sessions by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop the sessions that have run out."""
        await transaction.execute("DELETE FROM user_interactive_sessions WHERE expires_ts <= $1", now_ms)

    async def insert(self, transaction: Transaction, session: UserInteractiveSession) -> None:
        """Store a new session."""
        await transaction.execute(
            "INSERT INTO user_interactive_sessions (session_id, purpose, body, completed, expires_ts)"
            " VALUES ($1, $2, $3, $4, $5)",
            _key(session.session_id),
            session.purpose,
            seal(session.body, session.session_id),
            orjson.dumps(session.completed).decode(),
            session.expires_ts,
        )

    async def get(self, session_id: str, now_ms: int) -> UserInteractiveSession | None:
        """A session that has not run out."""
        row = await self._database.fetch_one(
            "SELECT purpose, body, completed, expires_ts FROM user_interactive_sessions"
            " WHERE session_id = $1 AND expires_ts > $2",
            _key(session_id),
            now_ms,
        )
        if row is None:
            return None
        purpose, body, completed, expires_ts = row
        return UserInteractiveSession(
            session_id, bytes(purpose), unseal(bytes(body), session_id), orjson.loads(completed), expires_ts
        )

    async def set_body(self, transaction: Transaction, session: UserInteractiveSession) -> None:
        """Put another body in the place of that of the first request."""
        await transaction.execute(
            "UPDATE user_interactive_sessions SET body = $2 WHERE session_id = $1",
            _key(session.session_id),
            seal(session.body, session.session_id),
        )

    async def add_completed(
        self, transaction: Transaction, session_id: str, proved: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Note what stages proved; the answer is what all of them did, None where the session has ended."""
        text = await transaction.fetch_value(
            "SELECT completed FROM user_interactive_sessions WHERE session_id = $1", _key(session_id)
        )
        if text is None:
            return None
        completed: dict[str, Any] = {**orjson.loads(text), **proved}
        await transaction.execute(
            "UPDATE user_interactive_sessions SET completed = $2 WHERE session_id = $1",
            _key(session_id),
            orjson.dumps(completed).decode(),
        )
        return completed

    async def delete(self, transaction: Transaction, session_id: str) -> bool:
        """End a session; False where there is none."""
        return bool(
            await transaction.execute(
                "DELETE FROM user_interactive_sessions WHERE session_id = $1", _key(session_id)
            )
        )


def _key(session_id: str) -> str:
    return hashlib.blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
