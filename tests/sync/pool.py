"""What a device has of the timelines of rooms by all of its ways together: stretches that grow into each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from tests.sync.model_client import HeldRoom


class Pool:
    """Each way gives what it has, without gaps; what one brought may close the gap of another."""

    def __init__(self) -> None:
        self._stretches: dict[str, list[list[str]]] = {}

    def take(self, rooms: Mapping[str, HeldRoom]) -> None:
        """Take what one of the ways holds of the rooms that the user is in."""
        for room_id, held in rooms.items():
            if held.membership == "join" and held.timeline:
                stretches = self._stretches.setdefault(room_id, [])
                if held.timeline not in stretches:
                    self._stretches[room_id] = _grown(stretches, held.timeline)

    def between(self, room_id: str, before: str, after: str) -> list[str] | None:
        """The events between two others; None where that is not known."""
        for stretch in self._stretches.get(room_id, ()):
            if before in stretch and after in stretch:
                begin, end = stretch.index(before) + 1, stretch.index(after)
                assert begin <= end, "two events change places"
                return stretch[begin:end]
        return None

    def check(self, room_id: str, visible: Sequence[str], unsure: Collection[str]) -> None:
        """Whether each stretch is a part of the whole."""
        for stretch in self._stretches.get(room_id, ()):
            shown = [event_id for event_id in stretch if event_id not in unsure]
            if shown:
                assert shown[0] in visible, "an event that the user must not see"
                begin = visible.index(shown[0])
                assert list(visible[begin : begin + len(shown)]) == shown, "the ways do not fit together"


def _grown(stretches: list[list[str]], new: list[str]) -> list[list[str]]:
    apart, grown = [], list(new)
    for stretch in stretches:
        if set(stretch) & set(grown):
            grown = _together(stretch, grown)
        else:
            apart.append(stretch)
    return [*apart, grown]


def _together(one: list[str], other: list[str]) -> list[str]:
    """Two stretches of one timeline that overlap."""
    known = set(other)
    first = next(event_id for event_id in one if event_id in known)
    begin, other_begin = one.index(first), other.index(first)
    assert 0 in (begin, other_begin), f"{one} and {other} differ in what was before"
    tail, other_tail = one[begin:], other[other_begin:]
    both = min(len(tail), len(other_tail))
    assert tail[:both] == other_tail[:both], f"{one} and {other} differ"
    return [*(one[:begin] or other[:other_begin]), *max(tail, other_tail, key=len)]
