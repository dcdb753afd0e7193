"""The files of media, by names that this server makes up: on the disk, or wherever else files can be kept.

A file is written once, whole, under a name that never was and never will be another's. Which names are in use, and
which were begun and never came to be, the database knows (`homeserver.storage.media`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import TYPE_CHECKING, Protocol

from homeserver.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PART_BYTES = 128 << 10
NAME_LENGTH = 32

_NAME = re.compile(rf"[a-z]{{{NAME_LENGTH}}}")
_INCOMING = "incoming"
_OWNER_ONLY = 0o700


class FileLost(Exception):
    """A file that should be there is not, or not whole."""


class MediaFiles(Protocol):
    """Keeps files. What goes wrong outside of this program is an `OSError`."""

    part_bytes: int
    """How much is best read, and so held in memory, of a file at a time."""

    async def write(self, name: str, parts: AsyncIterator[bytes]) -> None:
        """Keep a file: once this returns it outlives a power cut. Whatever is raised may leave something of it."""

    async def read(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`; raises `FileLost` where they are not there."""

    async def delete(self, name: str) -> None:
        """Leave nothing of a file, if there is anything."""


class MediaDirectory:
    """Files in a directory.

    What is being written stands in a directory of its own, and gets its place by a rename. A file is opened for each
    part that is read or written: who is slow holds nothing open, and who is cancelled leaves nothing open.
    """

    part_bytes = PART_BYTES

    def __init__(self, path: Path) -> None:
        """Make the directory where it is missing; raises `StartupError`."""
        self._path = path
        try:
            path.mkdir(_OWNER_ONLY, parents=True, exist_ok=True)
            (path / _INCOMING).mkdir(exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"media.path: cannot use {path} ({error.strerror}): let this user write there, or set media.path"
            ) from None
        if not os.access(path / _INCOMING, os.W_OK | os.X_OK):
            raise StartupError(f"media.path: this user may not write to {path}: allow it, or set media.path")

    async def write(self, name: str, parts: AsyncIterator[bytes]) -> None:
        """Keep a file."""
        incoming = self._path / _INCOMING / _checked(name)
        await asyncio.to_thread(_create, incoming)
        gathered = bytearray()
        async for part in parts:
            gathered += part
            if len(gathered) >= PART_BYTES:
                await asyncio.to_thread(_append, incoming, gathered)
                gathered = bytearray()
        await asyncio.to_thread(_finish, incoming, gathered, self._place(name))

    async def read(self, name: str, start: int, end: int) -> bytes:
        """A part of a file."""
        return await asyncio.to_thread(_read, self._place(name), start, end)

    async def delete(self, name: str) -> None:
        """Leave nothing of a file."""
        # First where it begins: a rename that comes in between finds nothing.
        await asyncio.to_thread(_delete, self._path / _INCOMING / _checked(name), self._place(name))

    def _place(self, name: str) -> Path:
        return self._path / _checked(name)[:2] / name


def _checked(name: str) -> str:
    """No name comes from outside; and if one did, it would lead nowhere."""
    if _NAME.fullmatch(name) is None:
        message = f"not the name of a file: {name!r}"
        raise ValueError(message)
    return name


def _create(path: Path) -> None:
    path.open("xb").close()


def _append(path: Path, part: bytearray) -> None:
    # What was deleted meanwhile does not come back.
    with open(os.open(path, os.O_WRONLY | os.O_APPEND), "wb") as file:  # noqa: PTH123 - a path has no such open
        file.write(part)


def _finish(incoming: Path, rest: bytearray, place: Path) -> None:
    with open(os.open(incoming, os.O_WRONLY | os.O_APPEND), "wb") as file:  # noqa: PTH123
        file.write(rest)
        file.flush()
        os.fsync(file.fileno())
    try:
        place.parent.mkdir()
    except FileExistsError:
        pass
    else:
        _sync_directory(place.parent.parent)
    incoming.rename(place)
    _sync_directory(place.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, start: int, end: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            part = file.read(end - start)
    except FileNotFoundError:
        part = b""
    if len(part) != end - start:
        message = f"{path} has no bytes from {start} to {end}"
        raise FileLost(message)
    return part


def _delete(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
