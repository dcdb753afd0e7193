"""The benchmarks run, so that they can be trusted to on the day when they are needed; no figure is looked at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from benchmarks import absence, large_room
from benchmarks.client import Device, Refused
from benchmarks.connection import Address
from benchmarks.figures import SMALL, Absence, Figure
from benchmarks.parts import measure, measure_join, measure_pair
from benchmarks.results import table
from benchmarks.scenarios import coming_back
from benchmarks.servers.authority import Authority
from benchmarks.servers.resident import Resident
from benchmarks.servers.restante import Restante
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("shared_secret", [pytest.param(None, marks=pytest.mark.soak), "a secret"])
async def test_every_scenario_runs(shared_secret: str | None, tmp_path: Path) -> None:
    registration = {"mode": "open"} if shared_secret is None else {"shared_secret": shared_secret}
    with ServerProcess(tmp_path, registration=registration) as server:
        figures = await measure(server.url, shared_secret, SMALL)
    assert all(figure.value > 0 for figure in figures)
    assert len({figure.name for figure in figures}) == len(figures) == 11


def test_every_scenario_of_two_servers_runs(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cores = os.sched_getaffinity(0)
    pair = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        pair.append(Restante(tmp_path / name, cores, authority))
    figures = measure_pair(*pair, SMALL)
    assert all(figure.value > 0 for figure in figures)
    assert len({figure.name for figure in figures}) == len(figures) == 5


@pytest.mark.parametrize("partial", [False, True])
def test_a_large_room_is_made_and_joined(tmp_path: Path, *, partial: bool) -> None:
    authority = Authority(tmp_path)
    cores = os.sched_getaffinity(0)
    room = large_room.make(tmp_path, SMALL.room)
    places = [tmp_path / name for name in ("resident", "server")]
    for place in places:
        place.mkdir()
    resident = Resident(places[0], cores, authority, room, tmp_path, partial=partial)
    figures = measure_join(Restante(places[1], cores, authority), resident, room, "Join")
    assert all(figure.value > 0 for figure in figures)
    assert len(figures) == 4


def test_a_device_comes_back_by_every_way(tmp_path: Path) -> None:
    cores = {min(os.sched_getaffinity(0))}
    places = (tmp_path / f"{number}" for number in range(20))

    def make() -> Restante:
        place = next(places)
        place.mkdir()
        return Restante(place, cores)

    size = Absence(rooms=4, busy_rooms=3, messages=9)
    ways = (coming_back.classic, coming_back.sliding, coming_back.catching_up)
    others = (coming_back.compressed, coming_back.slow_link)
    figures = absence.measure(make, tmp_path, size, (*ways, *others))
    assert all(figure.value > 0 for figure in figures)
    # Prepared once, and as it was.
    again = absence.measure(make, tmp_path, size, ways)
    assert [figure.name for figure in again] == [figure.name for figure in figures[: len(again)]]


async def test_a_refusal_is_not_counted(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        device = Device(Address.of(server.url), access_token="nobody's")
        with pytest.raises(Refused, match="401"):
            await device.sync()
        device.close()


def test_a_ratio_says_how_many_times_better() -> None:
    ours = [Figure("Sent", 200, "/s", more_is_better=True), Figure("Time", 10, "ms")]
    theirs = [Figure("Sent", 50, "/s", more_is_better=True), Figure("Time", 25, "ms")]
    assert table([("We", ours), ("They", theirs)]).splitlines() == [
        "|  | We | They | Ratio |",
        "| --- | ---: | ---: | ---: |",
        "| Sent | 200 /s | 50.0 /s | 4.0 |",
        "| Time | 10.0 ms | 25.0 ms | 2.5 |",
    ]
