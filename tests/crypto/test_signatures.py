"""Signing JSON: the vectors of the specification (Appendices, "Cryptographic Test Vectors")."""

from __future__ import annotations

import pytest

from crypto import base64, keys, signatures
from crypto.errors import SignatureError

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"


@pytest.fixture
def key() -> keys.SigningKey:
    return keys.key_from_seed("1", base64.decode(SEED))


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_the_specifications_objects_are_signed_as_it_says(key, value, signature):
    signed = signatures.sign_json(value, "domain", key)
    assert signed["signatures"] == {"domain": {"ed25519:1": signature}}
    signatures.verify_json(signed, "domain", "ed25519:1", key.private.verify_key)


def test_a_changed_object_is_refused(key):
    signed = signatures.sign_json({"one": 1}, "domain", key)
    with pytest.raises(SignatureError, match="wrong"):
        signatures.verify_json({**signed, "one": 2}, "domain", key.key_id, key.private.verify_key)


def test_unsigned_data_may_change(key):
    signed = signatures.sign_json({"one": 1}, "domain", key)
    signatures.verify_json({**signed, "unsigned": {"age": 5}}, "domain", key.key_id, key.private.verify_key)


@pytest.mark.parametrize("broken", [{}, {"signatures": 1}, {"signatures": {"domain": {"ed25519:1": 7}}}])
def test_a_missing_or_malformed_signature_is_refused(key, broken):
    with pytest.raises(SignatureError):
        signatures.verify_json(broken, "domain", "ed25519:1", key.private.verify_key)
