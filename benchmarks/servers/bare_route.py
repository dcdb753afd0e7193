"""The least that a server can do: what the generator gets from it bounds what it can measure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.servers.process import Process

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def answer(request):
    await request.body()
    return JSONResponse({"event_id": "$abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"})

routes = [Route("/{path:path}", answer, methods=["GET", "PUT"])]
uvicorn.run(Starlette(routes=routes), port=int(sys.argv[1]), log_level="warning")
"""


class BareRoute(Process):
    """A route that reads the request and answers as if a message had been sent."""

    name = "Bare route"
    versions = ""

    def command(self) -> list[str | Path]:
        return [sys.executable, "-c", _PROGRAM, str(self.port)]

    def databases(self) -> list[Path]:
        return []
