"""Rule 5 of the authorisation rules: `m.room.member`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.eventgraph.errors import AuthRuleViolated
from homeserver.eventgraph.power_levels import creator_of
from homeserver.eventgraph.third_party_invites import keys_that_signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.power_levels import PowerLevels


def check_member(event: Event, create: Event, state: Mapping[StateKey, Event], levels: PowerLevels) -> None:
    """Whether a change of membership is allowed; raises `AuthRuleViolated`.

    The signature that a restricted join needs (rule 5.2.1) is checked where signatures are checked.
    """
    membership = event.content.get("membership")
    if event.state_key is None or not isinstance(membership, str):
        raise AuthRuleViolated("5.1", "a member event has a state key and a membership")
    if ":" not in event.state_key:
        # Not among the rules, but no implementation takes one that names nobody's server.
        raise AuthRuleViolated("5.1", "the state key of a member event is a user id")
    if membership == "join":
        _check_join(event, create, state, levels)
    elif membership == "invite":
        _check_invite(event, state, levels)
    elif membership == "leave":
        _check_leave(event, state, levels)
    elif membership == "ban":
        _check_ban(event, state, levels)
    elif membership == "knock" and event.version.has_knock:
        _check_knock(event, state)
    else:
        raise AuthRuleViolated("5.8", f"unknown membership {membership!r}")


def membership_of(state: Mapping[StateKey, Event], user_id: str) -> str:
    """The membership of a user in a state; `leave` where there is none."""
    member = state.get(("m.room.member", user_id))
    membership = member.content.get("membership") if member is not None else None
    return membership if isinstance(membership, str) else "leave"


def join_rule_of(state: Mapping[StateKey, Event]) -> Any:
    """The join rule of a state; `invite` where there is none."""
    rules = state.get(("m.room.join_rules", ""))
    return rules.content.get("join_rule", "invite") if rules is not None else "invite"


def _check_join(event: Event, create: Event, state: Mapping[StateKey, Event], levels: PowerLevels) -> None:
    if event.prev_event_ids == (create.event_id,) and event.state_key == creator_of(create):
        return
    if event.sender != event.state_key:
        raise AuthRuleViolated("5.3.2", "nobody can join for somebody else")
    membership = membership_of(state, event.sender)
    if membership == "ban":
        raise AuthRuleViolated("5.3.3", "you are banned from this room")
    rule = join_rule_of(state)
    version = event.version
    if rule == "public":
        return
    if rule == "invite" or (rule == "knock" and version.has_knock):
        if membership in ("invite", "join"):
            return
        raise AuthRuleViolated("5.3.4", "you are not invited to this room")
    if (rule == "restricted" and version.has_restricted_join) or (
        rule == "knock_restricted" and version.has_knock_restricted_join
    ):
        if membership in ("invite", "join"):
            return
        authoriser = event.content.get("join_authorised_via_users_server")
        if not isinstance(authoriser, str) or membership_of(state, authoriser) != "join":
            raise AuthRuleViolated("5.3.5", "nobody in the room has authorised this join")
        if levels.user_level(authoriser) < levels.required_for("invite"):
            raise AuthRuleViolated("5.3.5", "the one who authorised this join may not invite")
        return
    raise AuthRuleViolated("5.3.7", "the join rule of this room lets nobody join")


def _check_invite(event: Event, state: Mapping[StateKey, Event], levels: PowerLevels) -> None:
    target = membership_of(state, event.state_key or "")
    if "third_party_invite" in event.content:
        _check_third_party_invite(event, state, target)
        return
    if membership_of(state, event.sender) != "join":
        raise AuthRuleViolated("5.4.2", f"{event.sender} is not in the room")
    if target in ("join", "ban"):
        raise AuthRuleViolated(
            "5.4.3", f"{event.state_key} is {'banned from' if target == 'ban' else 'already in'} the room"
        )
    if levels.user_level(event.sender) < levels.required_for("invite"):
        raise AuthRuleViolated("5.4.5", "your power level does not let you invite")


def _check_third_party_invite(event: Event, state: Mapping[StateKey, Event], target: str) -> None:
    if target == "ban":
        raise AuthRuleViolated("5.4.1.1", f"{event.state_key} is banned from the room")
    invite = event.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise AuthRuleViolated("5.4.1.2", "the third-party invite is not signed")
    mxid, token = signed.get("mxid"), signed.get("token")
    if not isinstance(mxid, str) or not isinstance(token, str):
        raise AuthRuleViolated("5.4.1.3", "the third-party invite names no user or no token")
    if mxid != event.state_key:
        raise AuthRuleViolated("5.4.1.4", "the third-party invite is for somebody else")
    source = state.get(("m.room.third_party_invite", token))
    if source is None:
        raise AuthRuleViolated("5.4.1.5", "there is no such third-party invite in the room")
    if source.sender != event.sender:
        raise AuthRuleViolated("5.4.1.6", "the third-party invite was made by somebody else")
    # "If any signature in `signed` matches any public key in the `m.room.third_party_invite` event, allow."
    if next(keys_that_signed(event.version, signed, source.content), None) is None:
        raise AuthRuleViolated("5.4.1.8", "the third-party invite carries no signature that matches")


def _check_leave(event: Event, state: Mapping[StateKey, Event], levels: PowerLevels) -> None:
    sender_membership = membership_of(state, event.sender)
    if event.sender == event.state_key:
        allowed = ("invite", "join", "knock") if event.version.has_knock else ("invite", "join")
        if sender_membership not in allowed:
            raise AuthRuleViolated("5.5.1", "you are not in this room")
        return
    if sender_membership != "join":
        raise AuthRuleViolated("5.5.2", f"{event.sender} is not in the room")
    target = event.state_key or ""
    sender_level = levels.user_level(event.sender)
    if membership_of(state, target) == "ban" and sender_level < levels.required_for("ban"):
        raise AuthRuleViolated("5.5.3", "your power level does not let you unban")
    if sender_level < levels.required_for("kick") or levels.user_level(target) >= sender_level:
        raise AuthRuleViolated("5.5.5", f"your power level does not let you remove {target}")


def _check_ban(event: Event, state: Mapping[StateKey, Event], levels: PowerLevels) -> None:
    if membership_of(state, event.sender) != "join":
        raise AuthRuleViolated("5.6.1", f"{event.sender} is not in the room")
    target = event.state_key or ""
    sender_level = levels.user_level(event.sender)
    if sender_level < levels.required_for("ban") or levels.user_level(target) >= sender_level:
        raise AuthRuleViolated("5.6.3", f"your power level does not let you ban {target}")


def _check_knock(event: Event, state: Mapping[StateKey, Event]) -> None:
    rule = join_rule_of(state)
    if rule != "knock" and not (rule == "knock_restricted" and event.version.has_knock_restricted_join):
        raise AuthRuleViolated("5.7.1", "the join rule of this room lets nobody knock")
    if event.sender != event.state_key:
        raise AuthRuleViolated("5.7.2", "nobody can knock for somebody else")
    if membership_of(state, event.sender) in ("ban", "invite", "join"):
        raise AuthRuleViolated("5.7.4", "you are banned, invited or already in the room")
