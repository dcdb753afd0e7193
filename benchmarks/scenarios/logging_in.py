"""Logins with a password."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from benchmarks.client import Refused
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from benchmarks.figures import Setting

_AT_ONCE = 4


async def measure(setting: Setting) -> list[Figure]:
    """New devices of one user."""
    user = await setting.accounts.register("guest")
    tokens = []
    started = time.perf_counter()

    async def log_in() -> None:
        while time.perf_counter() < started + setting.load.seconds:
            tokens.append((await user.login()).access_token)

    await asyncio.gather(*(log_in() for _ in range(_AT_ONCE)))
    passed = time.perf_counter() - started
    if len(set(tokens)) != len(tokens) or None in tokens:
        raise Refused("two logins gave the same token")
    return [Figure("Logins", len(tokens) / passed, "/s", more_is_better=True)]
