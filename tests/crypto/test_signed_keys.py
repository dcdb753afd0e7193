"""Signed key objects: whose signature holds, and over what."""

from __future__ import annotations

import pytest

from crypto import keys, signatures
from crypto.errors import CryptoError
from crypto.signed_keys import signed_part, verify_key_object

ALICE = "@alice:example.org"
VALUE = {"key": "abc", "org.example": [1, {"b": None, "a": True}]}


@pytest.fixture
def key() -> keys.SigningKey:
    return keys.generate("DEVICE")


def signed(value, key):
    return signatures.sign_json(value, ALICE, key)


def test_a_right_signature_holds_whatever_is_unsigned(key):
    value = {**signed(VALUE, key), "unsigned": {"device_display_name": 1.5}}
    verify_key_object(value, ALICE, "ed25519:DEVICE", key.public_base64)
    assert signed_part(value) == VALUE


@pytest.mark.parametrize("value", [{**VALUE, "key": "abd"}, {**VALUE, "new": 1}, {}])
def test_a_signature_over_something_else_does_not(key, value):
    with pytest.raises(CryptoError):
        verify_key_object(
            {**value, "signatures": signed(VALUE, key)["signatures"]},
            ALICE,
            "ed25519:DEVICE",
            key.public_base64,
        )


def test_nor_by_another_user_or_key(key):
    value = signed(VALUE, key)
    for user_id, key_id, public_key in (
        ("@bob:example.org", "ed25519:DEVICE", key.public_base64),
        (ALICE, "ed25519:OTHER", key.public_base64),
        (ALICE, "ed25519:DEVICE", keys.generate("OTHER").public_base64),
        (ALICE, "ed25519:DEVICE", "not a key"),
        (ALICE, "ed25519:DEVICE", "é" * 43),
        (ALICE, "ed25519:DEVICE", ""),
    ):
        with pytest.raises(CryptoError):
            verify_key_object(value, user_id, key_id, public_key)


@pytest.mark.parametrize("text", ["", "?", "AAAA", "é" * 86, "A" * 10_000, None, 5, []])
def test_what_is_no_signature_does_not_hold(key, text):
    value = {**VALUE, "signatures": {ALICE: {"ed25519:DEVICE": text}}}
    with pytest.raises(CryptoError):
        verify_key_object(value, ALICE, "ed25519:DEVICE", key.public_base64)


@pytest.mark.parametrize("odd", [1.5, 2**60, {"a": [0.1]}])
def test_what_has_no_canonical_form_cannot_be_signed(key, odd):
    value = {"odd": odd, "signatures": {ALICE: {"ed25519:DEVICE": "A" * 86}}}
    with pytest.raises(CryptoError):
        verify_key_object(value, ALICE, "ed25519:DEVICE", key.public_base64)
