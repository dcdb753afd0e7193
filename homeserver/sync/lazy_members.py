"""Which members a device has been sent already (CS "Lazy-loading room members"), so that they are not sent again.

Known by the token that the client brings back: an answer that was lost is not counted as sent. Kept in memory for the
last tokens of a device; where it is not known what a device has, everything needed is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.services.requester import Requester
    from homeserver.views.filters import SyncFilter

Sent = dict[int, frozenset[int]]
"""Numbers of member events by the number of their room."""

NOTHING: Mapping[int, frozenset[int]] = MappingProxyType({})
_TOKENS = 3
_CACHED_DEVICES = 2_000
_MEMBERS_PER_DEVICE = 5_000


class LazyMembers:
    """Remembers what devices that load members lazily have been sent."""

    def __init__(self) -> None:
        self._devices: OrderedDict[tuple[str, str | None, int], OrderedDict[int, Sent]] = OrderedDict()

    def known(
        self, requester: Requester, sync_filter: SyncFilter, since: int | None
    ) -> Mapping[int, frozenset[int]]:
        """The member events that a device holds that comes back with a position."""
        if since is None or sync_filter.room.state.include_redundant_members:
            return NOTHING
        tokens = self._devices.get(_key(requester, sync_filter))
        if tokens is None or since not in tokens:
            return NOTHING
        # However many answers are lost, what this position stands for is not forgotten.
        tokens.move_to_end(since)
        return tokens[since]

    def note(
        self,
        requester: Requester,
        sync_filter: SyncFilter,
        known: Mapping[int, frozenset[int]],
        sent: Mapping[int, set[int]],
        upto: int,
    ) -> None:
        """The device holds `sent` too, once it comes back with the position `upto`."""
        together = dict(known)
        for room_nid, members in sent.items():
            together[room_nid] = together.get(room_nid, frozenset()) | members
        if sum(map(len, together.values())) > _MEMBERS_PER_DEVICE:
            together = {room_nid: frozenset(members) for room_nid, members in sent.items()}
        key = _key(requester, sync_filter)
        tokens = self._devices.setdefault(key, OrderedDict())
        self._devices.move_to_end(key)
        tokens[upto] = together
        tokens.move_to_end(upto)
        if len(tokens) > _TOKENS:
            tokens.popitem(last=False)
        if len(self._devices) > _CACHED_DEVICES:
            self._devices.popitem(last=False)


def _key(requester: Requester, sync_filter: SyncFilter) -> tuple[str, str | None, int]:
    return (requester.user_id, requester.device_id, sync_filter.fingerprint)
