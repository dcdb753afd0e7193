from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.errors import StartupError
from homeserver.storage import key_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_key_is_made_on_the_first_start_and_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "data" / "signing.key"
    (made,) = key_file.load_or_make(path)
    assert key_file.load_or_make(path) == [made]
    assert made.key_id.startswith("ed25519:a_")


def test_only_its_owner_may_read_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key_file.load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_making_a_key_leaves_nothing_else_behind(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key_file.load_or_make(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [b"", b"ed25519 a_x\n", b"rsa a_x AAAA\n", b"ed25519 a_x AAAA\n", b"\xff\xfe"]
)
def test_a_file_that_is_no_key_file_is_refused_with_setting_path_and_cure(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(content)
    with pytest.raises(StartupError) as error:
        key_file.load_or_make(path)
    message = str(error.value)
    assert message.startswith(f"signing_key: {path} is not a key file")
    assert "restore it from a backup" in message
    assert "\n" not in message
    assert path.read_bytes() == content


def test_a_path_that_cannot_be_read_is_refused_with_setting_path_and_cure(tmp_path: Path) -> None:
    with pytest.raises(StartupError) as error:
        key_file.load_or_make(tmp_path)
    assert str(error.value).startswith(f"signing_key: cannot use {tmp_path} (")
