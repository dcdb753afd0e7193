"""Whose documents of keys are believed, and how long the keys in them hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.keys import SigningKey, key_from_seed
from crypto.signatures import sign_json, verify_json
from federation.server_keys import (
    BadKeyDocument,
    ServerKey,
    countersign,
    merge,
    own_document,
    parse_document,
    parse_notary_answer,
)

DAY = 86_400_000
NOW = 1_700_000_000_000
KEY = key_from_seed("one", b"1" * 32)
SECOND = key_from_seed("two", b"2" * 32)
STOLEN = key_from_seed("one", b"3" * 32)
NOTARY_KEY = key_from_seed("n", b"4" * 32)
NAME, NOTARY = "origin.example", "notary.example"


def document(
    *signing: SigningKey,
    keys: tuple[SigningKey, ...] = (KEY,),
    old: dict[SigningKey, int] | None = None,
    until: Any = NOW + DAY,
    **other: Any,
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "server_name": NAME,
        "valid_until_ts": until,
        "verify_keys": {key.key_id: {"key": key.public_base64} for key in keys},
        "old_verify_keys": {
            key.key_id: {"key": key.public_base64, "expired_ts": expired}
            for key, expired in (old or {}).items()
        },
        **other,
    }
    for key in signing or keys:
        made = sign_json(made, NAME, key)
    return made


def keys_of(made: dict[str, Any], *, direct: bool = True) -> dict[str, ServerKey]:
    return {key.key_id: key for key in parse_document(made, NAME, NOW, direct=direct).keys}


def test_a_document_that_the_server_signed_is_believed() -> None:
    found = keys_of(document(KEY, SECOND, keys=(KEY, SECOND)))
    assert found.keys() == {"ed25519:one", "ed25519:two"}
    assert found["ed25519:one"].public_base64 == KEY.public_base64


def test_one_of_several_keys_may_have_signed() -> None:
    assert len(keys_of(document(KEY, keys=(KEY, SECOND)))) == 2


@pytest.mark.parametrize(
    "made",
    [
        document(SECOND),
        document(STOLEN),
        {**document(), "valid_until_ts": NOW + 2 * DAY},
        {**document(), "signatures": {}},
        {**document(), "signatures": {NAME: {}}},
        {**document(), "signatures": {NAME: {"ed25519:one": "AAAA"}}},
        {**document(), "signatures": {NAME: {"ed25519:one": 1}}},
        {**document(), "signatures": {NAME: []}},
        {**document(), "signatures": None},
        {**document(), "signatures": {"other.example": document()["signatures"][NAME]}},
        # One right and one wrong.
        {
            **document(keys=(KEY, SECOND)),
            "signatures": {
                NAME: {
                    **document(KEY, keys=(KEY, SECOND))["signatures"][NAME],
                    "ed25519:two": document(KEY, keys=(KEY, SECOND))["signatures"][NAME]["ed25519:one"],
                }
            },
        },
        # Signed by a key that is not in use any more.
        document(SECOND, old={SECOND: NOW - DAY}),
        document(KEY, keys=()),
        document(server_name="other.example"),
        document(until="soon"),
        document(until=-1),
        document(until=True),
        document(until=None),
        document(until=2**60),
        document(verify_keys=[]),
        document(verify_keys={KEY.key_id: KEY.public_base64}),
        document(verify_keys={KEY.key_id: {"key": "AAAA"}}),
        document(verify_keys={KEY.key_id: {}}),
        document(old_verify_keys={"ed25519:x": {"key": KEY.public_base64}}),
        document(verify_keys={f"ed25519:{n}": {"key": KEY.public_base64} for n in range(100)}),
        document(old_verify_keys={f"ed25519:{n}": {} for n in range(1000)}),
        document(extra=1.5),
        [],
        None,
        "text",
        {},
    ],
)
def test_other_documents_are_not(made: Any) -> None:
    with pytest.raises(BadKeyDocument):
        parse_document(made, NAME, NOW, direct=True)


def test_keys_of_unknown_kinds_and_odd_names_are_passed_over() -> None:
    made = document(
        verify_keys={KEY.key_id: {"key": KEY.public_base64}, "rsa:1": 1, "ed25519:a b": 2, "x": {}}
    )
    assert keys_of(made).keys() == {"ed25519:one"}


# -- how long a key holds --------------------------------------------------------------------------------


def test_a_key_holds_for_events_until_the_document_says() -> None:
    key = keys_of(document(until=NOW + DAY))["ed25519:one"]
    assert key.signs_events_at(NOW + DAY)
    assert not key.signs_events_at(NOW + DAY + 1)
    assert key.signs_events_at(None)
    assert key.signs_requests_at(NOW + DAY)
    assert not key.signs_requests_at(NOW + DAY + 1)


def test_no_key_holds_longer_than_a_week_whatever_the_document_says() -> None:
    for direct in (True, False):
        key = keys_of(document(until=NOW + 5000 * DAY), direct=direct)["ed25519:one"]
        assert key.valid_until_ts == NOW + 7 * DAY
    key = keys_of(document(old={SECOND: NOW + 5000 * DAY}))["ed25519:two"]
    assert key.valid_until_ts == NOW + 7 * DAY


def test_a_retired_key_signs_no_requests_and_only_events_from_before() -> None:
    key = keys_of(document(old={SECOND: NOW + DAY}))["ed25519:two"]
    assert not key.signs_requests_at(NOW)
    assert key.signs_events_at(NOW + DAY)
    assert not key.signs_events_at(NOW + DAY + 1)
    assert key.signs_events_at(None)


def test_a_key_in_both_lists_is_in_use() -> None:
    assert not keys_of(document(old={KEY: NOW - DAY}))["ed25519:one"].retired


# -- one document after another --------------------------------------------------------------------------


def after(*documents: tuple[dict[str, Any], bool]) -> dict[str, ServerKey]:
    known: dict[str, ServerKey] = {}
    for made, direct in documents:
        known = merge(known, parse_document(made, NAME, NOW, direct=direct))
    return known


def test_what_the_server_says_itself_holds_over_what_was_known() -> None:
    shorter = after((document(until=NOW + 2 * DAY), True), (document(until=NOW + DAY), True))
    assert shorter["ed25519:one"].valid_until_ts == NOW + DAY
    exchanged = after((document(), False), (document(keys=(STOLEN,)), True))
    assert exchanged["ed25519:one"].public_base64 == STOLEN.public_base64
    retired = after((document(), True), (document(keys=(SECOND,), old={KEY: NOW - DAY}), True))
    assert not retired["ed25519:one"].signs_requests_at(NOW)
    assert not retired["ed25519:one"].signs_events_at(NOW)


def test_a_notary_adds_keys_and_prolongs_them() -> None:
    known = after(
        (document(until=NOW + DAY), True), (document(keys=(KEY, SECOND), until=NOW + 2 * DAY), False)
    )
    assert known["ed25519:one"].valid_until_ts == NOW + 2 * DAY
    assert known["ed25519:one"].direct
    assert not known["ed25519:two"].direct


def test_a_notary_shortens_nothing() -> None:
    known = after((document(until=NOW + 2 * DAY), True), (document(until=NOW + DAY), False))
    assert known["ed25519:one"].valid_until_ts == NOW + 2 * DAY


def test_a_notary_cannot_exchange_a_key_that_the_server_gave() -> None:
    known = after((document(), True), (document(keys=(STOLEN,), until=NOW + 6 * DAY), False))
    assert known["ed25519:one"].public_base64 == KEY.public_base64


def test_a_notary_cannot_bring_back_what_the_server_retired() -> None:
    retired = document(keys=(SECOND,), old={KEY: NOW - DAY})
    known = after((retired, True), (document(until=NOW + 6 * DAY), False))
    assert known["ed25519:one"].retired
    assert known["ed25519:one"].valid_until_ts == NOW - DAY


def test_of_two_notaries_the_later_document_counts() -> None:
    late, early = document(keys=(STOLEN,), until=NOW + 2 * DAY), document(until=NOW + DAY)
    for order in ((late, early), (early, late)):
        known = after(*((made, False) for made in order))
        assert known["ed25519:one"].public_base64 == STOLEN.public_base64


def test_keys_that_a_new_document_leaves_out_hold_as_long_as_was_said() -> None:
    known = after((document(until=NOW + DAY), True), (document(keys=(SECOND,)), True))
    assert known["ed25519:one"].valid_until_ts == NOW + DAY


# -- notaries and our own --------------------------------------------------------------------------------


def ask(*documents: Any, wanted: tuple[str, ...] = (NAME,)) -> list[str]:
    keys = {NOTARY_KEY.key_id: NOTARY_KEY.private.verify_key}
    believed = parse_notary_answer(documents, wanted, NOTARY, keys, NOW)
    assert not any(key.direct for document in believed for key in document.keys)
    return [document.server_name for document in believed]


def test_a_notary_is_believed_where_it_and_the_server_signed() -> None:
    made = countersign(document(), NOTARY, [NOTARY_KEY])
    assert ask(made) == [NAME]
    assert ask({}, [], None, made, {**made, "valid_until_ts": 1}) == [NAME]


def test_a_notary_is_not_believed_otherwise() -> None:
    made = countersign(document(), NOTARY, [NOTARY_KEY])
    assert ask(made, wanted=("other.example",)) == []
    assert ask(document()) == []
    assert ask(countersign(document(), NOTARY, [key_from_seed("n", b"5" * 32)])) == []
    assert ask(countersign(document(), "other.example", [NOTARY_KEY])) == []
    assert ask(countersign(document(STOLEN), NOTARY, [NOTARY_KEY])) == []
    assert ask({**made, "server_name": ["x"]}) == []


def test_our_own_document_is_believed_by_others_and_holds_for_more_than_a_day() -> None:
    for now in (NOW, NOW + 1_234_567):
        made = own_document(NAME, [KEY, SECOND], now)
        found = parse_document(made, NAME, now, direct=True)
        assert found.valid_until_ts >= now + DAY
        assert len(made["signatures"][NAME]) == 2
        verify_json(made, NAME, SECOND.key_id, SECOND.private.verify_key)
    assert own_document(NAME, [KEY], NOW - NOW % 3_600_000) == own_document(
        NAME, [KEY], NOW - NOW % 3_600_000 + 10
    )


JSON = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*document(old={SECOND: NOW}), "new"]), JSON, st.booleans())
def test_a_document_in_which_anything_was_exchanged_is_not_believed(
    name: str, value: Any, drop: bool
) -> None:
    made = document(old={SECOND: NOW})
    if drop:
        made.pop(name, None)
    else:
        made[name] = value
    if json.dumps(made) == json.dumps(document(old={SECOND: NOW})):
        return
    with pytest.raises(BadKeyDocument):
        parse_document(made, NAME, NOW, direct=True)
