"""Runs a server of ours that calls each other server by a way of its own: `python -m tests.interop.by_ways WAYS ...`.

WAYS is a JSON file: the port to call in the place of the one in a server's name. What follows is the command.
"""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from federation import discovery

if TYPE_CHECKING:
    from federation.server_names import ParsedServerName


def call_by(ways: dict[str, int]) -> None:
    """Let calls to servers go to these ports, by server name."""
    place_of = discovery.place_of

    def place_on_way(name: ParsedServerName) -> discovery.Place:
        place = place_of(name)
        return replace(place, port=ways[place.host_header])

    discovery.place_of = place_on_way


def main() -> None:
    ways, *command = sys.argv[1:]
    call_by(json.loads(Path(ways).read_text("utf-8")))
    _, _, module, *arguments = command
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
