"""Passwords: hashed and checked in threads, few at once, since each takes much memory and time on purpose."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from crypto.passwords import hash_password, verify_password
from homeserver.errors import InvalidParam

if TYPE_CHECKING:
    from crypto.passwords import Cost

MAX_BYTES = 512
_MAX_WAITING = 200


class Passwords:
    """Hashes passwords and checks them."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._places = asyncio.Semaphore(max(1, (os.cpu_count() or 1) - 1))

    async def hash(self, password: str) -> str:
        """The hash of a new password; `InvalidParam` for one that cannot be used."""
        if not password:
            raise InvalidParam("The password is empty", errcode="M_WEAK_PASSWORD")
        if _size(password) > MAX_BYTES:
            raise InvalidParam(f"The password has more than {MAX_BYTES} bytes")
        async with self._places:
            return await asyncio.to_thread(hash_password, password, self._cost)

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether a password is right; takes as long where there is no account."""
        if _size(password) > MAX_BYTES:
            return False
        async with self._places:
            if hashed is None:
                await asyncio.to_thread(hash_password, password or "-", self._cost)
                return False
            return await asyncio.to_thread(verify_password, password, hashed)


def _size(password: str) -> int:
    return len(password.encode("utf-8", "surrogatepass"))
