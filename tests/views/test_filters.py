from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from homeserver.views.filters import EventFilter, RoomFilter

names = st.text("ab.*", max_size=6)


def matches(name: str, text: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in name.split("*")), text) is not None


@given(name=names, text=st.text("ab.", max_size=8))
def test_a_star_stands_for_any_text(name: str, text: str) -> None:
    assert EventFilter(types=[name]).allows_type(text) == matches(name, text)
    assert EventFilter(not_types=[name]).allows_type(text) != matches(name, text)


@given(
    wanted=st.lists(names, max_size=3), unwanted=st.lists(names, max_size=3), text=st.text("ab.", max_size=4)
)
def test_what_is_unwanted_wins(wanted: list[str], unwanted: list[str], text: str) -> None:
    expected = any(matches(name, text) for name in wanted) and not any(
        matches(name, text) for name in unwanted
    )
    assert EventFilter(types=wanted, not_types=unwanted).allows_type(text) == expected


def test_an_empty_list_lets_nothing_pass_and_an_absent_one_everything() -> None:
    assert EventFilter().allows_type("a")
    assert EventFilter().allows_sender("@a:b")
    assert RoomFilter().allows_room("!a:b")
    assert not EventFilter(types=[]).allows_type("a")
    assert not EventFilter(senders=[]).allows_sender("@a:b")
    assert not RoomFilter(rooms=[]).allows_room("!a:b")
    assert not EventFilter(senders=["@a:b"], not_senders=["@a:b"]).allows_sender("@a:b")


def test_no_pattern_takes_long() -> None:
    """With backtracking this would not end."""
    hard = EventFilter(types=["*a" * 100 + "b"])
    assert not hard.allows_type("a" * 255)
