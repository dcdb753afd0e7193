"""Hashes of passwords: Argon2id. They take long and much memory on purpose: call them in a thread."""

from __future__ import annotations

from typing import Literal

import nacl.exceptions
import nacl.pwhash

Cost = Literal["minimum", "interactive", "moderate", "sensitive"]

_ID = nacl.pwhash.argon2id
_LIMITS: dict[str, tuple[int, int]] = {
    "minimum": (_ID.OPSLIMIT_MIN, _ID.MEMLIMIT_MIN),
    "interactive": (_ID.OPSLIMIT_INTERACTIVE, _ID.MEMLIMIT_INTERACTIVE),
    "moderate": (_ID.OPSLIMIT_MODERATE, _ID.MEMLIMIT_MODERATE),
    "sensitive": (_ID.OPSLIMIT_SENSITIVE, _ID.MEMLIMIT_SENSITIVE),
}


def hash_password(password: str, cost: Cost) -> str:
    """The hash of a password, with its salt and its cost."""
    operations, memory = _LIMITS[cost]
    return _ID.str(password.encode(), opslimit=operations, memlimit=memory).decode("ascii")


def verify_password(password: str, hashed: str) -> bool:
    """Whether this password made this hash."""
    try:
        return nacl.pwhash.verify(hashed.encode("ascii"), password.encode())
    except nacl.exceptions.InvalidkeyError:
        return False
