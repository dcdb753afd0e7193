"""Keys and their files, Base64, passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import base64, keys, passwords
from crypto.errors import CryptoError, KeyFormatError

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"


def test_a_key_file_is_read_as_it_was_written():
    key = keys.generate("a_Bcd1")
    (read,) = keys.parse_key_file(keys.format_key_file([key]))
    assert read == key
    assert read.key_id == "ed25519:a_Bcd1"


def test_a_key_is_replaced_once_and_the_older_ones_stay_retired():
    first, second, third = (keys.generate(version) for version in ("a", "b", "c"))
    all_keys = keys.replaced(keys.replaced([first], second, 1_000), third, 2_000)
    assert [(key.version, key.retired_ts) for key in all_keys] == [("c", None), ("b", 2_000), ("a", 1_000)]
    assert keys.parse_key_file(keys.format_key_file(all_keys)) == all_keys


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519 a",
        f"ed25519 a {SEED} 1000",
        f"ed25519 a {SEED}\ned25519 b {SEED} 1_000",
        f"ed25519 a {SEED}\ned25519 b {SEED} 1000 x",
        f"ed25519 a {SEED}\ned25519 a {SEED}",
        "rsa a YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
        "ed25519 a !",
        "ed25519 a-b YJDB",
        "ed25519 a YJDB",
    ],
)
def test_a_broken_key_file_is_refused(text):
    with pytest.raises(KeyFormatError):
        keys.parse_key_file(text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
    ],
)
def test_base64_has_no_padding(data, text):
    assert base64.encode_unpadded(data) == text
    assert base64.decode(text) == data


@given(st.binary())
def test_base64_round_trips(data):
    assert base64.decode(base64.encode_unpadded(data)) == data
    assert base64.decode_urlsafe(base64.encode_unpadded_urlsafe(data)) == data


@pytest.mark.parametrize("text", ["a", "ab!d", "日本"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(CryptoError):
        base64.decode(text)


def test_a_password_is_known_again_by_its_hash_only():
    hashed = passwords.hash_password("correct horse", "minimum")
    assert "horse" not in hashed
    assert passwords.verify_password("correct horse", hashed)
    assert not passwords.verify_password("wrong horse", hashed)
