"""The table of what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATH = Path(__file__).resolve().parent / "RESULTS.md"

_HEAD = """\
# How fast it is

`make bench` wrote this page. Each server ran in turn, pinned to one core, with SQLite and without rate limits; the load came
from another core, by the client-server API. Every answer was checked: a message that is lost, or told twice, ends
the run. A ratio says how many times better this server does.
"""

CLIENTS = ("One server and its clients", "")
FEDERATION = (
    "Two servers",
    """\
Two servers of a kind on the same core, which call each other by HTTPS and check certificates and signatures. Who sends
is on one of them; who listens is on the other, in a sync that waits.""",
)
JOINING = (
    "Joining a large room",
    """\
A user here joins a room of which nothing is known here: 20,000 members on 500 servers, 30,000 events of state, and 7,000
more that these cite. A program plays those servers by HTTPS, each at an address of its own; each is asked for its keys.
All hashes, signatures and permissions are checked, and all is written down. The server has all cores to itself but for
that program. A sync that waits, as apps on phones ask, tells of the room.

The join without members is what partial state (MSC3706) could save at most: the same, with an answer that leaves the
members out. It is not done: it would save these seconds, once for a room, and until the rest has come nobody could say for
certain who is in the room, and whom messages and keys are for.""",
)

ABSENCE = (
    "Coming back",
    """\
A device in 2,000 rooms was away while 20,000 messages came into 300 of them. Each server was prepared once; what is
measured is a fresh process on a copy of its data. The room list is all rooms in order with their counts; the important rooms
are direct chats and favourites, with all that was missed in them (of sliding sync the first 20 of the list, with 20 messages
each); everything is every message, once and in order.""",
)
CATCHING_UP = (
    "Coming back by this server's own ways",
    """\
The catch-up API, on the same data, and what compression saves.""",
)
LINKS = (
    "Coming back over a slow link",
    """The first answer of `/sync`, with what matters most in front, over a link of 32 kbit/s and 400 ms.""",
)

Columns = Sequence[tuple[str, Sequence[Figure]]]
"""The name of a server, and what was measured of it."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: str
    columns: Columns

    def __str__(self) -> str:
        return "\n\n".join(part for part in (f"## {self.title}", self.text, table(self.columns)) if part)


def table(columns: Columns) -> str:
    """A table with a column for each server, and the ratio of the first to the second."""
    names = [name for name, _ in columns]
    lines = [[""] + names + (["Ratio"] if len(columns) == 2 else [])]
    lines.append(["---"] + ["---:"] * (len(lines[0]) - 1))
    for figures in zip(*(figures for _, figures in columns), strict=True):
        line = [figures[0].name, *map(str, figures)]
        if len(figures) == 2:
            line.append(f"{figures[0].ratio(figures[1]):,.1f}")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(sections: Sequence[Section], versions: Mapping[str, str], limit: float) -> None:
    """Write the page."""
    facts = [
        f"- Machine: {os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.release()}",
        *(f"- {name}: {version}" for name, version in versions.items()),
        f"- The generator got {limit:,.0f} answers per second, 16 at a time, from a bare Starlette route",
    ]
    _PATH.write_text("\n".join([_HEAD, *facts, "", "\n\n".join(map(str, sections)), ""]))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
