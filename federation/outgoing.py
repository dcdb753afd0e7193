"""What waits for another server, and how much of it goes into one transaction (SS "Transactions"). Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from crypto import base64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from federation.answers import Json, Pdu

MAX_PDUS = 50
"""Of the specification, as the next one."""
MAX_EDUS = 100
MAX_BYTES = 1_000_000
"""Below the MiB that is the most a proxy lets through which nobody told otherwise."""

_HOUR = 3_600.0
_DAY = 24 * _HOUR
_FIRST_SECONDS = 2.0
_GROWTH = 4.0


@dataclass(frozen=True, slots=True)
class Item:
    """What is delivered whole or not at all: an event, EDUs, or an event with EDUs that follow from it."""

    position: int
    """Its place in the order of what waits; no two items of a destination have the same."""
    name: str
    """The id of the event, or what else to call it in the log; never anything of its content."""
    pdu: Pdu | None
    edus: Sequence[Json]
    size: int
    """About how many bytes it takes."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The oldest of what waits for a destination, in order."""

    items: Sequence[Item]
    upto: int
    """Nothing but these items waits up to this position."""
    passing: Sequence[Json] = ()
    """EDUs that tell of this moment: once loaded they are tried once, and lost where that fails."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand with a destination."""

    failures: int = 0
    """How often it failed since it last answered well."""
    retry_seconds: float = 0.0
    """For how long it is not to be tried."""
    recently_alive: bool = False
    """Whether it was heard of within a month."""


def how_many_fit(items: Sequence[Item], at_most: int) -> int:
    """How many items, from the first on, one transaction takes: at least one where there is one."""
    pdus = edus = size = 0
    for number, item in enumerate(items[:at_most]):
        pdus += item.pdu is not None
        edus += len(item.edus)
        size += item.size
        if number and (pdus > MAX_PDUS or edus > MAX_EDUS or size > MAX_BYTES):
            return number
    return min(len(items), at_most)


def passing_that_fit(passing: Sequence[Json], items: Sequence[Item]) -> Sequence[Json]:
    """Those of the passing EDUs for which a transaction with these items has room."""
    room = MAX_EDUS - sum(len(item.edus) for item in items)
    left = MAX_BYTES - sum(item.size for item in items)
    fitting = []
    for edu in passing[: max(0, room)]:
        left -= len(orjson.dumps(edu))
        if left < 0:
            break
        fitting.append(edu)
    return fitting


def transaction_id_of(items: Sequence[Item], passing: Sequence[Json], now_ms: int) -> str:
    """The id of a transaction: the same for the same items, also after a restart, and never for others.

    One that tells of a moment is of that moment only: what was said a minute ago may be said again.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.position} {item.size} {item.name}\n".encode())
    if passing or not items:
        digest.update(orjson.dumps([now_ms, passing]))
    return base64.encode_unpadded_urlsafe(digest.digest())


def back_off_seconds(failures: int, chance: Callable[[], float], *, recently_alive: bool) -> float:
    """How long to wait after so many failures in a row; `chance` gives numbers from 0 to 1.

    At most an hour for a server that was alive within a month, a day for any other.
    """
    most = _HOUR if recently_alive else _DAY
    grown: float = _FIRST_SECONDS * _GROWTH ** min(failures - 1, 20)
    return min(most, grown) * (0.75 + 0.25 * chance())
