"""Room history visibility as a rule: setting and membership at the event decide."""

from __future__ import annotations

import pytest

from homeserver.eventgraph.visibility import history_visibility_in, may_see
from tests.eventgraph.rooms import ALICE, Room


@pytest.mark.parametrize("membership", ["join", "invite", "knock", "leave", "ban"])
@pytest.mark.parametrize("joins_later", [False, True])
@pytest.mark.parametrize("visibility", ["world_readable", "shared", "invited", "joined"])
def test_setting_and_membership_at_the_event_decide(visibility, membership, joins_later):
    seen = may_see([visibility], [membership], joins_later=joins_later)
    assert seen == (
        visibility == "world_readable"
        or membership == "join"
        or (visibility == "shared" and joins_later)
        or (visibility == "invited" and membership == "invite")
    )


@pytest.mark.parametrize("visibility", ["shared", "invited", "joined"])
def test_a_change_from_or_to_world_readable_is_seen_by_everybody(visibility):
    for change in ([visibility, "world_readable"], ["world_readable", visibility]):
        assert may_see(change, ["leave"], joins_later=False)


def test_of_ones_own_membership_the_more_open_side_counts():
    assert may_see(["joined"], ["join", "ban"], joins_later=False)
    assert may_see(["invited"], ["invite", "leave"], joins_later=False)
    assert not may_see(["joined"], ["invite", "leave"], joins_later=False)


@pytest.mark.parametrize("value", ["everyone", "", None, 1, ["joined"], {}])
def test_what_is_not_understood_is_shared(value):
    room = Room("12")
    room.join(ALICE)
    event = room.send("m.room.history_visibility", ALICE, {"history_visibility": value}, state_key="")
    assert history_visibility_in(event.content) == "shared"
    assert history_visibility_in(None) == "shared"
    for known in ("invited", "joined", "shared", "world_readable"):
        event = room.send("m.room.history_visibility", ALICE, {"history_visibility": known}, state_key="")
        assert history_visibility_in(event.content) == known
