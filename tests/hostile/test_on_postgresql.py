"""A few of the attacks, on the other engine."""

from __future__ import annotations

import pytest

from tests.hostile.test_named_events import test_an_event_that_follows_one_of_another_room_changes_nothing
from tests.hostile.test_named_gaps import (
    rooms,
    test_a_flood_of_late_events_is_refused_one_by_one,
    test_what_was_not_asked_for_gets_no_place,
)
from tests.hostile.test_named_joins import test_a_state_with_two_events_for_one_key_is_none

__all__ = [
    "rooms",
    "test_a_flood_of_late_events_is_refused_one_by_one",
    "test_a_state_with_two_events_for_one_key_is_none",
    "test_an_event_that_follows_one_of_another_room_changes_nothing",
    "test_what_was_not_asked_for_gets_no_place",
]


@pytest.fixture
def engine() -> str:
    return "postgresql"
