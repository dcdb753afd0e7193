"""The grammar of server names."""

from __future__ import annotations

import pytest

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
