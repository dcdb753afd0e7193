"""What bounds each table, and what prunes it: no table may grow for ever without somebody having decided so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Retention:
    """What a table grows with, and what takes its rows away again."""

    bounded_by: Literal["server", "user", "device", "room", "time"]
    pruned_by: str
