"""Commands on accounts and registration tokens: the same with a running server and without one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import typer

from tests.client import V3
from tests.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.restante import Outcome, Restante

REFUSED, CANNOT_START = 1, 2
TERMINAL = sys.modules[typer.prompt.__module__]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("running"), server_name="example.org") as server:
        yield server


class Commands:
    """Commands on one server, wherever it is."""

    def __init__(self, restante: Restante, config: Path, number: int) -> None:
        self._restante = restante
        self._config = f"--config={config}"
        # The running server is that of all tests here: each has names of its own.
        self.alice = f"alice{number}"
        self.token = f"token{number}"

    def __call__(self, *arguments: str) -> Outcome:
        return self._restante(*self._with_config(arguments))

    def refuses(self, *arguments: str, status: int = REFUSED) -> str:
        return self._restante.refuses(*self._with_config(arguments), status=status)

    def _with_config(self, arguments: tuple[str, ...]) -> list[str]:
        group, command, *rest = arguments
        return [group, command, self._config, *rest]


_numbers = iter(range(1000))


@pytest.fixture(params=["with a server", "without a server"])
def commands(request: pytest.FixtureRequest, restante: Restante, config: Path) -> Commands:
    if request.param == "with a server":
        config = request.getfixturevalue("running").config_path
    return Commands(restante, config, next(_numbers))


def test_an_account_is_made_listed_and_closed(commands: Commands) -> None:
    user_id = f"@{commands.alice}:example.org"
    made = commands("user", "create", commands.alice, "--password=secret")
    assert (made.status, made.said) == (0, f"Made the account {user_id}.\n")
    (line,) = _lines_of(commands("user", "list"), user_id)
    assert line.split()[2:] == []
    assert commands("user", "make-admin", user_id).said == f"{user_id} is an administrator.\n"
    (line,) = _lines_of(commands("user", "list"), user_id)
    assert line.split()[2:] == ["admin"]
    commands("user", "make-admin", commands.alice, "--revoke")
    assert commands("user", "deactivate", "--yes", commands.alice).status == 0
    (line,) = _lines_of(commands("user", "list"), user_id)
    assert line.split()[2:] == ["deactivated"]


def test_destinations_are_shown_and_none_is_tried_that_there_is_not(commands: Commands) -> None:
    shown = commands("federation", "destinations")
    assert (shown.status, shown.said) == (0, "")
    assert commands("federation", "destinations", "--troubled").said == ""
    line = commands.refuses("federation", "retry", "nobody.example")
    assert "Nothing was ever sent to nobody.example" in line


def test_what_is_refused_is_said_in_a_line(commands: Commands) -> None:
    commands("user", "create", commands.alice, "--password=secret")
    line = commands.refuses("user", "create", commands.alice, "--password=secret")
    assert line == "restante: This user name is taken"
    for deed in (["reset-password", "--password=new"], ["deactivate", "--yes"], ["make-admin"]):
        assert "nobody" in commands.refuses("user", deed[0], *deed[1:], "nobody")
        assert "other.example" in commands.refuses("user", deed[0], *deed[1:], "@alice:other.example")
    assert "user name" in commands.refuses("user", "create", "not a name", "--password=secret")
    assert "token" in commands.refuses("registration-token", "revoke", "no-such-token")
    assert "token" in commands.refuses("registration-token", "create", "not/a/token")


def test_a_registration_token_is_made_listed_and_revoked(commands: Commands) -> None:
    made = commands("registration-token", "create", commands.token, "--uses=2", "--days=1")
    assert made.said == f"{commands.token}\n"
    (line,) = _lines_of(commands("registration-token", "list"), commands.token)
    assert "0 of 2 uses, until 20" in line
    commands.refuses("registration-token", "create", commands.token)
    assert commands("registration-token", "revoke", commands.token).said == f"Revoked {commands.token}.\n"
    assert _lines_of(commands("registration-token", "list"), commands.token) == []
    random = commands("registration-token", "create").said.strip()
    (line,) = _lines_of(commands("registration-token", "list"), random)
    assert "0 of any number of uses" in line


def test_the_running_server_knows_at_once(running: ServerProcess, restante: Restante) -> None:
    commands = Commands(restante, running.config_path, next(_numbers))
    commands("user", "create", commands.alice, "--password=first")
    account = running.login(commands.alice, "first")
    assert _whoami(running, account.headers).status_code == 200
    commands("user", "reset-password", commands.alice, "--password=second")
    assert _whoami(running, account.headers).status_code == 401
    assert _login(running, commands.alice, "first").status_code == 403
    account = running.login(commands.alice, "second")
    commands("user", "reset-password", commands.alice, "--password=third", "--no-logout")
    assert _whoami(running, account.headers).status_code == 200
    commands("user", "deactivate", "--yes", commands.alice)
    assert _whoami(running, account.headers).status_code == 401
    assert _login(running, commands.alice, "third").json()["errcode"] == "M_USER_DEACTIVATED"


def test_a_server_says_what_to_do_next(running: ServerProcess) -> None:
    assert f"The address to give the client:  {running.url}" in running.log()
    (line,) = [line for line in running.log().splitlines() if "To make an account" in line]
    assert line.endswith(f"-m homeserver user create --config {running.config_path} NAME")


def test_a_password_is_asked_for_twice_and_not_shown(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["secret", "secret"])
    monkeypatch.setattr(TERMINAL, "hidden_prompt_func", lambda _: next(answers))
    made = commands("user", "create", commands.alice)
    assert made.status == 0
    assert "secret" not in made.said + made.complained
    assert next(answers, None) is None


def test_an_account_is_closed_only_after_a_yes(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    commands("user", "create", commands.alice, "--password=secret")
    monkeypatch.setattr(TERMINAL, "visible_prompt_func", lambda _: "n")
    assert commands("user", "deactivate", commands.alice).status == 1
    (line,) = _lines_of(commands("user", "list"), f"@{commands.alice}:example.org")
    assert "deactivated" not in line


def test_a_database_that_another_server_uses_without_a_socket_is_refused(
    running: ServerProcess, restante: Restante, tmp_path: Path
) -> None:
    settings = json.loads(running.config_path.read_text())
    database = running.directory / "data" / "restante.db"
    assert database.is_file()
    settings |= {"data_dir": str(tmp_path / "elsewhere"), "database": {"url": f"sqlite:///{database}"}}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    line = restante.refuses("user", "list", status=CANNOT_START)
    assert "another process uses the database" in line
    assert "stop it first" in line
    settings["listeners"][0]["port"] = 0
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    assert "another process uses the database" in restante.refuses("run", status=CANNOT_START)


def test_a_second_server_on_the_same_port_is_refused(running: ServerProcess, restante: Restante) -> None:
    line = restante.refuses("run", f"--config={running.config_path}", status=CANNOT_START)
    assert f"port {running.port} is in use" in line


def test_the_socket_that_a_killed_server_left_behind_is_no_obstacle(
    tmp_path: Path, restante: Restante
) -> None:
    server = ServerProcess(tmp_path, server_name="example.org")
    server.start()
    server.kill()
    assert any(path.is_socket() for path in (tmp_path / "data").iterdir())
    made = restante("user", "create", f"--config={server.config_path}", "alice", "--password=secret")
    assert made.status == 0
    with server:
        server.login("alice")


def _lines_of(outcome: Outcome, name: str) -> list[str]:
    assert outcome.status == 0
    return [line for line in outcome.said.splitlines() if line.split()[0] == name]


def _whoami(server: ServerProcess, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(f"{server.url}{V3}/account/whoami", headers=headers)


def _login(server: ServerProcess, name: str, password: str) -> httpx.Response:
    body: dict[str, Any] = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": name},
        "password": password,
    }
    return httpx.post(f"{server.url}{V3}/login", json=body)
