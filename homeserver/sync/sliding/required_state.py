"""Which entries of the state of its rooms a client wants (MSC4186 `RequiredStateRequest`), as data.

Both dialects are read into this form: entries are wanted that one of the rules includes and does not exclude. Where
members are loaded lazily, no rule includes all of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.eventgraph.event import StateKey

MEMBER = "m.room.member"


class StatePattern(NamedTuple):
    """A type and a state key; None stands for any."""

    type: str | None
    state_key: str | None

    def matches(self, key: StateKey) -> bool:
        """Whether an entry of the state is one of these."""
        return self.type in (None, key[0]) and self.state_key in (None, key[1])


ALL_MEMBERS = StatePattern(MEMBER, None)


class StateRule(NamedTuple):
    """What one configuration asks for."""

    include: frozenset[StatePattern]
    exclude: frozenset[StatePattern] = frozenset()

    def matches(self, key: StateKey) -> bool:
        """Whether it asks for an entry of the state."""
        return _match(self.include, key) and not _match(self.exclude, key)


def _match(patterns: frozenset[StatePattern], key: StateKey) -> bool:
    event_type, state_key = key
    return bool(patterns) and any(
        StatePattern(*wanted) in patterns
        for wanted in ((event_type, state_key), (event_type, None), (None, state_key), (None, None))
    )


@dataclass(frozen=True)
class RequiredState:
    """The state that is wanted of a room, by all rules together."""

    rules: frozenset[StateRule] = frozenset()
    lazy_members: bool = False

    def matches(self, key: StateKey) -> bool:
        """Whether an entry of the state is wanted, whoever sent what."""
        return any(rule.matches(key) for rule in self.rules)

    def combined_with(self, other: RequiredState) -> RequiredState:
        """The superset of both (MSC4186 "Combining room configs")."""
        if self == other:
            return self
        rules = self.rules | other.rules
        lazy = (self.lazy_members or other.lazy_members) and not any(map(_has_all_members, rules))
        return RequiredState(rules, lazy)

    def covers(self, other: RequiredState) -> bool:
        """Whether all that the other asks for is certainly asked for here."""
        return other.rules <= self.rules and (self.lazy_members or not other.lazy_members)

    @cached_property
    def patterns(self) -> frozenset[StatePattern]:
        """What is included by any rule."""
        return frozenset[StatePattern]().union(*(rule.include for rule in self.rules))

    @cached_property
    def named(self) -> frozenset[StateKey]:
        """The entries that are included by their names."""
        return frozenset(
            (one.type, one.state_key)
            for one in self.patterns
            if one.type is not None and one.state_key is not None
        )

    @cached_property
    def packed(self) -> bytes:
        """The same for storage; equal ones are equal bytes."""
        rules = sorted(
            ((_sorted(rule.include), _sorted(rule.exclude)) for rule in self.rules),
            key=msgspec.msgpack.encode,
        )
        return msgspec.msgpack.encode((rules, self.lazy_members))

    @cached_property
    def number(self) -> int:
        """Stands for these rules in the memory of a connection."""
        return int.from_bytes(hashlib.blake2b(self.packed, digest_size=7).digest())


_Sorted = list[tuple[str | None, str | None]]


def _sorted(patterns: Iterable[StatePattern]) -> _Sorted:
    return sorted(((one.type, one.state_key) for one in patterns), key=msgspec.msgpack.encode)


def unpack(packed: bytes) -> RequiredState:
    """What `RequiredState.packed` was made of."""
    rules, lazy = msgspec.msgpack.decode(packed, type=tuple[list[tuple[_Sorted, _Sorted]], bool])
    return RequiredState(frozenset(StateRule(_patterns(one), _patterns(other)) for one, other in rules), lazy)


def _patterns(pairs: _Sorted) -> frozenset[StatePattern]:
    return frozenset(StatePattern(*pair) for pair in pairs)


def _has_all_members(rule: StateRule) -> bool:
    return not rule.exclude & {ALL_MEMBERS, StatePattern(None, None)} and bool(
        rule.include & {ALL_MEMBERS, StatePattern(None, None)}
    )


def rules_of(
    include: frozenset[StatePattern], exclude: frozenset[StatePattern], *, lazy_members: bool
) -> RequiredState:
    """One configuration. Loaded lazily, only those members are always wanted that are named one by one."""
    if not lazy_members:
        return RequiredState(frozenset({StateRule(include, exclude)}) if include else frozenset())
    named = frozenset(one for one in include if one.type in (MEMBER, None) and one.state_key is not None)
    others = include - named - {ALL_MEMBERS}
    rules = []
    if named:
        rules.append(StateRule(named, exclude))
    if others:
        may_be_members = any(one.type is None for one in others)
        rules.append(StateRule(others, exclude | {ALL_MEMBERS} if may_be_members else exclude))
    return RequiredState(frozenset(rules), lazy_members=True)
