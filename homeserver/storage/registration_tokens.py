"""Registration tokens: what lets somebody make an account where not everybody may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class RegistrationToken:
    """A registration token; `uses_allowed` and `expires_ts` are None where there is no bound."""

    token: str
    uses_allowed: int | None
    completed: int
    expires_ts: int | None
    created_ts: int

    def is_good(self, now_ms: int) -> bool:
        """Whether it can be used (once more)."""
        return (self.uses_allowed is None or self.completed < self.uses_allowed) and (
            self.expires_ts is None or now_ms < self.expires_ts
        )


_COLUMNS = "token, uses_allowed, completed, expires_ts, created_ts"


class RegistrationTokenStore:
    """Registration tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, token: RegistrationToken) -> bool:
        """Store a token; False where there is one of that name."""
        return bool(
            await transaction.execute(
                f"INSERT INTO registration_tokens ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                token.token,
                token.uses_allowed,
                token.completed,
                token.expires_ts,
                token.created_ts,
            )
        )

    async def get(self, token: str) -> RegistrationToken | None:
        """A token."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS} FROM registration_tokens WHERE token = $1", token
        )
        return RegistrationToken(*row) if row else None

    async def load_all(self) -> list[RegistrationToken]:
        """All tokens, oldest first."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM registration_tokens ORDER BY created_ts, token"
        )
        return [RegistrationToken(*row) for row in rows]

    async def use(self, transaction: Transaction, token: str, now_ms: int) -> bool:
        """Use a token once; False where it is not, or no longer, good."""
        return bool(
            await transaction.execute(
                "UPDATE registration_tokens SET completed = completed + 1 WHERE token = $1"
                " AND (uses_allowed IS NULL OR completed < uses_allowed)"
                " AND (expires_ts IS NULL OR expires_ts > $2)",
                token,
                now_ms,
            )
        )

    async def delete(self, transaction: Transaction, token: str) -> bool:
        """Drop a token; False where there is none."""
        return bool(await transaction.execute("DELETE FROM registration_tokens WHERE token = $1", token))
