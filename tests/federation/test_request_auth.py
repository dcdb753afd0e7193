"""Signed requests: what was signed is accepted, everything else is not, and any header is read or refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import canonical_json
from crypto.keys import generate, key_from_seed
from federation.request_auth import (
    NO_CONTENT,
    BadAuthorization,
    parse_authorization,
    sign_request,
    verify_canonical_request,
    verify_request,
)

KEY = key_from_seed("a_key", b"k" * 32)
OTHER = generate("a_key")
REQUEST = ("PUT", "/_matrix/federation/v1/send/1?x=%20y", {"pdus": [], "n": {"ü": 1}})


def signed(method: str = REQUEST[0], target: str = REQUEST[1], content: Any = REQUEST[2]) -> str:
    return sign_request(KEY, "origin.example", "here.example:8448", method, target, content)


def test_a_signed_request_is_accepted() -> None:
    authorization = parse_authorization(signed())
    assert (authorization.origin, authorization.key_id) == ("origin.example", "ed25519:a_key")
    assert verify_request(authorization, KEY.private.verify_key, "here.example:8448", *REQUEST)


@pytest.mark.parametrize(
    ("method", "target", "content"),
    [
        ("POST", REQUEST[1], REQUEST[2]),
        ("PUT", REQUEST[1] + "&a=b", REQUEST[2]),
        ("PUT", REQUEST[1].replace("%20", "+"), REQUEST[2]),
        ("PUT", REQUEST[1], {**REQUEST[2], "pdus": [{}]}),
        ("PUT", REQUEST[1], {}),
        ("PUT", REQUEST[1], None),
        ("PUT", REQUEST[1], NO_CONTENT),
    ],
)
def test_a_signature_holds_for_just_this_request(method: str, target: str, content: Any) -> None:
    authorization = parse_authorization(signed())
    assert not verify_request(
        authorization, KEY.private.verify_key, "here.example:8448", method, target, content
    )


def test_a_body_in_the_form_that_is_signed_need_not_be_read() -> None:
    authorization = parse_authorization(signed())
    body = canonical_json.encode(REQUEST[2])
    key, here = KEY.private.verify_key, "here.example:8448"
    assert verify_canonical_request(authorization, key, here, *REQUEST[:2], body)
    for wrong in (body + b" ", body[:-1], b"", b"{}", body + b',"destination":"here.example:8448"'):
        assert not verify_canonical_request(authorization, key, here, *REQUEST[:2], wrong)
    assert not verify_canonical_request(authorization, key, here, "POST", REQUEST[1], body)
    assert not verify_canonical_request(authorization, key, here, "PUT", REQUEST[1] + "&", body)
    assert not verify_canonical_request(authorization, key, "here.example", *REQUEST[:2], body)
    assert not verify_canonical_request(authorization, OTHER.private.verify_key, here, *REQUEST[:2], body)


def test_a_signature_holds_for_just_this_destination_and_key() -> None:
    authorization = parse_authorization(signed())
    assert not verify_request(authorization, KEY.private.verify_key, "here.example", *REQUEST)
    assert not verify_request(authorization, OTHER.private.verify_key, "here.example:8448", *REQUEST)


def test_a_header_without_destination_is_accepted_but_not_for_another_server() -> None:
    header = signed().replace('destination="here.example:8448",', "")
    authorization = parse_authorization(header)
    assert authorization.destination is None
    assert verify_request(authorization, KEY.private.verify_key, "here.example:8448", *REQUEST)
    assert not verify_request(authorization, KEY.private.verify_key, "elsewhere.example", *REQUEST)


def test_a_request_whose_origin_was_exchanged_is_refused() -> None:
    authorization = parse_authorization(signed().replace("origin.example", "victim.example"))
    assert not verify_request(authorization, KEY.private.verify_key, "here.example:8448", *REQUEST)


def test_numbers_of_old_room_versions_can_be_signed() -> None:
    content = {"pdus": [{"content": {"n": 1.5, "big": 2**70, "e": 1e100}}]}
    authorization = parse_authorization(signed(content=content))
    assert verify_request(
        authorization, KEY.private.verify_key, "here.example:8448", REQUEST[0], REQUEST[1], content
    )


FIELDS = 'origin="o.example",destination="d.example",key="ed25519:k",sig="abc+/="'


@pytest.mark.parametrize(
    "header",
    [
        f"X-Matrix {FIELDS}",
        f"x-matrix   {FIELDS}",
        'X-Matrix origin=o.example,destination=d.example,key=ed25519:k,sig="abc+/="',
        'X-Matrix sig="abc+/=" , key="ed25519:k"\t,\tdestination="d.example",origin="o.example"',
        'X-Matrix ORIGIN="o.example",Destination="d.example",Key="ed25519:k",SIG="abc+/="',
        r'X-Matrix origin="o\.exam\ple",destination="d.example",key="ed25519\:k",sig="abc+/="',
        f'X-Matrix {FIELDS},unknown="x, y=\\"z\\"",other=1',
        f"X-Matrix , ,{FIELDS},, ",
        'X-Matrix origin = "o.example",destination= d.example,key ="ed25519:k",sig="abc+/="',
    ],
)
def test_headers_of_the_grammar_are_read(header: str) -> None:
    found = parse_authorization(header)
    assert (found.origin, found.destination, found.key_id, found.signature) == (
        "o.example",
        "d.example",
        "ed25519:k",
        "abc+/=",
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "X-Matrix ",
        f"X-Matrix{FIELDS}",
        "Bearer abc",
        f"Bearer {FIELDS}",
        'X-Matrix key="k",sig="s"',
        'X-Matrix origin="o.example",sig="s"',
        'X-Matrix origin="o.example",key="k"',
        'X-Matrix origin="",key="k",sig="s"',
        'X-Matrix origin="not a name",key="k",sig="s"',
        f'X-Matrix {FIELDS},origin="other.example"',
        f"X-Matrix {FIELDS} x=y",
        f"X-Matrix {FIELDS},x",
        f'X-Matrix {FIELDS},x="',
        f"X-Matrix {FIELDS},x=",
        f'X-Matrix {FIELDS},x="\x00"',
        f"X-Matrix {FIELDS},x=/",
        f"X-Matrix {FIELDS};x=y",
        f'X-Matrix {FIELDS},x="{"y" * 5000}"',
    ],
)
def test_other_headers_are_refused(header: str) -> None:
    with pytest.raises(BadAuthorization):
        parse_authorization(header)


TOKENS = st.text("!#$%&'*+-.^_`|~0aZ:", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)


def quoted(value: str, chance: list[bool]) -> str:
    escaped = "".join(
        f"\\{character}" if character in '"\\' or (chance and chance.pop()) else character
        for character in value
    )
    return f'"{escaped}"'


@given(
    st.permutations(["origin", "destination", "key", "sig", "x-unknown"]),
    VALUES.filter(bool),
    TOKENS,
    VALUES.filter(bool),
    st.lists(st.booleans(), max_size=40),
    st.lists(st.sampled_from([",", " ,", ",\t", " , , "]), min_size=5, max_size=5),
)
def test_whatever_the_grammar_can_write_is_read(
    order: list[str], key: str, token: str, signature: str, chance: list[bool], commas: list[str]
) -> None:
    written = {
        "origin": "o.example:1",
        "destination": '"d.example"',
        "key": quoted(key, chance),
        "sig": quoted(signature, chance),
        "x-unknown": token,
    }
    header = "X-Matrix " + "".join(
        f"{name}={written[name]}{comma}" for name, comma in zip(order, commas, strict=True)
    )
    found = parse_authorization(header)
    assert (found.origin, found.destination, found.key_id, found.signature) == (
        "o.example:1",
        "d.example",
        key,
        signature,
    )


@given(st.text(max_size=200), st.sampled_from(["", "X-Matrix ", f"X-Matrix {FIELDS}"]))
def test_any_text_is_read_or_refused(text: str, before: str) -> None:
    with contextlib.suppress(BadAuthorization):
        assert parse_authorization(before + text).origin


def test_a_header_that_is_hard_to_read_is_read_quickly() -> None:
    for text in ('x="' + "\\a" * 2000, "a=" * 2000, "," * 4000, " \t" * 2000, 'a="b",' * 700):
        with pytest.raises(BadAuthorization):
            parse_authorization(f"X-Matrix {text}")
