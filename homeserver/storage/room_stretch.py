"""A part of what stands in a room, by positions of the log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoomStretch:
    """What stands in a room after a position and up to another."""

    room_nid: int
    after: int
    upto: int

    def holds(self, position: int) -> bool:
        """Whether a position is within it."""
        return self.after < position <= self.upto
