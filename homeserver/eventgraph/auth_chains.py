"""Walks over auth chains: what not every state has in its chain, and what lies between conflicted events.

Both go from newer to older numbers and load only what they pass, so that their cost follows the size of the
conflict and not the size of the room.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from homeserver.eventgraph.questions import auth_events_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.eventgraph.questions import EventNumber, Resolution

_BATCH = 128


def auth_difference(
    conflicted: Sequence[Collection[EventNumber]], unconflicted: Collection[EventNumber]
) -> Resolution[set[EventNumber]]:
    """The events that are in the auth chain of some states, but not of all (room version 2, "Auth difference").

    `conflicted` has the conflicted events of each state, `unconflicted` what all states have. The chain of a state
    counts the events of the state themselves, as every implementation counts them: the specification's words leave
    out an unconflicted event that only one side cites, and it would be replayed for nothing.
    """
    walk = _Walk(conflicted, unconflicted)
    difference: set[EventNumber] = set()
    while walk.open:
        number = walk.newest()
        if number not in walk.cited:
            walk.cited.update((yield from auth_events_of(walk.next_batch())))
        if walk.pass_by(number):
            difference.add(number)
    return difference


class _Walk:
    """The events in sight of the walk, each with the set of states (as bits) whose chains it is known to be in.

    The unconflicted ones are in all. `open` counts those that are not yet known to be in all: with none of them
    left, whatever is older is in all chains as well.
    """

    def __init__(
        self, conflicted: Sequence[Collection[EventNumber]], unconflicted: Collection[EventNumber]
    ) -> None:
        self._everywhere = (1 << len(conflicted)) - 1
        self._unconflicted = frozenset(unconflicted)
        self._newest_first = sorted(self._unconflicted, reverse=True)
        self._next_unconflicted = 0
        self._states: dict[EventNumber, int] = {}
        for index, numbers in enumerate(conflicted):
            for number in numbers:
                self._states[number] = self._states.get(number, 0) | 1 << index
        self._queue = [-number for number in self._states]
        heapify(self._queue)
        # Those of the queue that have not been asked for.
        self._unasked = self._queue.copy()
        self.open = sum(states != self._everywhere for states in self._states.values())
        self.cited: dict[EventNumber, Sequence[EventNumber]] = {}

    def newest(self) -> EventNumber:
        """The newest event that has not been passed."""
        queued = -self._queue[0]
        if self._next_unconflicted < len(self._newest_first):
            unconflicted = self._newest_first[self._next_unconflicted]
            if unconflicted > queued:
                return unconflicted
        # All that is open is in the queue, so it is not empty.
        return queued  # type: ignore[return-value]

    def next_batch(self) -> list[EventNumber]:
        """The newest event and some that are likely to come next."""
        number = self.newest()
        if number in self._unconflicted:
            return self._newest_first[self._next_unconflicted : self._next_unconflicted + _BATCH]
        count = min(_BATCH, len(self._unasked))
        return [-heappop(self._unasked) for _ in range(count)]  # type: ignore[misc]

    def pass_by(self, number: EventNumber) -> bool:
        """Go past the newest event, on to those that it cites; whether it belongs to the difference."""
        if number in self._unconflicted:
            self._next_unconflicted += 1
            states = self._everywhere
        else:
            heappop(self._queue)
            states = self._states[number]
        for older in self.cited.pop(number):
            self._reach(older, states)
        if states == self._everywhere:
            return False
        self.open -= 1
        return True

    def _reach(self, number: EventNumber, states: int) -> None:
        if number in self._unconflicted:
            return
        known = self._states.get(number)
        if known is None:
            heappush(self._queue, -number)
            heappush(self._unasked, -number)
            self.open += states != self._everywhere
            self._states[number] = states
        elif known != known | states:
            self._states[number] = known | states
            self.open -= known | states == self._everywhere


def conflicted_subgraph(conflicted: Collection[EventNumber]) -> Resolution[set[EventNumber]]:
    """The events on every path of auth events between two conflicted ones (room version 12, "Conflicted state
    subgraph"), their ends included.
    """
    oldest = min(conflicted)
    cited: dict[EventNumber, list[EventNumber]] = {}
    ahead = set(conflicted)
    while ahead:
        answer = yield from auth_events_of(ahead)
        # What is older than the oldest conflicted event leads to none.
        cited.update({number: [older for older in answer[number] if older >= oldest] for number in ahead})
        ahead = {older for number in ahead for older in cited[number] if older not in cited}
    between = set(conflicted)
    for number in sorted(cited):
        if any(older in between for older in cited[number]):
            between.add(number)
    return between
