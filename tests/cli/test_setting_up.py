"""`init`, `check-config`, `version`: and whatever is wrong is said in a line that names the key and the cure."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest

from homeserver import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.restante import Restante

CANNOT_START = 2


def test_version_says_which_one_it_is(restante: Restante) -> None:
    assert restante("version").said == f"restante {__version__}\n"


def test_no_command_shows_the_commands(restante: Restante) -> None:
    outcome = restante()
    for command in ("init", "run", "check-config", "user", "registration-token", "version"):
        assert command in outcome.said + outcome.complained


def test_init_writes_what_differs_from_the_defaults(restante: Restante, tmp_path: Path) -> None:
    outcome = restante(
        "init",
        "--server-name=example.org",
        "--port=8448",
        "--registration=token",
        "--public-base-url=https://matrix.example.org",
    )
    assert (outcome.status, outcome.complained) == (0, "")
    path = tmp_path / "config.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "it may come to hold secrets"
    text = path.read_text()
    assert "server_name: example.org" in text
    assert "database" not in text
    checked = restante("check-config")
    assert checked.said == "config.yaml is fine: server example.org, listening on 127.0.0.1:8448.\n"


def test_init_replaces_nothing(restante: Restante, config: Path) -> None:
    before = config.read_text()
    line = restante.refuses("init", "--server-name=other.example", status=CANNOT_START)
    assert "config.yaml is there already" in line
    assert config.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--server-name=not a name"], "server_name"),
        (["--server-name=example.org", "--port=70000"], "listeners"),
        (["--server-name=example.org", "--registration=maybe"], "registration.mode"),
        (["--server-name=example.org", "--database-url=mysql://localhost/db"], "database.url"),
    ],
)
def test_init_leaves_no_file_that_could_not_be_used(
    restante: Restante, tmp_path: Path, arguments: list[str], named: str
) -> None:
    assert named in restante.refuses("init", *arguments, status=CANNOT_START)
    assert not (tmp_path / "config.yaml").exists()


def test_init_says_where_it_cannot_write(restante: Restante) -> None:
    line = restante.refuses("init", "--server-name=a.example", "--config=no/where.yaml", status=CANNOT_START)
    assert "no/where.yaml: cannot be written" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server_nam: example.org", "server_name"),
        ("server_name: example.org\ndatabase: {ur: x}", "database.url"),
        ("server_name: example.org\nlisteners: [{prot: 1}]", "listeners[0].port"),
        ("server_name: [1]", "server_name"),
        ("server_name: example.org\ndata_dir: {}", "data_dir"),
        ("server_name: example.org\nlisteners: 8008", "listeners"),
        ("server_name: example.org\nlisteners: [{port: many}]", "listeners[0].port"),
        ("server_name: example.org\nmemory_budget_bytes: -1", "memory_budget_bytes"),
        ("server_name: example.org\npresence: {enabled: perhaps}", "presence.enabled"),
        ("database: {url: null}", "server_name"),
        ("", "server_name"),
        ("- a list", "config.yaml"),
        ("server_name: [", "line"),
        ("server_name: a\nserver_name: b", "server_name"),
        ("\x00", "config.yaml"),
    ],
)
@pytest.mark.parametrize("command", [["check-config"], ["run"], ["user", "list"]])
def test_a_configuration_that_cannot_be_used_is_refused_in_a_line(
    restante: Restante, tmp_path: Path, command: list[str], text: str, said: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert said in restante.refuses(*command, status=CANNOT_START)


def test_a_configuration_that_is_not_there_is_named(restante: Restante) -> None:
    line = restante.refuses("run", "--config", "elsewhere.yaml", status=CANNOT_START)
    assert "elsewhere.yaml" in line
    assert "init" in line


def test_a_configuration_that_is_no_text_is_refused(restante: Restante, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"server_name: \xff\xfe")
    assert "config.yaml" in restante.refuses("run", status=CANNOT_START)


@pytest.mark.parametrize("command", [["check-config"], ["run"], ["user", "list"]])
def test_a_key_file_that_cannot_be_read_is_named_with_the_cure(
    restante: Restante, config: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "key").mkdir()
    config.write_text("server_name: example.org\nsigning_key: key\nlisteners: [{port: 0}]\n")
    line = restante.refuses(*command, status=CANNOT_START)
    assert "signing_key: cannot use" in line
    assert "let this user read it" in line


def test_a_key_file_that_holds_no_key_is_refused(restante: Restante, config: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("this is no key")
    config.write_text("server_name: example.org\nsigning_key: key\n")
    assert "signing_key: " in restante.refuses("check-config", status=CANNOT_START)


def test_a_certificate_that_cannot_be_used_is_named(restante: Restante, config: Path) -> None:
    config.write_text(
        "server_name: example.org\nlisteners: [{port: 0, tls: {certificate: c.pem, private_key: k.pem}}]\n"
    )
    for command in ("check-config", "run"):
        assert "listeners[0].tls" in restante.refuses(command, status=CANNOT_START)


def test_a_port_in_use_is_named_with_the_cure(restante: Restante, config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(f"server_name: example.org\nlisteners: [{{port: {port}}}]\n")
        line = restante.refuses("run", status=CANNOT_START)
    assert f"listeners[0].port: 127.0.0.1 port {port} is in use" in line
    assert "choose another port" in line


def test_an_address_of_another_machine_is_refused(restante: Restante, config: Path) -> None:
    config.write_text("server_name: example.org\nlisteners: [{host: 192.0.2.1, port: 8008}]\n")
    assert "listeners[0]" in restante.refuses("run", status=CANNOT_START)


def test_the_database_of_another_server_is_refused(restante: Restante, config: Path) -> None:
    assert restante("user", "list").status == 0
    config.write_text("server_name: other.example\nlisteners: [{port: 0}]\n")
    for command in (["run"], ["user", "list"]):
        line = restante.refuses(*command, status=CANNOT_START)
        assert "database.url: the database belongs to the server example.org, not to other.example" in line
        assert "correct server_name" in line


def test_a_database_that_cannot_be_reached_is_refused_without_its_password(
    restante: Restante, config: Path
) -> None:
    config.write_text(
        "server_name: example.org\nlisteners: [{port: 0}]\n"
        "database: {url: 'postgresql://restante:secret@127.0.0.1:1/restante'}\n"
    )
    line = restante.refuses("run", status=CANNOT_START)
    assert "database.url: the database restante on 127.0.0.1 cannot be used" in line
    assert "secret" not in line
