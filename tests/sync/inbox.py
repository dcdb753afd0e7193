"""What a device was sent as to-device messages, by whichever way they came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TYPE = "org.example.numbered"


class Inbox:
    """Numbered messages; each way of syncing has a token of its own, which says what of them came by it."""

    def __init__(self) -> None:
        self._came: dict[str, list[int]] = {}
        self._acknowledged: set[int] = set()
        self._backups: dict[str, int] = {}

    def take(self, way: str, events: Iterable[dict[str, Any]]) -> None:
        """Messages of an answer that is applied."""
        came = self._came.setdefault(way, [])
        for event in events:
            number = event["content"]["number"]
            assert number not in self._acknowledged, f"{number} comes by {way} once it was acknowledged"
            assert not came or number > came[-1], f"{number} comes by {way} after {came[-1]}"
            came.append(number)

    def acknowledge(self, way: str) -> None:
        """The token of the last answer is brought back."""
        self._acknowledged.update(self._came.get(way, ()))

    def back_up(self, way: str) -> None:
        """A way keeps how far it is."""
        self._backups[way] = len(self._came.get(way, ()))

    def restore(self, way: str) -> None:
        """A way goes on from there. What was acknowledged meanwhile is gone; the rest comes again."""
        came, kept = self._came.get(way, []), self._backups.get(way, 0)
        self._came[way] = came[:kept] + [number for number in came[kept:] if number in self._acknowledged]

    def check(self, sent: Sequence[int]) -> None:
        """Whether a device that has nothing left to hear has got all that was sent to it."""
        came = {number for numbers in self._came.values() for number in numbers}
        assert sorted(came) == list(sent), f"{came ^ set(sent)} came or were sent only"
