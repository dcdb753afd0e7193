"""matrix-nio, unmodified, against a server with sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.environment import clients_python
from tests.clients.scripts import run_script
from tests.server_process import ServerProcess

pytestmark = pytest.mark.interop
_SCRIPTS = Path(__file__).resolve().parent / "matrix_nio"


@pytest.fixture(scope="session")
def python() -> Path:
    return clients_python()


def test_three_devices_of_two_users_hold_the_same_conversation(python: Path, tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        run_script(python, _SCRIPTS / "conversation.py", server)


def test_a_device_that_was_away_for_500_messages_gets_each_once_and_in_order(
    python: Path, tmp_path: Path
) -> None:
    with ServerProcess(tmp_path) as server:
        run_script(python, _SCRIPTS / "long_absence.py", server)
