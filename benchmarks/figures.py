"""What was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.client import Accounts, Device


@dataclass(frozen=True)
class Figure:
    """A number of a server."""

    name: str
    value: float
    unit: str
    more_is_better: bool = False

    def ratio(self, other: Figure) -> float:
        """How many times better this is than another."""
        return self.value / other.value if self.more_is_better else other.value / self.value

    def __str__(self) -> str:
        digits = 0 if self.value >= 100 else 1 if self.value >= 10 else 2
        return f"{self.value:,.{digits}f} {self.unit}"


@dataclass(frozen=True)
class RoomSize:
    """How large a room of other servers is."""

    members: int = 20_000
    state_events: int = 30_000
    servers: int = 500


@dataclass(frozen=True)
class Absence:
    """What a device comes back to."""

    rooms: int = 2_000
    busy_rooms: int = 300
    messages: int = 20_000


@dataclass(frozen=True)
class Load:
    """How much is done."""

    seconds: float = 5
    """How long a scenario goes on that counts how often something can be done."""
    receivers: int = 100
    rooms: int = 200
    missed: int = 5_000
    missed_rooms: int = 20
    far_receivers: int = 20
    room: RoomSize = RoomSize()
    absence: Absence = Absence()


SMALL = Load(
    seconds=0.2,
    receivers=5,
    rooms=4,
    missed=250,
    missed_rooms=2,
    far_receivers=3,
    room=RoomSize(members=40, state_events=60, servers=4),
    absence=Absence(rooms=30, busy_rooms=22, messages=900),
)
"""Enough to see that everything works, too little to measure anything."""


@dataclass(frozen=True)
class Setting:
    """Who acts in the scenarios."""

    accounts: Accounts
    load: Load
    speakers: list[Device]
