"""The tokens that clients hand back: places in the log (`since`, `next_batch`) and in a room (`from`, `prev_batch`).

A token is opaque to the client, small, and authentic: a short MAC is over all of it. A sync token is also bound to
the user and device that it was given to: read by another device it is a position only, and acknowledges nothing.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Protocol

from homeserver.errors import InvalidParam, MatrixError
from homeserver.storage.stored_event import RoomPoint

_VERSION = 1
_MAC_BYTES = 8
_OWNER_BYTES = 4
_SYNC = struct.Struct(f">BHQQ{_OWNER_BYTES}s")
_PAGE = struct.Struct(">BHQqq")
_LONG_SYNC = struct.Struct(f">BHQQQQQ{_OWNER_BYTES}s")
_CATCH_UP = struct.Struct(f">BHBQQQQBqqQQQ{_OWNER_BYTES}s")
_POS = struct.Struct(">BHQQ8s")
_CHANGES = struct.Struct(">BHQq")
_OFFSET = struct.Struct(">BQ8s")
_SYNC_PREFIX, _LONG_SYNC_PREFIX, _CATCH_UP_PREFIX, _PAGE_PREFIX, _OFFSET_PREFIX = "s", "t", "c", "p", "o"
_POS_PREFIX, _CHANGES_PREFIX = "n", "h"
_CACHED_OWNERS = 10_000
_MAX_LENGTH = 150


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A place in the log, and what it acknowledges to the device that it was given to."""

    position: int
    to_device_position: int
    own: bool
    """Whether the device that brings it is the one that it was given to."""
    epoch: int
    told: int = 0
    """Events up to here have come by another way than `/sync`, by catching up; all else counts from `position`."""
    owed: int = 0
    """The number under which it is kept which rooms were put off; 0 where none were."""
    base: int = 0
    """The position before which no room was put off."""


@dataclass(frozen=True, slots=True)
class CatchUpToken:
    """A place in what a device missed; see `homeserver.sync.missed`."""

    kind: int
    since: int
    """From where on `/sync` is to tell what is no event."""
    after: int
    upto: int
    number: int
    leg: int
    key: int
    tie: int
    to_device_position: int
    owed: int
    base: int


@dataclass(frozen=True, slots=True)
class PageToken:
    """A gap between two events of a room.

    Before it: what arrived up to `ceiling` and stands before `point` in the order of the room (anything, where
    `point` is None). After it: the rest.
    """

    ceiling: int
    point: RoomPoint | None


@dataclass(frozen=True, slots=True)
class ChangesToken:
    """What is left of the changes in a stretch of the log, read from its end: those up to `upto`.

    `after` is where the stretch begins; None where that is for whoever brings the token to say.
    """

    upto: int
    after: int | None


@dataclass(frozen=True, slots=True)
class Pos:
    """Where a connection of sliding sync stands: a place in the log, and the stored answer that the client holds."""

    position: int
    answer_nid: int


class UnknownPos(MatrixError):
    """A `pos` with which a client cannot go on: it begins anew."""

    errcode = "M_UNKNOWN_POS"

    def __init__(self) -> None:
        super().__init__("This pos is not, or no longer, known here for this connection: begin without one")


_NO_POINT = RoomPoint(-1, 0)


class Log(Protocol):
    """The log that positions are of."""

    async def reach(self, position: int) -> bool:
        """Whether this position has been committed; after that this process knows of all that lies before it."""
        ...


class Tokens:
    """Makes and reads tokens."""

    def __init__(self, secret: bytes, epoch: int, log: Log) -> None:
        self._secret = hashlib.blake2b(secret, digest_size=32, person=b"restante-tokens").digest()
        self._epoch = epoch
        self._log = log

    def sync_token(
        self,
        user_id: str,
        device_id: str | None,
        position: int,
        to_device_position: int = 0,
        *,
        told: int = 0,
        owed: int = 0,
        base: int = 0,
    ) -> str:
        """The `next_batch` of an answer to this device; see `SyncToken`."""
        owner = _owner(user_id, device_id)
        if not (told or owed):
            return self._seal(
                _SYNC_PREFIX, _SYNC.pack(_VERSION, self._epoch, position, to_device_position, owner)
            )
        return self._seal(
            _LONG_SYNC_PREFIX,
            _LONG_SYNC.pack(_VERSION, self._epoch, position, to_device_position, told, owed, base, owner),
        )

    async def read_sync_token(self, token: str, user_id: str, device_id: str | None) -> SyncToken:
        """Read a `since`; `InvalidParam` for one that this server did not make, or that lies in the future."""
        told = owed = base = 0
        if token[:1] == _LONG_SYNC_PREFIX:
            packed = self._open(token, _LONG_SYNC_PREFIX, _LONG_SYNC.size)
            version, epoch, position, to_device_position, told, owed, base, owner = _LONG_SYNC.unpack(packed)
        else:
            packed = self._open(token, _SYNC_PREFIX, _SYNC.size)
            version, epoch, position, to_device_position, owner = _SYNC.unpack(packed)
        if version != _VERSION or not await self._log.reach(max(position, told)):
            raise _bad_token()
        own = hmac.compare_digest(owner, _owner(user_id, device_id)) and epoch == self._epoch
        return SyncToken(position, to_device_position, own, epoch, told, owed, base)

    def catch_up_token(self, user_id: str, device_id: str | None, place: CatchUpToken) -> str:
        """The `end` of a page of what a device missed."""
        return self._seal(
            _CATCH_UP_PREFIX,
            _CATCH_UP.pack(
                _VERSION,
                self._epoch,
                place.kind,
                place.since,
                place.after,
                place.upto,
                place.number,
                place.leg,
                place.key,
                place.tie,
                place.to_device_position,
                place.owed,
                place.base,
                _owner(user_id, device_id),
            ),
        )

    async def read_catch_up_token(
        self, token: str, user_id: str, device_id: str | None
    ) -> CatchUpToken | None:
        """Read such an `end`; None where the token is of another kind. It is good for its own device only."""
        if token[:1] != _CATCH_UP_PREFIX:
            return None
        packed = self._open(token, _CATCH_UP_PREFIX, _CATCH_UP.size)
        version, epoch, *place, owner = _CATCH_UP.unpack(packed)
        is_own = hmac.compare_digest(owner, _owner(user_id, device_id))
        if version != _VERSION or epoch != self._epoch or not is_own:
            raise _bad_token()
        return CatchUpToken(*place)

    def pos(self, user_id: str, device_id: str, conn_id: str, position: int, answer_nid: int) -> str:
        """The `pos` of an answer on this connection."""
        owner = _kind(f"{user_id}\x00{device_id}\x00{conn_id}")
        return self._seal(_POS_PREFIX, _POS.pack(_VERSION, self._epoch, position, answer_nid, owner))

    async def read_pos(self, token: str, user_id: str, device_id: str, conn_id: str) -> Pos:
        """Read a `pos`; `UnknownPos` for one that was not given to this connection, or before a backup was restored."""
        try:
            packed = self._open(token, _POS_PREFIX, _POS.size)
        except InvalidParam as error:
            raise UnknownPos from error
        version, epoch, position, answer_nid, owner = _POS.unpack(packed)
        own = hmac.compare_digest(owner, _kind(f"{user_id}\x00{device_id}\x00{conn_id}"))
        if not own or version != _VERSION or epoch != self._epoch or not await self._log.reach(position):
            raise UnknownPos
        return Pos(position, answer_nid)

    def page_token(self, ceiling: int, point: RoomPoint | None) -> str:
        """A `prev_batch`, `start` or `end`."""
        depth, stream_id = (point or _NO_POINT).depth, (point or _NO_POINT).stream_id
        return self._seal(_PAGE_PREFIX, _PAGE.pack(_VERSION, self._epoch, ceiling, depth, stream_id))

    async def read_page_token(self, token: str) -> PageToken:
        """Read a `from` or `to`: one of ours for pages, or any sync token or `pos`, which is a position here."""
        point = None
        if token[:1] == _SYNC_PREFIX:
            version, _, position, _, _ = _SYNC.unpack(self._open(token, _SYNC_PREFIX, _SYNC.size))
        elif token[:1] == _LONG_SYNC_PREFIX:
            packed = self._open(token, _LONG_SYNC_PREFIX, _LONG_SYNC.size)
            version, _, position, _, told, _, _, _ = _LONG_SYNC.unpack(packed)
            position = max(position, told)
        elif token[:1] == _POS_PREFIX:
            version, _, position, _, _ = _POS.unpack(self._open(token, _POS_PREFIX, _POS.size))
        else:
            packed = self._open(token, _PAGE_PREFIX, _PAGE.size)
            version, _, position, depth, stream_id = _PAGE.unpack(packed)
            point = RoomPoint(depth, stream_id) if depth != _NO_POINT.depth else None
        if version != _VERSION or not await self._log.reach(position):
            raise _bad_token()
        return PageToken(position, point)

    def changes_token(self, upto: int, after: int | None) -> str:
        """A `prev_batch` or `end` where changes are read backwards; see `ChangesToken`."""
        start = -1 if after is None else after
        return self._seal(_CHANGES_PREFIX, _CHANGES.pack(_VERSION, self._epoch, upto, start))

    async def read_changes_token(self, token: str) -> ChangesToken:
        """Read such a `from`."""
        version, _, upto, start = _CHANGES.unpack(self._open(token, _CHANGES_PREFIX, _CHANGES.size))
        if version != _VERSION or not await self._log.reach(upto):
            raise _bad_token()
        return ChangesToken(upto, None if start < 0 else start)

    def offset(self, kind: str, number: int) -> str:
        """A place in a list that is no timeline; `kind` says which list, and how it was asked for."""
        return self._seal(_OFFSET_PREFIX, _OFFSET.pack(_VERSION, number, _kind(kind)))

    def read_offset(self, kind: str, token: str) -> int:
        """The place in a list of this kind; `InvalidParam` for a token of another list."""
        version, number, owner = _OFFSET.unpack(self._open(token, _OFFSET_PREFIX, _OFFSET.size))
        if version != _VERSION or owner != _kind(kind):
            raise _bad_token()
        return int(number)

    def _seal(self, prefix: str, packed: bytes) -> str:
        mac = hashlib.blake2b(packed, key=self._secret, digest_size=_MAC_BYTES).digest()
        return prefix + base64.urlsafe_b64encode(packed + mac).rstrip(b"=").decode()

    def _open(self, token: str, prefix: str, size: int) -> bytes:
        if token[:1] != prefix or len(token) > _MAX_LENGTH or not token.isascii():
            raise _bad_token()
        text = token[1:]
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _bad_token() from error
        packed, mac = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        expected = hashlib.blake2b(packed, key=self._secret, digest_size=_MAC_BYTES).digest()
        if len(packed) != size or not hmac.compare_digest(mac, expected):
            raise _bad_token()
        return packed


@functools.lru_cache(_CACHED_OWNERS)
def _owner(user_id: str, device_id: str | None) -> bytes:
    return hashlib.blake2b(f"{user_id}\x00{device_id or ''}".encode(), digest_size=_OWNER_BYTES).digest()


def _kind(kind: str) -> bytes:
    return hashlib.blake2b(kind.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _bad_token() -> InvalidParam:
    return InvalidParam("This token is not one of this server's")
