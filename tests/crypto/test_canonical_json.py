"""Canonical JSON: the examples of the specification, and what has no canonical form."""

from __future__ import annotations

import json

import orjson
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
    ("text", "canonical"),
    [
        ("{}", "{}"),
        ('{ "one": 1, "two": "Two" }', '{"one":1,"two":"Two"}'),
        ('{ "b": "2", "a": "1" }', '{"a":"1","b":"2"}'),
        ('{"b":"2","a":"1"}', '{"a":"1","b":"2"}'),
        (
            """{
                "auth": {
                    "success": true,
                    "mxid": "@john.doe:example.com",
                    "profile": {
                        "display_name": "John Doe",
                        "three_pids": [
                            {"medium": "email", "address": "john.doe@example.org"},
                            {"medium": "msisdn", "address": "123456789"}
                        ]
                    }
                }
            }""",
            (
                '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":'
                '[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},'
                '"success":true}}'
            ),
        ),
        ('{"a": "日本語"}', '{"a":"日本語"}'),
        ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
        (r'{"a": "\u65E5"}', '{"a":"日"}'),
        ('{"a": null}', '{"a":null}'),
        # Not among the examples: what else the text says.
        ('{"a": -0}', '{"a":0}'),
        (r'{"\u0000\u001f\u007f\b\t\n\f\r\"\\\/": 1}', '{"\\u0000\\u001f\x7f\\b\\t\\n\\f\\r\\"\\\\/":1}'),
        ('{"\N{PILE OF POO}": 1, "\uffff": 2}', '{"\uffff":2,"\N{PILE OF POO}":1}'),
        ('{"a": 9007199254740991, "b": -9007199254740991}', '{"a":9007199254740991,"b":-9007199254740991}'),
    ],
)
def test_the_specifications_examples(text, canonical):
    assert canonical_json.encode(orjson.loads(text)) == canonical.encode()
    assert canonical_json.encode_historical(orjson.loads(text)) == canonical.encode()


@pytest.mark.parametrize("text", ['{"b": 1e10}', '{"b": 1.0}', '{"b": 9007199254740992}', "[1.5]"])
def test_numbers_with_fractions_or_exponents_or_out_of_range_have_no_canonical_form(text):
    with pytest.raises(CanonicalJsonError):
        canonical_json.encode(orjson.loads(text))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 0.5}, {"a": "\ud800", "b": 0.5}, b"x"])
def test_the_historical_form_takes_any_number_but_nothing_else(value):
    with pytest.raises(CanonicalJsonError):
        canonical_json.encode_historical(value)


@given(JSON)
def test_it_is_the_shortest_form_with_keys_by_code_point(value):
    slow = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    assert canonical_json.encode(value) == slow
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
