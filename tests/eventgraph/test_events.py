"""The form of events: fields, ids, sizes, hashes and signatures."""

from __future__ import annotations

from typing import Any

import pytest

from crypto import base64, canonical_json, keys, signatures
from homeserver.eventgraph.builder import EventReference, build
from homeserver.eventgraph.checks import check_format, check_size
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.event import Event
from homeserver.eventgraph.hashing import content_hash, event_id_of, has_right_content_hash, reference_hash
from homeserver.eventgraph.redaction import redact
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import is_key_valid_at, servers_that_sign
from tests.eventgraph.rooms import ALICE, BOB, KEY, Room

VERSIONS = list(ROOM_VERSIONS)
V1 = ROOM_VERSIONS["1"]
# Appendices, "Cryptographic Test Vectors".
SPECIFICATION_KEY = keys.key_from_seed("1", base64.decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
MINIMAL = {
    "room_id": "!x:domain",
    "sender": "@a:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "signatures": {},
    "hashes": {},
    "type": "X",
    "content": {},
    "prev_events": [],
    "auth_events": [],
    "depth": 3,
    "unsigned": {"age_ts": 1000000},
}
REDACTABLE = {
    "content": {"body": "Here is the message content"},
    "event_id": "$0:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "type": "m.room.message",
    "room_id": "!r:domain",
    "sender": "@u:domain",
    "signatures": {},
    "unsigned": {"age_ts": 1000000},
}


@pytest.mark.parametrize(
    ("event", "sha256", "signature"),
    [
        (
            MINIMAL,
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            REDACTABLE,
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ],
)
def test_the_specifications_events_are_hashed_and_signed_as_it_says(event, sha256, signature):
    assert base64.encode_unpadded(content_hash(V1, event)) == sha256
    hashed = {**event, "hashes": {"sha256": sha256}}
    assert signatures.signature_of(redact(V1, hashed), SPECIFICATION_KEY) == signature
    assert has_right_content_hash(V1, hashed)


def message(version: str, **fields: Any) -> dict[str, Any]:
    """The federation form of a message in a room of a version."""
    room = Room(version)
    room.join(ALICE)
    pdu = room.send("m.room.message", ALICE, {"body": "hello"}).pdu
    return {name: value for name, value in {**pdu, **fields}.items() if value is not _ABSENT}


_ABSENT = object()


# -- ids ---------------------------------------------------------------------------------------------------


def test_ids_are_given_in_versions_1_and_2_and_hashes_from_then_on():
    for version, rules in ROOM_VERSIONS.items():
        pdu = message(version)
        event_id = event_id_of(rules, pdu)
        if int(version) <= 2:
            assert event_id == pdu["event_id"]
            continue
        assert "event_id" not in pdu
        digest = reference_hash(rules, pdu)
        encode = base64.encode_unpadded if version == "3" else base64.encode_unpadded_urlsafe
        assert event_id == "$" + encode(digest)


@pytest.mark.parametrize("version", VERSIONS)
def test_redaction_signatures_and_unsigned_data_do_not_change_the_id(version):
    rules = ROOM_VERSIONS[version]
    pdu = message(version)
    changed = {**redact(rules, pdu), "signatures": {"other": {}}, "unsigned": {"age": 1}}
    assert reference_hash(rules, changed) == reference_hash(rules, pdu)
    assert event_id_of(rules, changed) == event_id_of(rules, pdu)


def test_references_carry_hashes_in_versions_1_and_2_only():
    for version in VERSIONS:
        (reference,) = message(version)["prev_events"]
        if int(version) <= 2:
            event_id, hashes = reference
            assert event_id.startswith("$")
            assert len(base64.decode(hashes["sha256"])) == 32
        else:
            assert isinstance(reference, str)


def test_the_room_is_the_create_event_in_version_12():
    for version in VERSIONS:
        room = Room(version)
        assert ("room_id" in room.create.pdu) == (version != "12")
        assert (room.room_id == "!" + room.create.event_id[1:]) == (version == "12")
        assert room.join(ALICE).pdu["room_id"] == room.room_id
        assert (room.create.event_id in room.newest().auth_event_ids) == (version != "12")


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_redacted_stands_where_the_version_has_it(version):
    room = Room(version)
    room.join(ALICE)
    target = room.send("m.room.message", ALICE, {"body": "hello"})
    event = room.send("m.room.redaction", ALICE, {"reason": "x"}, redacts=target.event_id)
    assert event.redacts == target.event_id
    assert ("redacts" in event.pdu) == (int(version) < 11)
    assert ("redacts" in event.content) == (int(version) >= 11)


# -- the form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_what_we_build_has_the_right_form(version):
    room = Room(version)
    room.join(ALICE)
    for event in room.events.values():
        check_format(room.version, event.pdu)
        check_size(event.json)
        assert has_right_content_hash(room.version, event.pdu)
        assert event.json == canonical_json.encode(event.pdu)
        key = KEY.private.verify_key
        signatures.verify_json(redact(room.version, event.pdu), "one.example", KEY.key_id, key)
        again = Event.from_json(room.version, event.json)
        assert (again.event_id, again.pdu, again.room_id) == (event.event_id, event.pdu, event.room_id)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", _ABSENT),
        ("type", 1),
        ("type", "x" * 256),
        ("type", "é" * 128),
        ("state_key", None),
        ("state_key", 1),
        ("state_key", "x" * 256),
        ("sender", _ABSENT),
        ("sender", "alice"),
        ("sender", "@alice"),
        ("sender", "@alice:"),
        ("sender", "@alice:under_score"),
        ("sender", f"@{'a' * 244}:one.example"),
        ("room_id", _ABSENT),
        ("room_id", 1),
        ("room_id", "room:one.example"),
        ("room_id", f"!{'a' * 244}:one.example"),
        ("content", _ABSENT),
        ("content", None),
        ("content", []),
        ("origin_server_ts", _ABSENT),
        ("origin_server_ts", "1"),
        ("origin_server_ts", 1.5),
        ("origin_server_ts", True),
        ("origin_server_ts", 2**63),
        ("depth", _ABSENT),
        ("depth", -1),
        ("depth", 1.0),
        ("depth", 2**63),
        ("hashes", _ABSENT),
        ("hashes", []),
        ("hashes", {}),
        ("hashes", {"sha256": 1}),
        ("signatures", _ABSENT),
        ("signatures", "x"),
        ("prev_events", _ABSENT),
        ("prev_events", {}),
        ("prev_events", [1]),
        ("prev_events", ["no-sigil"]),
        ("auth_events", _ABSENT),
        ("auth_events", [None]),
    ],
)
def test_a_field_that_is_absent_or_wrong_is_refused(version, field, value):
    with pytest.raises(EventRefused):
        check_format(ROOM_VERSIONS[version], message(version, **{field: value}))


@pytest.mark.parametrize("version", VERSIONS)
def test_lengths_are_counted_in_bytes_and_255_are_allowed(version):
    for field, value in (
        ("type", "x" * 255),
        ("state_key", "é" * 127),
        ("sender", f"@{'a' * 242}:one.example"),
        ("state_key", ""),
    ):
        check_format(ROOM_VERSIONS[version], message(version, **{field: value}))


@pytest.mark.parametrize("version", VERSIONS)
def test_at_most_20_previous_and_10_auth_events(version):
    rules = ROOM_VERSIONS[version]
    (reference,) = message(version)["prev_events"]
    check_format(rules, message(version, prev_events=[reference] * 20, auth_events=[reference] * 10))
    for field, count in (("prev_events", 21), ("auth_events", 11)):
        with pytest.raises(EventRefused):
            check_format(rules, message(version, **{field: [reference] * count}))


def test_the_kinds_of_references_are_not_mixed():
    for version in VERSIONS:
        other = "3" if int(version) <= 2 else "1"
        with pytest.raises(EventRefused):
            check_format(ROOM_VERSIONS[version], message(version, prev_events=message(other)["prev_events"]))


@pytest.mark.parametrize("event_id", [_ABSENT, 1, "", "no-sigil:one.example", "$" + "x" * 255])
def test_versions_1_and_2_need_an_event_id(event_id):
    for version in ("1", "2"):
        with pytest.raises(EventRefused):
            check_format(ROOM_VERSIONS[version], message(version, event_id=event_id))


def test_only_version_12_has_rooms_named_by_a_hash():
    named_by_hash = "!" + "a" * 43
    for version in VERSIONS:
        rules = ROOM_VERSIONS[version]
        right, wrong = ("!room:one.example", named_by_hash)
        if version == "12":
            right, wrong = wrong, right
        check_format(rules, message(version, room_id=right))
        with pytest.raises(EventRefused):
            check_format(rules, message(version, room_id=wrong))


def test_a_create_event_has_no_room_id_in_version_12():
    pdu = Room("12").create.pdu
    check_format(ROOM_VERSIONS["12"], pdu)
    with pytest.raises(EventRefused):
        check_format(ROOM_VERSIONS["12"], {**pdu, "room_id": "!" + "a" * 43})


@pytest.mark.parametrize("version", VERSIONS)
def test_floats_and_big_integers_are_for_versions_1_to_5(version):
    for value in (0.5, 2**53, -(2**53)):
        pdu = message(version, content={"deep": [{"value": value}]})
        if int(version) <= 5:
            check_format(ROOM_VERSIONS[version], pdu)
        else:
            with pytest.raises(EventRefused):
                check_format(ROOM_VERSIONS[version], pdu)


def test_the_greatest_depth_is_smaller_from_version_6_on():
    for version in VERSIONS:
        rules = ROOM_VERSIONS[version]
        limit = 2**63 - 1 if int(version) <= 5 else 2**53 - 1
        check_format(rules, message(version, depth=limit))
        with pytest.raises(EventRefused):
            check_format(rules, message(version, depth=limit + 1))


def test_a_room_at_the_greatest_depth_stays_there():
    for version, rules in ROOM_VERSIONS.items():
        limit = 2**63 - 1 if int(version) <= 5 else 2**53 - 1
        room = Room(version)
        room.join(ALICE).depth = limit
        event = room.send("m.room.message", ALICE, {})
        assert event.depth == limit
        check_format(rules, event.pdu)


@pytest.mark.parametrize("version", VERSIONS)
def test_clocks_that_stand_before_1970_are_no_reason_to_refuse(version):
    check_format(ROOM_VERSIONS[version], message(version, origin_server_ts=-1))


@pytest.mark.parametrize("version", VERSIONS)
def test_absurd_depth_of_json_is_refused(version):
    value: Any = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(EventRefused):
        check_format(ROOM_VERSIONS[version], message(version, content={"a": value}))


def test_an_event_has_at_most_65536_bytes():
    check_size(b"x" * 65_536)
    with pytest.raises(EventRefused) as refused:
        check_size(b"x" * 65_537)
    assert refused.value.too_large


def test_content_without_a_canonical_form_is_not_built():
    room = Room("12")
    with pytest.raises(EventRefused):
        room.send("m.room.message", ALICE, {"body": "\ud800"})


# -- hashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_content_hash_covers_all_but_hashes_signatures_and_unsigned_data(version):
    rules = ROOM_VERSIONS[version]
    pdu = message(version)
    assert has_right_content_hash(rules, {**pdu, "unsigned": {"age": 1}, "signatures": {}})
    for field, value in (("content", {"body": "bye"}), ("depth", 77), ("extra", 1)):
        assert not has_right_content_hash(rules, {**pdu, field: value})
    assert not has_right_content_hash(rules, {**pdu, "hashes": {}})


def test_a_content_hash_is_compared_by_its_bytes():
    pdu = message("11")
    sha256 = pdu["hashes"]["sha256"]
    assert has_right_content_hash(ROOM_VERSIONS["11"], {**pdu, "hashes": {"sha256": sha256 + "="}})
    for wrong in ("", "!", sha256[:-1], 5, None):
        assert not has_right_content_hash(ROOM_VERSIONS["11"], {**pdu, "hashes": {"sha256": wrong}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (100.0, "100.0"),
        (1e-7, "1e-07"),
        (1e16, "1e+16"),
        (1.5e300, "1.5e+300"),
        (2**60, "1152921504606846976"),
        (2**70, "1180591620717411303424"),
    ],
)
def test_old_versions_hash_numbers_as_the_specifications_code_writes_them(value, text):
    pdu = {"type": "X", "content": {"ü": value}}
    canonical = f'{{"content":{{"ü":{text}}},"type":"X"}}'.encode()
    assert canonical_json.encode_historical(pdu) == canonical
    event = build(
        ROOM_VERSIONS["5"],
        room_id=None,
        sender=ALICE,
        type="X",
        content={"n": value},
        origin_server_ts=1,
        depth=1,
        prev_events=[EventReference("$x")],
        auth_events=[],
        server_name="one.example",
        key=KEY,
    )
    assert text.encode() in event.json


# -- signatures --------------------------------------------------------------------------------------------


def test_the_senders_server_signs_an_event():
    for version in VERSIONS:
        room = Room(version)
        assert servers_that_sign(room.create) == {"one.example"}


def test_versions_1_and_2_want_a_signature_of_the_server_in_the_event_id():
    for version in VERSIONS:
        pdu = message(version)
        if int(version) <= 2:
            pdu["event_id"] = "$x:other.example"
        event = Event.from_json(ROOM_VERSIONS[version], pdu)
        assert servers_that_sign(event) == {"one.example", *(["other.example"] if int(version) <= 2 else [])}


def test_a_third_party_invite_may_be_signed_by_another_server():
    content = {"membership": "invite", "third_party_invite": {"signed": {}}}
    for version in ("1", "3", "12"):
        room = Room(version)
        room.join(ALICE)
        event = room.send("m.room.member", ALICE, content, state_key=BOB)
        assert servers_that_sign(event) == ({"one.example"} if version == "1" else set())


def test_whoever_authorises_a_join_signs_it_from_version_8_on():
    for version in VERSIONS:
        room = Room(version)
        event = room.send(
            "m.room.member",
            BOB,
            {"membership": "join", "join_authorised_via_users_server": ALICE},
            state_key=BOB,
        )
        both = {"two.example", "one.example"}
        assert servers_that_sign(event) == (both if int(version) >= 8 else {"two.example"})


def test_a_key_signs_only_as_long_as_it_is_valid_from_version_5_on():
    day = 24 * 60 * 60 * 1000
    now = 1_000 * day
    for version, rules in ROOM_VERSIONS.items():
        enforced = int(version) >= 5
        assert is_key_valid_at(rules, now, valid_until_ts=now, now=now)
        assert is_key_valid_at(rules, now + 1, valid_until_ts=now, now=now) != enforced
        # "Servers MUST use the lesser of `valid_until_ts` and 7 days into the future."
        assert is_key_valid_at(rules, now + 7 * day, valid_until_ts=now + 900 * day, now=now)
        assert is_key_valid_at(rules, now + 7 * day + 1, valid_until_ts=now + 900 * day, now=now) != enforced
