"""Durable jobs that are under way: what the operator is told of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import RoomId, ServerName, UserId


class Phase(StrEnum):
    """What a job does at the moment."""

    WAITING = "waiting"
    """Nobody works on it in this process."""
    ASKING = "asking"
    """Another server is asked for the beginning."""
    RECEIVING = "receiving"
    CHECKING = "checking"
    WRITING = "writing"


@dataclass(slots=True)
class Progress:
    """How far a job is; whoever works on it says so here."""

    phase: Phase = Phase.WAITING
    received: int = 0
    """Events that came; from the checking on all that there are, each counted once."""
    checked: int = 0
    written: int = 0
    tried: list[ServerName] = field(default_factory=list)
    """The servers that were asked, the one that is being asked last."""
    last_error: str | None = None

    def begin(self, server: ServerName) -> None:
        """Begin anew with another server."""
        self.phase = Phase.ASKING
        self.received = self.checked = self.written = 0
        self.tried.append(server)

    def count_checked(self, events: int) -> None:
        """So many more events were checked."""
        self.checked += events


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is not at its end."""

    kind: str
    user_id: UserId
    room_id: RoomId
    created_ts: int
    progress: Progress


class JobSource(Protocol):
    """Who does jobs of a kind."""

    async def load_jobs(self) -> Sequence[Job]:
        """All that are not at their end, oldest first, those of other processes included."""
        ...
