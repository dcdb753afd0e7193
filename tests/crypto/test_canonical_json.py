"""Canonical JSON: the examples of the specification, and what has no canonical form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import canonical_json
from crypto.errors import CanonicalJsonError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children)
    ),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        ({}, "{}"),
        ({"one": 1, "two": "Two"}, '{"one":1,"two":"Two"}'),
        ({"b": "2", "a": "1"}, '{"a":"1","b":"2"}'),
        (
            {"auth": {"success": True, "mxid": "@john.doe:example.com"}},
            '{"auth":{"mxid":"@john.doe:example.com","success":true}}',
        ),
        ({"a": "日本語"}, '{"a":"日本語"}'),
        ({"本": 2, "日": 1}, '{"日":1,"本":2}'),
        ({"a": "\u65e5"}, '{"a":"日"}'),
        ({"a": None}, '{"a":null}'),
    ],
)
def test_the_specifications_examples(value, canonical):
    assert canonical_json.encode(value) == canonical.encode()


@given(JSON)
def test_it_is_the_shortest_form_with_keys_by_code_point(value):
    slow = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    assert canonical_json.encode(value) == slow.replace(b"\x7f", b"\x7f")
    assert json.loads(canonical_json.encode(value)) == value


@pytest.mark.parametrize("value", [1.0, 2**53, -(2**53), {1: 2}, {"a": "\ud800"}, {"a": b"x"}])
def test_what_has_no_canonical_form_is_refused(value):
    with pytest.raises(CanonicalJsonError):
        canonical_json.encode(value)


def test_absurd_depth_is_refused():
    value: object = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CanonicalJsonError):
        canonical_json.encode(value)
