"""Changes to what is valid: other types, missing and added fields, absurd sizes, depths and numbers, names of others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random


def nested(depth: int) -> Any:
    """An absurdly deep list."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


GARBAGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 1.5, -0.0, 1e300, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1),
    *(
        -(2**53),
        -(2**63),
        "",
        "x",
        "\x00",
        "a\x00b",
        "x" * 255,
        "x" * 256,
        "x" * 5_000,
        "\U0001d518" * 64,
        "\u202e",
        "\ufffe",
    ),
    *(
        "@",
        "!",
        "$",
        "#",
        ":",
        "@:",
        "@x:",
        "@a:b:c",
        "@" + "x" * 300 + ":evil.example",
        "[::1]",
        "*",
        "..",
        "/",
    ),
    *([], {}, [[]], [None], [{}], {"": {}}, {"a": {"b": {}}}, {"\x00": 1}, [1, "x", None], {"x": "y"}),
    *(["x"] * 100, [0] * 1_000, {str(n): n for n in range(300)}, nested(150), nested(300)),
)
WORDS = (
    *(
        "join",
        "leave",
        "invite",
        "ban",
        "knock",
        "public",
        "restricted",
        "knock_restricted",
        "private",
        "joined",
    ),
    *("world_readable", "shared", "can_join", "m.room.create", "m.room.member", "m.thread", "m.replace"),
    *(
        "m.annotation",
        "m.reference",
        "org.matrix.msc",
        "m.room_membership",
        "m.space",
        "mxc://evil.example/x",
        "1",
    ),
    *("12", "online", "m.read", "ed25519:1", "main", "m.megolm.v1.aes-sha2", "👍"),
)


def mutated(chance: Random, value: Any, words: Sequence[Any] = ()) -> Any:
    """A copy with one change in one place; `words` are names that mean something there."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return garbage(chance, words)
    inside, name = chance.choice(places)
    deed = chance.random()
    if deed < 0.15:
        if isinstance(inside, dict):
            del inside[name]
        else:
            inside.pop(name)
    elif deed < 0.25:
        other, other_name = chance.choice(places)
        inside[name] = copy.deepcopy(other[other_name])
    elif deed < 0.35:
        if isinstance(inside, dict):
            inside[chance.choice((*WORDS, "content", "type", "state_key", "unsigned", "x" * 300))] = garbage(
                chance, words
            )
        else:
            inside += [garbage(chance, words) for _ in range(chance.choice((1, 2, 20, 50)))]
    elif deed < 0.42:
        inside[name] = [copy.deepcopy(inside[name])]
    elif deed < 0.5 and isinstance(inside[name], str):
        inside[name] = _mutated_text(chance, inside[name])
    else:
        inside[name] = garbage(chance, words)
    return value


def garbage(chance: Random, words: Sequence[Any] = ()) -> Any:
    """A value that belongs nowhere, or elsewhere."""
    kind = chance.random()
    if words and kind < 0.4:
        return chance.choice(words)
    return copy.deepcopy(chance.choice(WORDS if kind < 0.55 else GARBAGE))


def _mutated_text(chance: Random, text: str) -> str:
    where = chance.randrange(len(text) + 1)
    return chance.choice(
        (
            text[:where],
            text[where:],
            text[:where] + chance.choice("\x00:@ \n\u202eé$!") + text[where:],
            text.upper(),
            text * 2,
            text + "x" * 255,
        )
    )


def _places(value: Any) -> Any:
    """All places in a value, as what they are in and where there."""
    ahead = [value]
    while ahead:
        inside = ahead.pop()
        if isinstance(inside, dict):
            named = list(inside.items())
        elif isinstance(inside, list):
            named = list(enumerate(inside))
        else:
            continue
        for name, child in named:
            yield inside, name
            ahead.append(child)
