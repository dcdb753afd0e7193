"""What storage raises; `homeserver.errors.Conflict` besides, where somebody else wrote first."""

from __future__ import annotations

from homeserver.errors import StartupError


class DatabaseRefused(StartupError):
    """The database cannot be used; the text says why and what to do, in one sentence."""


class DatabaseLocked(DatabaseRefused):
    """Another process uses this database, which is for one process only."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached now. What was being written may or may not have been committed."""


class DatabaseClosed(DatabaseUnavailable):
    """This process has closed the database."""

    def __init__(self) -> None:
        super().__init__("the database is closed")
