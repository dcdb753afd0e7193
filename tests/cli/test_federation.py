"""`restante federation check`: what a federation tester says."""

from __future__ import annotations

import asyncio
import stat
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from homeserver.storage import key_file
from tests.federation.neighbours import Neighbour
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.restante import Restante

REFUSED = 1


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Neighbour]:
    """A server that runs beside the command, on an event loop of its own."""
    server = Neighbour(tmp_path / "other", f"sqlite:///{tmp_path}/other/restante.db", trustme.CA())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def configure(config: Path, federation: str) -> None:
    config.write_text(f"server_name: example.org\nfederation: {{{federation}}}\n")


def test_a_server_that_is_as_it_should_be(restante: Restante, config: Path, neighbour: Neighbour) -> None:
    configure(config, "allow_private_addresses: true, trusted_ca: [other/ca.pem]")
    outcome = restante("federation", "check", neighbour.name)
    assert outcome.status == 0, outcome.said
    lines = [line.split(maxsplit=2) for line in outcome.said.splitlines()[:-1]]
    assert [line[:2] for line in lines] == [
        ["good", subject] for subject in ("name", "connection", "certificate", "keys", "version")
    ]
    assert "good for 127.0.0.1, by trustme" in lines[2][2]
    assert "ed25519:" in lines[3][2]
    assert lines[4][2].startswith("Restante ")
    assert outcome.said.splitlines()[-1] == f"{neighbour.name} can be reached."


@pytest.mark.parametrize(
    ("federation", "said"),
    [
        ("allow_private_addresses: true", "its certificate is refused"),
        ("trusted_ca: [other/ca.pem]", "federation.allow_private_addresses lets it be called"),
    ],
)
def test_what_is_wrong_is_said_with_the_cure(
    restante: Restante, config: Path, neighbour: Neighbour, federation: str, said: str
) -> None:
    configure(config, federation)
    outcome = restante("federation", "check", neighbour.name)
    assert outcome.status == 1
    assert said in outcome.said
    assert "BAD" in outcome.said
    assert outcome.said.endswith(f"{neighbour.name} cannot be reached as it should.\n")


def test_an_unchecked_certificate_is_said_to_be_one(
    restante: Restante, config: Path, neighbour: Neighbour
) -> None:
    configure(config, "allow_private_addresses: true, verify_tls: false")
    outcome = restante("federation", "check", neighbour.name)
    assert outcome.status == 0, outcome.said
    assert "not checked" in outcome.said


@pytest.mark.parametrize("name", ["not a name", "127.0.0.1:1"])
def test_a_server_that_is_not_there(restante: Restante, config: Path, name: str) -> None:
    configure(config, "allow_private_addresses: true")
    outcome = restante("federation", "check", name)
    assert outcome.status == 1
    assert "BAD" in outcome.said


def test_an_authority_that_cannot_be_read_is_named(restante: Restante, config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for file in ("absent.pem", "empty.pem"):
        configure(config, f"trusted_ca: [{file}]")
        for command in (["federation", "check", "a.example"], ["check-config"], ["run"]):
            line = restante.refuses(*command, status=2)
            assert f"federation.trusted_ca[0]: {file} cannot be used" in line.replace(f"{tmp_path}/", "")


def test_the_key_is_replaced_while_the_server_is_stopped(
    restante: Restante, config: Path, tmp_path: Path
) -> None:
    config.write_text("server_name: example.org\n")
    path = tmp_path / "data" / "signing.key"
    (old,) = key_file.load_or_make(path)
    outcome = restante("federation", "replace-key")
    new, retired = key_file.load_or_make(path)
    assert (outcome.status, outcome.said) == (0, f"From now on this server signs with {new.key_id}.\n")
    assert (retired.key_id, retired.private) == (old.key_id, old.private)
    assert retired.retired_ts is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["signing.key"]


def test_the_key_of_a_server_that_runs_is_not_replaced(restante: Restante, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "server") as process:
        path = tmp_path / "server" / "data" / "signing.key"
        before = path.read_bytes()
        line = restante.refuses(
            "federation", "replace-key", f"--config={process.config_path}", status=REFUSED
        )
        assert "stop it first" in line
        assert path.read_bytes() == before
