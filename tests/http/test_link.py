"""How good a client's link is, by its hints, by its own word, by what was measured; hints may lie."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.errors import InvalidParam
from homeserver.http.body_budget import BodyBudget
from homeserver.http.link import RATE, Measured, budget_bytes
from homeserver.http.request import Request
from homeserver.http.routing import Route


async def nothing(request: Request) -> Any:
    raise NotImplementedError


def asked(query: str = "", rate: float | None = None, **headers: str) -> int | None:
    scope: Any = {
        "type": "http",
        "query_string": query.encode(),
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()
        ],
    }
    if rate is not None:
        scope[RATE] = rate
    return budget_bytes(Request(scope, nothing, Route("GET", "/", nothing), {}, "", "", BodyBudget()))  # type: ignore[arg-type]


def test_without_a_hint_the_link_is_good() -> None:
    assert asked() is None


@pytest.mark.parametrize(
    "hint",
    [
        {"save_data": "on"},
        {"ect": "slow-2g"},
        {"ect": "2g"},
        {"ect": "3g"},
        {"downlink": "0.3"},
        {"downlink": "0"},
        {"rtt": "2000"},
    ],
)
def test_each_hint_alone_tells_of_a_weak_link(hint: dict[str, str]) -> None:
    budget = asked(**hint)
    assert budget is not None
    assert 4_096 <= budget <= 131_072


@pytest.mark.parametrize(
    "hint",
    [
        {"save_data": "off"},
        {"ect": "4g"},
        {"downlink": "10"},
        {"rtt": "50"},
        {"ect": "4g", "downlink": "1.5", "rtt": "400"},
    ],
)
def test_hints_of_a_good_link_change_nothing(hint: dict[str, str]) -> None:
    assert asked(**hint) is None


def test_the_worst_hint_counts() -> None:
    assert asked(ect="slow-2g", downlink="10") == asked(ect="slow-2g")
    assert asked(ect="3g", save_data="on") == asked(save_data="on")


def test_what_takes_long_is_made_shorter() -> None:
    slow, slower = asked(rate=20_000), asked(rate=4_000)
    assert slow is not None
    assert slower is not None
    assert slower < slow
    assert asked(rate=10_000_000) is None


def test_what_was_measured_is_forgotten_bit_by_bit_and_holds_for_its_reader_only() -> None:
    measured = Measured(4_000, 100, b"Bearer one")
    assert measured.now(b"Bearer one", 100) == 4_000
    assert measured.now(b"Bearer one", 160) == 8_000
    assert asked(rate=measured.now(b"Bearer one", 100 + 600)) is None
    assert asked(rate=measured.now(b"Bearer one", 1e9)) is None
    assert measured.now(b"Bearer two", 100) is None
    assert measured.now(None, 100) is None


def test_the_clients_own_word_goes_before_every_hint() -> None:
    assert asked("dev.restante.network=good", ect="slow-2g", rate=1) is None
    assert asked("dev.restante.network=weak") is not None
    assert asked("dev.restante.max_bytes=1234&dev.restante.network=good") == 1234


@pytest.mark.parametrize(
    "query",
    [
        "dev.restante.network=bad",
        "dev.restante.max_bytes=0",
        "dev.restante.max_bytes=-1",
        "dev.restante.max_bytes=x",
    ],
)
def test_a_word_that_makes_no_sense_is_refused(query: str) -> None:
    with pytest.raises(InvalidParam):
        asked(query)


@given(
    st.dictionaries(
        st.sampled_from(["save_data", "ect", "downlink", "rtt"]),
        st.text(st.characters(max_codepoint=255), max_size=30),
    )
)
def test_any_hint_is_borne(hints: dict[str, str]) -> None:
    budget = asked(**hints)
    assert budget is None or 4_096 <= budget <= 10_000_000


@pytest.mark.parametrize("lie", ["nan", "inf", "-1", "1e400", "9" * 30, "0x10", ""])
def test_numbers_that_are_none_are_no_hint(lie: str) -> None:
    assert asked(downlink=lie, rtt=lie) is None
