"""`python -m benchmarks.resident_server`: plays all the servers that are in a large room, on one port.

It lets anybody in, shows the keys of all, and takes whatever it is sent; nothing is checked.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from benchmarks.large_room import PARTIAL, WHOLE, in_groups, key_of, load, template
from federation.server_keys import countersign, own_document

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from benchmarks.large_room import LargeRoom


class ResidentServer:
    """The endpoints. `partial` leaves members out of the answers to joins."""

    def __init__(self, room: LargeRoom, place: Path, *, partial: bool) -> None:
        self._room = room
        self._answer = place / (PARTIAL if partial else WHOLE)

    def application(self) -> Starlette:
        """All of it."""
        return Starlette(
            routes=[
                Route("/_matrix/client/versions", self.nothing),
                Route("/_matrix/key/v2/server", self.keys),
                Route("/_matrix/key/v2/query", self.notarise, methods=["POST"]),
                Route("/_matrix/federation/v1/make_join/{room_id}/{user_id}", self.make_join),
                Route(
                    "/_matrix/federation/v2/send_join/{room_id}/{event_id}", self.send_join, methods=["PUT"]
                ),
                Route("/_matrix/federation/v1/send/{transaction_id}", self.take, methods=["PUT"]),
            ]
        )

    async def nothing(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse({})

    async def keys(self, request: Request) -> Response:
        return JSONResponse(_document(request.headers["host"]))

    async def notarise(self, request: Request) -> Response:
        asked = (await request.json())["server_keys"]
        names = [name for name in asked if name in set(self._room.server_names)]
        notary = request.headers["host"]
        documents = [countersign(_document(name), notary, [key_of(notary)]) for name in names]
        return JSONResponse({"server_keys": documents})

    async def make_join(self, request: Request) -> Response:
        return JSONResponse(template(self._room, request.path_params["user_id"]))

    async def send_join(self, request: Request) -> Response:
        await request.body()
        return FileResponse(self._answer, media_type="application/json")

    async def take(self, request: Request) -> Response:
        await request.body()
        return JSONResponse({"pdus": {}})


def _document(server_name: str) -> dict[str, object]:
    return own_document(server_name, [key_of(server_name)], int(1000 * time.time()))


async def serve(room: LargeRoom, certificates: Path, application: Starlette) -> None:
    """Listen for all the servers until the program is ended."""
    serving = []
    for number, group in enumerate(in_groups(room.server_names)):
        config = uvicorn.Config(
            application,
            log_level="warning",
            lifespan="off",
            ssl_certfile=certificates / str(number) / "cert.pem",
            ssl_keyfile=certificates / str(number) / "key.pem",
        )
        config.load()
        # Not `serve`, which takes the signals of the program.
        serving.append(uvicorn.Server(config)._serve([_listener(name) for name in group]))  # noqa: SLF001
    await asyncio.gather(*serving)


def _listener(server_name: str) -> socket.socket:
    address, _, port = server_name.partition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    return listener


def main() -> None:
    """Arguments: the directory of the room, that of the certificates, and `whole` or `partial`."""
    place, certificates, members = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    room = load(place)
    # A socket that listens for each of the servers, and the connections to it.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    application = ResidentServer(room, place, partial=members == "partial").application()
    asyncio.run(serve(room, certificates, application))


if __name__ == "__main__":
    main()
