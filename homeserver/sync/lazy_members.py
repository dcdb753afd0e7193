"""Which members a device has been sent already (CS "Lazy-loading room members"), so that they are not sent again.

Known by the token that the client brings back: an answer that was lost is not counted as sent. Kept in memory for the
last tokens of a reader; where it is not known what a device has, everything needed is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Sent = dict[int, frozenset[int]]
"""Numbers of member events by the number of their room."""

NOTHING: Mapping[int, frozenset[int]] = MappingProxyType({})
_TOKENS = 3
_CACHED_READERS = 2_000
_MEMBERS_PER_READER = 5_000


class LazyMembers:
    """Remembers what those who load members lazily have been sent."""

    def __init__(self) -> None:
        self._readers: OrderedDict[Hashable, OrderedDict[Hashable, Sent]] = OrderedDict()

    def known(self, reader: Hashable, since: Hashable | None) -> Mapping[int, frozenset[int]]:
        """The member events that a reader holds that comes back with the position of an answer.

        A reader is whoever asks for the same things again and again: a device with a filter, a connection of a device.
        """
        tokens = self._readers.get(reader) if since is not None else None
        if since is None or tokens is None or since not in tokens:
            return NOTHING
        # However many answers are lost, what this position stands for is not forgotten.
        tokens.move_to_end(since)
        return tokens[since]

    def note(
        self,
        reader: Hashable,
        known: Mapping[int, frozenset[int]],
        sent: Mapping[int, set[int]],
        upto: Hashable,
    ) -> None:
        """The reader holds `sent` too, once it comes back with the position `upto`."""
        together = dict(known)
        for room_nid, members in sent.items():
            together[room_nid] = together.get(room_nid, frozenset()) | members
        if sum(map(len, together.values())) > _MEMBERS_PER_READER:
            together = {room_nid: frozenset(members) for room_nid, members in sent.items()}
        tokens = self._readers.setdefault(reader, OrderedDict())
        self._readers.move_to_end(reader)
        tokens[upto] = together
        tokens.move_to_end(upto)
        if len(tokens) > _TOKENS:
            tokens.popitem(last=False)
        if len(self._readers) > _CACHED_READERS:
            self._readers.popitem(last=False)
