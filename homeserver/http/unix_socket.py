"""A Unix socket that only its owner may connect to: the way from the command line to the running server."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homeserver.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_OWNER_ONLY = 0o600
# The room for a path in the address of a socket is 108 bytes on Linux, with a zero at the end.
_MAX_PATH_BYTES = 107


def listen(path: Path) -> socket.socket | None:
    """A listening socket at `path`; None where another living process listens there.

    One that a process left behind is replaced. Raises `StartupError` where there can be no socket.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_alive(path):
            listener.close()
            return None
        unfinished.unlink(missing_ok=True)
        with connectable(unfinished) as address:
            listener.bind(address)
        # Nobody can connect before `listen`, so nobody can before the mode is set.
        unfinished.chmod(_OWNER_ONLY)
        unfinished.replace(path)
        listener.listen()
    except OSError as error:
        listener.close()
        raise StartupError(
            f"data_dir: cannot make the socket {path} ({error.strerror or error}): "
            "let this user write there, or choose a directory with a shorter path"
        ) from None
    listener.setblocking(False)
    return listener


@contextmanager
def connectable(path: Path) -> Iterator[str]:
    """A path by which a socket can be reached even where its own is too long for an address."""
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with connectable(path) as address:
                probe.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
