"""Passwords: hashed and checked in threads, few at once, since each takes much memory and time on purpose."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

from crypto.passwords import hash_password, verify_password
from homeserver.errors import InvalidParam, LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from crypto.passwords import Cost

T = TypeVar("T")

MAX_BYTES = 512
MAX_WAITING = 200
"""So many passwords are checked or wait for it; whoever comes then is told to come back later."""
_RETRY_AFTER_MS = 5000


class Passwords:
    """Hashes passwords and checks them."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._places = asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1))
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """The hash of a new password; `InvalidParam` for one that cannot be used."""
        check_new_password(password)
        return await self._in_turn(lambda: hash_password(password, self._cost))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether a password is right; takes as long where there is no account."""
        if _size(password) > MAX_BYTES:
            return False
        if hashed is None:
            await self._in_turn(lambda: hash_password(password or "-", self._cost))
            return False
        return await self._in_turn(lambda: verify_password(password, hashed))

    async def _in_turn(self, work: Callable[[], T]) -> T:
        """Do the work in a thread when its turn comes; `LimitExceeded` where too many wait already."""
        if self._waiting >= MAX_WAITING:
            raise LimitExceeded("passwords", _RETRY_AFTER_MS)
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def check_new_password(password: str) -> None:
    """Refuse a password that cannot be used; raises `InvalidParam`."""
    if not password:
        raise InvalidParam("The password is empty", errcode="M_WEAK_PASSWORD")
    if _size(password) > MAX_BYTES:
        raise InvalidParam(f"The password has more than {MAX_BYTES} bytes")


def _size(password: str) -> int:
    return len(password.encode("utf-8", "surrogatepass"))
