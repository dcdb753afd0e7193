"""What came of a room, kept as pieces, is the same as a time for each position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homeserver.storage.room_arrivals import Arrivals, Piece

MINUTE_MS = 60_000
_END = 40

stretches = st.tuples(st.integers(0, _END), st.integers(0, _END)).map(sorted)


@given(st.lists(stretches, max_size=15))
def test_each_position_has_the_time_at_which_it_came_first(came: list[list[int]]) -> None:
    arrivals = Arrivals()
    times: dict[int, int] = {}
    for number, (after, upto) in enumerate(came, 1):
        ts = number * MINUTE_MS
        positions = set(range(after + 1, upto + 1))
        parts = arrivals.add(after, upto, ts)
        new = [position for begin, end in parts for position in range(begin + 1, end + 1)]
        assert sorted(new) == sorted(positions - times.keys())
        times |= dict.fromkeys(new, ts)
    assert {at: arrivals.when(at) for at in range(-1, _END + 2)} == {
        at: times.get(at) for at in range(-1, _END + 2)
    }
    ends = [number for piece in arrivals.pieces for number in piece[:2]]
    assert ends == sorted(ends)


def test_what_came_at_the_same_time_is_one_piece() -> None:
    arrivals = Arrivals()
    arrivals.add(10, 20, MINUTE_MS)
    arrivals.add(0, 5, MINUTE_MS)
    arrivals.add(0, 30, MINUTE_MS)
    assert arrivals.pieces == [Piece(0, 30, MINUTE_MS)]


def test_times_of_long_ago_are_kept_about_right_in_few_pieces() -> None:
    arrivals = Arrivals()
    for minute in range(1, 3_001):
        arrivals.add(0, minute, minute * MINUTE_MS)
    assert len(arrivals.pieces) == 32
    for position in (1, 10, 1_000, 2_000, 2_900, 2_990, 3_000):
        told = arrivals.when(position)
        assert told is not None
        age = (3_000 - position) * MINUTE_MS
        assert 0 <= told - position * MINUTE_MS <= age * 2 / 3
    assert arrivals.when(3_001) is None


def test_history_that_is_paged_back_through_stays_known() -> None:
    arrivals = Arrivals()
    for page in range(100):
        arrivals.add(1_000 - 10 * page - 10, 1_000 - 10 * page, page * MINUTE_MS)
    assert len(arrivals.pieces) <= 32
    assert arrivals.missing(0, 1_000) == []


def test_of_too_many_gaps_the_oldest_are_given_up_and_nothing_is_made_up() -> None:
    arrivals = Arrivals()
    for number in range(100):
        arrivals.add(10 * number, 10 * number + 5, number * MINUTE_MS)
    assert len(arrivals.pieces) == 32
    assert arrivals.when(3) is None
    assert arrivals.when(993) == 99 * MINUTE_MS
    assert arrivals.when(998) is None
