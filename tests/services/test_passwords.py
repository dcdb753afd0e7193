from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from homeserver.errors import InvalidParam, LimitExceeded
from homeserver.services import passwords
from homeserver.services.passwords import MAX_BYTES, MAX_WAITING, Passwords

if TYPE_CHECKING:
    from collections.abc import Iterator


class SlowHashing:
    """Takes until the test lets it go on, and knows how many it does at a time."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def hash(self, password: str, cost: object) -> str:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.may_end.wait(20)
        with self._lock:
            self.running -= 1
        return password


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowHashing]:
    slow = SlowHashing()
    monkeypatch.setattr(passwords, "hash_password", slow.hash)
    monkeypatch.setattr(passwords.os, "cpu_count", lambda: 3)
    yield slow
    slow.may_end.set()


async def test_few_are_hashed_at_a_time_and_who_comes_when_too_many_wait_comes_back_later(
    hashing: SlowHashing,
) -> None:
    hashes = Passwords("minimum")
    waiting = [asyncio.create_task(hashes.hash(f"p{number}")) for number in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded) as refused:
        await hashes.hash("one more")
    assert refused.value.limit == "passwords"
    with pytest.raises(LimitExceeded):
        await hashes.verify("one more", None)
    hashing.may_end.set()
    assert await asyncio.gather(*waiting) == [f"p{number}" for number in range(MAX_WAITING)]
    assert hashing.most <= 2
    assert await hashes.hash("again") == "again"


async def test_who_goes_away_leaves_the_place_to_another(hashing: SlowHashing) -> None:
    hashes = Passwords("minimum")
    waiting = [asyncio.create_task(hashes.hash("p")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    waiting[-1].cancel()
    await asyncio.wait(waiting[-1:])
    last = asyncio.create_task(hashes.hash("q"))
    hashing.may_end.set()
    assert await last == "q"
    await asyncio.gather(*waiting[:-1])


@pytest.mark.parametrize("password", ["", "x" * (MAX_BYTES + 1), "é" * MAX_BYTES])
async def test_a_password_that_cannot_be_used_is_refused(password: str) -> None:
    with pytest.raises(InvalidParam):
        await Passwords("minimum").hash(password)


async def test_a_password_is_right_or_wrong_and_no_account_has_none() -> None:
    hashes = Passwords("minimum")
    hashed = await hashes.hash("secret")
    assert await hashes.verify("secret", hashed)
    assert not await hashes.verify("Secret", hashed)
    assert not await hashes.verify("", hashed)
    assert not await hashes.verify("x" * 1_000_000, hashed)
    assert not await hashes.verify("secret", None)
