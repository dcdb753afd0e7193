"""matrix-js-sdk, unmodified, run by Node against a server with sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.environment import node
from tests.clients.scripts import run_script
from tests.server_process import ServerProcess

pytestmark = pytest.mark.interop
_SCRIPTS = Path(__file__).resolve().parent / "js"


@pytest.fixture(scope="session")
def program() -> Path:
    return node()


def test_three_devices_see_the_same_live_and_from_the_start(program: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        run_script(program, _SCRIPTS / "conversation.js", server)


def test_history_leads_to_the_creation_of_a_room_from_everywhere(program: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        run_script(program, _SCRIPTS / "scrollback.js", server)


def test_threads_have_summaries_lists_and_unread_counts_of_their_own(program: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        run_script(program, _SCRIPTS / "threads.js", server)


def test_sliding_sync_shows_rooms_gaps_and_encrypted_messages(program: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        run_script(program, _SCRIPTS / "sliding.js", server)
