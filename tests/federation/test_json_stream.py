"""Big JSON objects, bit by bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation import json_stream
from federation.json_stream import NotJson, ObjectStream

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTS = ("state", "auth_chain")
MAX = 2_000


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    """So that every place is once the end of a piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_PIECE_BYTES", 1)
        yield


def read(data: bytes, step: int = 7) -> list[tuple[str, Any]]:
    stream = ObjectStream(LISTS, MAX)
    found = []
    for start in range(0, len(data), step):
        found += stream.feed(data[start : start + step])
    return found + stream.end()


@pytest.mark.parametrize("depth", range(1, 12))
@pytest.mark.parametrize("step", [1, 1_000])
def test_deep_elements_are_found(depth: int, step: int) -> None:
    element: Any = '}]{["'
    for level in range(depth):
        element = {'"}': element, "level": level} if level % 2 else [element, level]
    text = json.dumps({"state": [element, element], "auth_chain": [[element]]})
    assert read(text.encode(), step) == [("state", element), ("state", element), ("auth_chain", [element])]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=5)
    | st.sampled_from(['"}', "\\", "]"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=4) | st.sampled_from(["state_", "event"]), JSON, max_size=3),
    st.lists(JSON, max_size=5),
    st.lists(JSON, max_size=5),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_what_is_read_is_what_stands_there(
    others: dict[str, Any], state: list[Any], chain: list[Any], step: int, indent: int | None, escaped: bool
) -> None:
    value = {"state": state, **others, "auth_chain": chain}
    data = json.dumps(value, indent=indent, ensure_ascii=escaped).encode()
    expected = [
        member
        for name, item in value.items()
        for member in ([(name, element) for element in item] if name in LISTS else [(name, item)])
    ]
    assert read(data, step) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "[]",
            "1",
            "null",
            '"x"',
            "{",
            "}",
            "{}{}",
            "{}x",
            '{"a"}',
            '{"a":}',
            '{"a":1,}',
            "{,}",
            "{1:2}",
        ),
        *('{"a" 1}', '{"a":1 "b":2}', '{"state":{}}', '{"state":1}', '{"state":[1,]}', '{"state":[,1]}'),
        *(
            '{"state":[1 2]}',
            '{"state":[}',
            '{"state":[{]}',
            '{"state":["x]}',
            '{"a":"x}',
            '{"a":tru}',
            '{"a":NaN}',
        ),
        *(
            '{"a":[1,2}',
            '{"state":[{"a":[}]}',
            '{"a":1}}',
            '{"a":1,"a":2}',
            '{"state":[],"state":[]}',
            '{"a":01}',
        ),
        *(
            '{"a":"\\x"}',
            '{"a":"\n"}',
            "{'a':1}",
            '{"\\ud800":1}',
            '{"a":' + "[" * 3000 + "}",
            '{"a":' + "[" * 900,
        ),
        *('{"' + "n" * 5000 + '":1}', '{"a":"' + "x" * 5000 + '"}', '{"state":["' + "x" * 5000 + '"]}'),
        *('{"a":' + "1" * 5000 + "}", '{"state":[[' + "[]," * 2000 + "[]]]}", "{" + " " * 5000),
    ],
)
def test_what_is_not_an_object_of_that_form_is_refused(text: str) -> None:
    for step in (1, 3, 10_000):
        with pytest.raises(NotJson):
            read(text.encode(), step)


@given(st.binary(max_size=60), st.integers(1, 60))
def test_any_bytes_are_read_or_refused_as_a_parser_would(data: bytes, step: int) -> None:
    try:
        found = read(b'{"a":1,' + data, step)
    except NotJson:
        return
    assert found == [
        ("a", 1),
        *((name, item) for name, item in json.loads(b"{" + data).items() if name not in LISTS),
    ]


def test_only_what_is_not_complete_is_in_memory() -> None:
    stream = ObjectStream(LISTS, MAX)
    stream.feed(b'{"state":[')
    for _ in range(1000):
        assert stream.feed(b'{"x":"' + b"y" * 1000 + b'"},')
        assert stream.held_bytes < MAX


def test_too_many_names_are_refused() -> None:
    names = ",".join(f'"{number}":1' for number in range(2000))
    with pytest.raises(NotJson):
        read(f"{{{names}}}".encode())
