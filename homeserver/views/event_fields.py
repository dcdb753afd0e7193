"""The `event_fields` of a filter: which fields of events a client wants (CS "Filtering")."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def select_fields(event: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """A copy of an event with only these fields; each is a path such as `content.body`.

    "A literal '.' or '\\' character in a field name may be escaped using a '\\'."
    """
    selected: dict[str, Any] = {}
    for field in fields:
        path = _path(field)
        source: Any = event
        for name in path:
            if not isinstance(source, dict) or name not in source:
                break
            source = source[name]
        else:
            target = selected
            for name in path[:-1]:
                # A field may be wanted whole and in part.
                inner = target.setdefault(name, {})
                if not isinstance(inner, dict):
                    break
                target = inner
            else:
                target[path[-1]] = source
    return selected


@lru_cache(maxsize=1024)
def _path(field: str) -> tuple[str, ...]:
    names = [""]
    escaped = False
    for character in field:
        if escaped or character not in ".\\":
            names[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            names.append("")
    return tuple(names)
