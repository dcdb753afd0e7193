"""The file of the key that signs: made on the first start, readable by its owner only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from crypto import keys
from crypto.errors import KeyFormatError
from homeserver.errors import StartupError
from homeserver.ids import random_string

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_OWNER_ONLY = 0o600


def load_or_make(path: Path) -> list[keys.SigningKey]:
    """The keys of a file, the one to sign with first; where there is no file, one is made with a new key.

    Raises `StartupError`, whose text names the setting and the cure.
    """
    try:
        try:
            return _parse(path)
        except FileNotFoundError:
            _make(path)
            return _parse(path)
    except OSError as error:
        raise StartupError(
            f"signing_key: cannot use {path} ({error.strerror}): let this user read it, or set signing_key to another file"
        ) from None


def _parse(path: Path) -> list[keys.SigningKey]:
    try:
        return keys.parse_key_file(path.read_text("ascii"))
    except UnicodeDecodeError:
        reason = "it is not text"
    except KeyFormatError as error:
        reason = str(error)
    raise StartupError(
        f"signing_key: {path} is not a key file ({reason}): restore it from a backup, or move it away to have a new one made"
    )


def replace(path: Path, now_ms: int) -> keys.SigningKey:
    """Put a new key first in a key file, and retire those before it; the answer is the new one.

    Raises `StartupError` as `load_or_make` does.
    """
    new = _new_key()
    all_keys = keys.replaced(load_or_make(path), new, now_ms)
    try:
        _written(path, all_keys).replace(path)
        _sync_directory(path)
    except OSError as error:
        raise StartupError(
            f"signing_key: cannot write {path} ({error.strerror}): let this user write there"
        ) from None
    return new


def _new_key() -> keys.SigningKey:
    return keys.generate(f"a_{random_string(4)}")


def _written(path: Path, all_keys: Sequence[keys.SigningKey]) -> Path:
    """A file beside the other one that holds these keys for certain."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(keys.format_key_file(all_keys))
        file.flush()
        os.fsync(file.fileno())
    return unfinished


def _make(path: Path) -> None:
    """Write the file whole or not at all: a key that others have seen must not be lost in a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _written(path, [_new_key()])
    try:
        # A hard link, unlike a rename, does not replace the key of a server that started at the same time.
        os.link(unfinished, path)
    except FileExistsError:
        return
    finally:
        unfinished.unlink()
    _sync_directory(path)


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
