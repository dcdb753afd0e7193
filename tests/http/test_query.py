"""What stands in a query string, and what may not."""

from __future__ import annotations

import pytest

from homeserver.errors import InvalidParam
from homeserver.http.request import Query


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"a=plain", "plain"),
        (b"a=two+words%2Bplus", "two words+plus"),
        (b"a=%7B%22limit%22%3A20%7D", '{"limit":20}'),
        (b"a=%C3%A4&b=1", "ä"),
        (b"b=1&&a", ""),
        (b"a=x=y&a=second", "x=y"),
        (b"%61=by+another+name", "by another name"),
        (b"a=%zz", "%zz"),
        (b"a=" + b"%20" * 2_000, " " * 2_000),
    ],
)
def test_a_value_is_decoded(raw: bytes, value: str) -> None:
    query = Query(raw)
    assert query.get("a") == value
    assert query.get("c") is None


def test_a_parameter_may_stand_there_several_times() -> None:
    assert Query(b"via=one&via=two").get_all("via") == ["one", "two"]


@pytest.mark.parametrize(
    "raw",
    [
        b"a=%FF",
        b"a=%ED%A0%80",
        b"%FF=a",
        b"a=\xc3\xa4",
        b"a=%20\xc3\xa4",
        b"a=%00",
        b"&".join([b"a=1"] * 201),
    ],
)
def test_what_is_no_query_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidParam):
        Query(raw)
