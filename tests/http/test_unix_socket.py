from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from homeserver.errors import StartupError
from homeserver.http import unix_socket

if TYPE_CHECKING:
    from pathlib import Path


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client, unix_socket.connectable(path) as address:
        client.connect(address)


def test_only_its_owner_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = unix_socket.listen(path)
    assert listener is not None
    with listener:
        assert path.stat().st_mode & 0o777 == 0o600
        connect(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = unix_socket.listen(path)
    assert left is not None
    left.close()
    listener = unix_socket.listen(path)
    assert listener is not None
    with listener:
        connect(path)


def test_a_socket_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = unix_socket.listen(path)
    assert listener is not None
    with listener:
        assert unix_socket.listen(path) is None
        connect(path)


def test_a_path_may_be_longer_than_an_address_can_be(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    listener = unix_socket.listen(directory / "s")
    assert listener is not None
    with listener:
        connect(directory / "s")


def test_where_there_can_be_no_socket_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="data_dir: cannot make the socket"):
        unix_socket.listen(tmp_path / "missing" / "s")
