"""What can be wrong with an event."""

from __future__ import annotations


class EventRefused(Exception):
    """The bytes or fields are not an event of this room version; `too_large` where a size limit is passed."""

    def __init__(self, why: str, *, too_large: bool = False) -> None:
        super().__init__(why)
        self.too_large = too_large


class AuthRuleViolated(Exception):
    """An authorisation rule refuses the event: which rule of the room version's list, and why."""

    def __init__(self, rule: str, why: str) -> None:
        super().__init__(why)
        self.rule = rule
        self.why = why
