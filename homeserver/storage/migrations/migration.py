"""One step of the schema."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """Statements that run in one transaction: on both engines, then those for one of them."""

    number: int
    description: str
    statements: tuple[str, ...]
    postgres_only: tuple[str, ...] = ()
    sqlite_only: tuple[str, ...] = ()
