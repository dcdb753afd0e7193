"""An upload that was answered survives `kill -9`; one that was not leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 2


@pytest.mark.parametrize("kills", [KILLS, pytest.param(200, marks=pytest.mark.soak)])
async def test_uploads_survive_kills(tmp_path: Path, kills: int) -> None:
    answered: dict[str, bytes] = {}
    numbers = itertools.count()
    with ServerProcess(tmp_path) as server:
        headers = server.register("alice").headers
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:

            async def upload() -> None:
                while True:
                    content = b"%d," % next(numbers) * 50_000
                    try:
                        response = await http.post("/_matrix/media/v3/upload", content=content)
                    except httpx.TransportError:
                        return
                    assert response.status_code == 200
                    answered[response.json()["content_uri"].removeprefix("mxc://")] = content

            for kill in range(kills):
                uploads = [asyncio.create_task(upload()) for _ in range(4)]
                # The kill falls anywhere into what is under way.
                before = len(answered)
                while len(answered) < before + 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.003 * (kill % 7))
                server.kill()
                await asyncio.gather(*uploads)
                server.start()
            for media, content in answered.items():
                response = await http.get(f"/_matrix/client/v1/media/download/{media}")
                assert response.content == content
        # A kill may fall between the commit and the answer.
        names = {path.name for path in (tmp_path / "data" / "media").rglob("*") if path.is_file()}
        assert not list((tmp_path / "data" / "media" / "incoming").iterdir())
        assert len(answered) <= len(names) <= len(answered) + 4 * kills
