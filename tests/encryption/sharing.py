"""What the server has to tell of devices, worked out step by step: who was in which room, and whose devices changed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Sharing:
    """Every deed that changes something is a step; what was true after each is kept."""

    members: dict[str, set[str]] = field(default_factory=dict)
    """Room -> who is in it, now."""
    encrypted: set[str] = field(default_factory=set)
    steps: list[tuple[dict[str, frozenset[str]], frozenset[str], str | None]] = field(default_factory=list)

    @property
    def now(self) -> int:
        """The number of the last step."""
        return len(self.steps) - 1

    def step(self, changed: str | None = None) -> None:
        """Something has changed: memberships, encryption, or the devices of a user."""
        rooms = {room: frozenset(members) for room, members in self.members.items()}
        self.steps.append((rooms, frozenset(self.encrypted), changed))

    def neighbours(self, user: str, at: int, *, encrypted: bool = True) -> set[str]:
        """Those who were in a room with a user at a step, in an encrypted one or in any."""
        rooms, encrypted_rooms, _ = self.steps[at]
        return {
            other
            for room, members in rooms.items()
            if user in members and (room in encrypted_rooms or not encrypted)
            for other in members - {user}
        }

    def changes_since(self, start: int, user: str) -> int:
        """How often a user's devices have changed after a step, until now."""
        return sum(changed == user for _, _, changed in self.steps[start + 1 :])

    def told(self, user: str, start: int, end: int) -> dict[str, list[str]]:
        """`device_lists` for what came after a step, up to another one."""
        shared = [self.neighbours(user, at) for at in range(start, end + 1)]
        if len(shared) < 2:
            return {"changed": [], "left": []}
        sometime, always = set().union(*shared), set.intersection(*shared)
        left = sometime - shared[-1]
        seen = self.neighbours(user, end, encrypted=False) | {user}
        changed = {changed for _, _, changed in self.steps[start + 1 : end + 1] if changed in seen}
        return {"changed": sorted((changed | shared[-1] - always) - left), "left": sorted(left)}
