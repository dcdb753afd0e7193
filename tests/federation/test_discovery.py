"""Where a server is called, and as what (Server-Server API, "Resolving server names")."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from federation.discovery import Discovery, Place, in_order
from federation.errors import NameNotFound
from federation.resolver import LookupFailed, Service
from federation.well_known import seconds_to_keep
from tests.federation.internet import HTTPS, Internet, answering, redirecting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOUR = 3600
DAY = 24 * HOUR


def discovery(internet: Internet) -> Discovery:
    return Discovery(internet.well_known(), internet.dns)


async def delegate(internet: Internet, host: str, to: Any, **options: Any) -> None:
    internet.dns.names[host] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({"m.server": to}, **options), host)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("1.2.3.4", Place("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")),
        ("1.2.3.4:1", Place("1.2.3.4", 1, "1.2.3.4:1", "1.2.3.4")),
        ("[2a01::1]", Place("2a01::1", 8448, "[2a01::1]", "2a01::1")),
        ("[2a01::1]:1", Place("2a01::1", 1, "[2a01::1]:1", "2a01::1")),
        ("a.example:1", Place("a.example", 1, "a.example:1", "a.example")),
        ("a.example:0080", Place("a.example", 80, "a.example:80", "a.example")),
    ],
)
async def test_literals_and_ports_are_called_as_they_stand(
    internet: Internet, name: str, place: Place
) -> None:
    assert (await discovery(internet).find(name)).places == (place,)
    assert internet.tried == []
    assert internet.dns.asked == []


@pytest.mark.parametrize(
    ("delegated", "place"),
    [
        ("5.6.7.8", Place("5.6.7.8", 8448, "5.6.7.8", "5.6.7.8")),
        ("5.6.7.8:1", Place("5.6.7.8", 1, "5.6.7.8:1", "5.6.7.8")),
        ("[2a01::1]", Place("2a01::1", 8448, "[2a01::1]", "2a01::1")),
        ("b.example:1", Place("b.example", 1, "b.example:1", "b.example")),
        ("b.example", Place("b.example", 8448, "b.example", "b.example")),
    ],
)
async def test_a_delegated_server_is_called_under_the_delegated_name(
    internet: Internet, delegated: str, place: Place
) -> None:
    await delegate(internet, "a.example", delegated)
    found = await discovery(internet).find("a.example")
    assert (found.places, found.delegated, found.well_known_error) == ((place,), delegated, None)


@pytest.mark.parametrize("kind", ["_matrix-fed._tcp", "_matrix._tcp"])
@pytest.mark.parametrize("delegated", [True, False])
async def test_a_service_record_says_where_but_not_who(
    internet: Internet, kind: str, delegated: bool
) -> None:
    host = "b.example" if delegated else "a.example"
    if delegated:
        await delegate(internet, "a.example", host)
    internet.dns.records[f"{kind}.{host}"] = [Service(10, 5, "c.example", 1234)]
    internet.dns.records["_matrix._tcp.b.example"].append(Service(10, 5, "c.example", 1234))
    found = await discovery(internet).find("a.example")
    assert found.places[0] == Place("c.example", 1234, host, host)
    assert found.service == f"{kind}.{host}"


async def test_the_registered_kind_of_record_goes_before_the_old_one(internet: Internet) -> None:
    internet.dns.records["_matrix-fed._tcp.a.example"] = [Service(10, 5, "new.example", 1)]
    internet.dns.records["_matrix._tcp.a.example"] = [Service(1, 5, "old.example", 2)]
    found = await discovery(internet).find("a.example")
    assert [place.host for place in found.places] == ["new.example"]


async def test_without_anything_it_is_the_usual_port(internet: Internet) -> None:
    found = await discovery(internet).find("a.example")
    assert found.places == (Place("a.example", 8448, "a.example", "a.example"),)
    assert found.well_known_error is not None


async def test_a_name_server_that_fails_on_service_records_is_as_one_that_has_none(
    internet: Internet,
) -> None:
    internet.dns.failing["_matrix-fed._tcp.a.example"] = LookupFailed("SERVFAIL")
    internet.dns.failing["_matrix._tcp.a.example"] = LookupFailed("SERVFAIL")
    assert (await discovery(internet).find("a.example")).places[0].port == 8448


async def test_a_record_that_says_there_is_no_server_is_believed(internet: Internet) -> None:
    internet.dns.records["_matrix-fed._tcp.a.example"] = [Service(0, 0, ".", 0)]
    with pytest.raises(NameNotFound):
        await discovery(internet).find("a.example")


@pytest.mark.parametrize(
    "target", ["x/y.example", "u\\@evil.example", "127.0.0.1", "[::1]", "c.example:1", "", "c example"]
)
async def test_a_record_that_names_no_host_is_as_none(internet: Internet, target: str) -> None:
    internet.dns.records["_matrix-fed._tcp.a.example"] = [Service(0, 0, target, 1234)]
    assert [place.host for place in (await discovery(internet).find("a.example")).places] == ["a.example"]
    internet.dns.records["_matrix-fed._tcp.a.example"].append(Service(1, 0, "c.example", 1))
    found = (await discovery(internet).find("a.example")).places
    assert found[-1] == Place("c.example", 1, "a.example", "a.example")


@pytest.mark.parametrize("name", ["", "a b", "a.example:x", "@alice:a.example", "a/b", "[::1", "a" * 300])
async def test_what_is_not_a_server_name_is_nowhere(internet: Internet, name: str) -> None:
    with pytest.raises(NameNotFound):
        await discovery(internet).find(name)
    assert internet.dns.asked == []


@given(st.lists(st.builds(Service, st.integers(0, 3), st.integers(0, 9), st.text(max_size=3), st.just(1))))
def test_records_are_tried_by_priority_each_once(records: list[Service]) -> None:
    ordered = in_order(records)
    assert Counter(ordered) == Counter(records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in records)


# -- the well-known file ---------------------------------------------------------------------------------


async def text(request: web.Request) -> web.Response:
    return web.Response(text="<html>")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


@pytest.mark.parametrize(
    "handler",
    [
        *(
            text,
            endless,
            answering([]),
            answering({}),
            answering({"m.server": 1}),
            answering({"m.server": ""}),
        ),
        *(answering({"m.server": "https://b.example"}), answering({"m.server": "b.example:99999"})),
        *(answering({"m.server": "b.example"}, 404), answering({"m.server": "b.example"}, 500)),
        *(
            answering({"m.server": "b.example"}, 201),
            answering(None),
            answering({"m.server": "b\r\n.example"}),
        ),
        *(redirecting("http://a.example/x"), redirecting("https://"), redirecting("https://u:p@b.example/x")),
        *(
            redirecting("/.well-known/matrix/server"),
            redirecting("file:///etc/passwd"),
            redirecting("https://[x"),
        ),
        *(
            redirecting("https://127.0.0.1/"),
            redirecting("https://private.example/"),
            redirecting("//[::1]/"),
        ),
        *(redirecting(""), redirecting("https://xn--/"), redirecting("https://xn--a.example/")),
    ],
)
async def test_a_file_that_cannot_be_used_is_as_none(
    internet: Internet, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    internet.dns.names |= {"a.example": ["1.2.3.4"], "private.example": ["10.0.0.1"]}
    await internet.site("1.2.3.4", HTTPS, handler, "a.example")
    found = await discovery(internet).find("a.example")
    assert found.places == (Place("a.example", 8448, "a.example", "a.example"),)
    assert found.well_known_error
    assert set(internet.tried) == {("1.2.3.4", HTTPS)}


async def test_redirects_are_followed_a_few_times(internet: Internet) -> None:
    async def onward(request: web.Request) -> web.Response:
        step = int(request.query.get("step", "0"))
        if step == 5:
            return web.json_response({"m.server": "c.example:1"})
        return web.Response(status=301, headers={"Location": f"https://b.example:444/x?step={step + 1}"})

    internet.dns.names |= {"a.example": ["1.2.3.4"], "b.example": ["1.2.3.5"]}
    await internet.site("1.2.3.4", HTTPS, onward, "a.example")
    await internet.site("1.2.3.5", 444, onward, "b.example")
    assert (await discovery(internet).find("a.example")).delegated == "c.example:1"


async def test_a_file_behind_a_wrong_certificate_is_as_none(internet: Internet) -> None:
    internet.dns.names["a.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, answering({"m.server": "b.example"}), "other.example")
    assert (await discovery(internet).find("a.example")).delegated is None


class Counting:
    """A site that counts, and answers as it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hold: asyncio.Event | None = None

    async def __call__(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        return web.json_response(
            {"m.server": f"b{self.asked}.example"}, status=self.status, headers=self.headers
        )


async def counting(internet: Internet) -> Counting:
    site = Counting()
    internet.dns.names["a.example"] = ["1.2.3.4"]
    await internet.site("1.2.3.4", HTTPS, site, "a.example")
    return site


async def test_an_answer_is_kept_as_long_as_it_says_and_renewed_before(internet: Internet) -> None:
    site, lookup = await counting(internet), internet.well_known()
    site.headers = {"Cache-Control": "max-age=36000"}
    assert (await lookup.find("a.example")).delegated == "b1.example"
    internet.clock.offset = 7 * HOUR
    assert (await lookup.find("A.Example")).delegated == "b1.example"
    internet.clock.offset = 9 * HOUR
    assert (await lookup.find("a.example")).delegated == "b2.example"


async def test_an_answer_holds_to_its_end_where_it_cannot_be_renewed(internet: Internet) -> None:
    site, lookup = await counting(internet), internet.well_known()
    site.headers = {"Cache-Control": "max-age=36000"}
    await lookup.find("a.example")
    site.status = 500
    internet.clock.offset = 9 * HOUR
    assert (await lookup.find("a.example")).delegated == "b1.example"
    assert site.asked == 2
    assert (await lookup.find("a.example")).delegated == "b1.example"
    assert site.asked == 2
    internet.clock.offset = 10 * HOUR + 1
    assert (await lookup.find("a.example")).delegated is None


async def test_errors_are_kept_for_a_shorter_time_which_grows(internet: Internet) -> None:
    site, lookup = await counting(internet), internet.well_known()
    site.status = 404
    await lookup.find("a.example")
    for asked, wait in enumerate((60, 120, 240, 480, 960, 1920, 3600, 3600, 3600), 1):
        internet.clock.offset += wait - 20
        await lookup.find("a.example")
        assert site.asked == asked
        internet.clock.offset += 21
        await lookup.find("a.example")
        assert site.asked == asked + 1


async def test_many_who_want_to_know_ask_once_and_one_who_gives_up_stops_nobody(internet: Internet) -> None:
    site, lookup = await counting(internet), internet.well_known()
    site.hold = asyncio.Event()
    waiting = [asyncio.create_task(lookup.find("a.example")) for _ in range(5)]
    while not site.asked:  # noqa: ASYNC110 - the site tells nobody
        await asyncio.sleep(0.001)
    waiting[0].cancel()
    site.hold.set()
    answers = await asyncio.gather(*waiting[1:])
    assert {answer.delegated for answer in answers} == {"b1.example"}
    assert site.asked == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, DAY),
        ({"Cache-Control": "max-age=7200"}, 2 * HOUR),
        ({"Cache-Control": 'public, max-age="7200"'}, 2 * HOUR),
        ({"Cache-Control": "max-age=0"}, 300),
        ({"Cache-Control": "no-store"}, 300),
        ({"Cache-Control": "max-age=9999999999"}, 2 * DAY),
        ({"Cache-Control": "max-age=99999999999999999999"}, 2 * DAY),
        ({"Cache-Control": "max-age=x"}, DAY),
        ({"Expires": "0"}, 300),
        ({"Expires": "Wed, 01 Jan 2020 02:00:00 GMT", "Date": "Wed, 01 Jan 2020 00:00:00 GMT"}, 2 * HOUR),
        ({"Expires": "Wed, 01 Jan 2020 00:00:00 GMT", "Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 300),
        ({"Expires": "Wed, 01 Jan 9999 00:00:00 GMT", "Date": "Wed, 01 Jan 2025 00:00:00 GMT"}, 2 * DAY),
    ],
)
def test_how_long_an_answer_is_kept(headers: dict[str, str], seconds: int) -> None:
    assert seconds_to_keep(headers) == seconds
