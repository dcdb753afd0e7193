"""The grammar of server names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from federation.discovery import place_of
from federation.server_names import is_server_name, parse_server_name


@pytest.mark.parametrize(
    "name",
    [
        "matrix.org",
        "matrix.org:8888",
        "1.2.3.4",
        "1.2.3.4:1234",
        "[1234:5678::abcd]",
        "[1234:5678::abcd]:5678",
        "localhost",
    ],
)
def test_the_specifications_examples_are_server_names(name):
    assert is_server_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "host:", "host:99999", "host:1:2", "[::1", "[zz]", "[::1]x", "a/b", "ü.org", "a" * 231],
)
def test_what_is_not_a_server_name_is_refused(name):
    assert not is_server_name(name)


def test_the_parts_are_told_apart():
    parsed = parse_server_name("[::1]:8448")
    assert parsed is not None
    assert (parsed.host, parsed.port, parsed.is_ip_literal) == ("::1", 8448, True)


CHARACTERS = st.sampled_from(
    [*"aZ09.-:[]@/%#?\\ _\r\n\x00ü", "1.2.3.4", "::1", ":8448", "example", "xn--", "0x7f"]
)


@given(st.lists(CHARACTERS, max_size=12).map("".join))
def test_what_is_taken_for_a_server_name_leads_a_url_nowhere_else(name: str) -> None:
    parsed = parse_server_name(name)
    if parsed is None:
        return
    place = place_of(parsed)
    url = URL(f"https://{place.authority}/path?a=b", encoded=True)
    assert (url.raw_host or "").lower() == parsed.host.lower() == place.tls_name.lower()
    assert url.port == place.port == (8448 if parsed.port is None else parsed.port)
    assert (url.user, url.raw_path_qs) == (None, "/path?a=b")
    assert parse_server_name(place.host_header) == parsed
