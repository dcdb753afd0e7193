"""A server in a process of its own: with sockets, a configuration file and signals, as people run it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trustme

_RESOURCES = ("client", "federation", "admin", "metrics")
_REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 60
_STOP_SECONDS = 30
_REQUEST_SECONDS = 60
_POLL_SECONDS = 0.05
# Below those that the system gives to outgoing connections, which may take any of theirs at any time.
_PORTS = range(15_000, 30_000)


@dataclass(frozen=True)
class Account:
    """A device of a user, with what it needs to make requests."""

    user_id: str
    device_id: str
    access_token: str

    @property
    def headers(self) -> dict[str, str]:
        """What a request of this device carries."""
        return {"Authorization": f"Bearer {self.access_token}"}


class ServerProcess:
    """A server that tests start, stop, kill, and start again on the same port and the same data.

    Everybody may register and nothing is limited. `settings` are those of the configuration file; a section that is
    given replaces the one of the tests. With `with`, it runs until the end of the block and must stop in good order,
    without having logged an error. `under` is a program, with its arguments, that runs the server. One with an
    `authority` is called `127.0.0.1:PORT`, where other servers reach it with a certificate of that.
    """

    def __init__(
        self,
        directory: Path,
        *,
        under: Sequence[str] = (),
        authority: trustme.CA | None = None,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self._under = under
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config_path = directory / "config.yaml"
        self.log_path = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        values: dict[str, Any] = {
            "server_name": "localhost",
            "listeners": [{"host": "127.0.0.1", "port": self.port, "resources": list(_RESOURCES)}],
            "data_dir": "data",
            "registration": {"mode": "open"},
            "rate_limits": {"enabled": False},
            "passwords": {"hash_cost": "minimum"},
            "logging": {"level": "info", "format": "json"},
        }
        directory.mkdir(parents=True, exist_ok=True)
        if authority is not None:
            port = free_port()
            values["server_name"] = f"127.0.0.1:{port}"
            values["listeners"] += [_federation_listener(directory, authority, port)]
            values["federation"] = {"allow_private_addresses": True, "trusted_ca": ["ca.pem"]}
        values |= settings
        self.server_name: str = values["server_name"]
        # JSON is YAML.
        self.config_path.write_text(json.dumps(values, indent=2))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is not None:
            self.kill()
            return
        self.stop()
        errors = self.logged_errors()
        assert not errors, "\n".join(errors)

    # -- its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Come back when it answers."""
        assert self._process is None, "the server runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._under, sys.executable, "-m", "homeserver", "run", "--config", str(self.config_path)],
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end, as a system does that shuts down; it must end in good order."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop in {_STOP_SECONDS} s:\n{self.log()}") from None
        self._process = None
        assert status == 0, f"the server ended with status {status}:\n{self.log()}"

    def kill(self) -> None:
        """End it at once, as a crash does; nothing happens where it has ended already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        """The id of the running process."""
        return self._running().pid

    def log(self) -> str:
        """All that it wrote, since the first start."""
        return self.log_path.read_text(errors="replace")

    def logged_errors(self) -> list[str]:
        """The lines of the log that tell of errors, since the first start."""
        return [line for line in self.log().splitlines() if _is_error(line)]

    # -- what tests need before they can begin ---------------------------------------------------------------

    def register(self, name: str, password: str = "secret", device_id: str | None = None) -> Account:
        """A new user with one device."""
        return self._account(
            "/_matrix/client/v3/register",
            {
                "username": name,
                "password": password,
                "device_id": device_id,
                "auth": {"type": "m.login.dummy"},
            },
        )

    def login(self, name: str, password: str = "secret", device_id: str | None = None) -> Account:
        """Another device of a user."""
        return self._account(
            "/_matrix/client/v3/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": name},
                "password": password,
                "device_id": device_id,
            },
        )

    def _account(self, path: str, body: dict[str, Any]) -> Account:
        body = {name: value for name, value in body.items() if value is not None}
        response = httpx.post(self.url + path, json=body, timeout=_REQUEST_SECONDS)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        answer = response.json()
        return Account(answer["user_id"], answer["device_id"], answer["access_token"])

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server does not run"
        return self._process

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            status = process.poll()
            assert status is None, f"the server ended with status {status}:\n{self.log()}"
            try:
                answer = httpx.get(f"{self.url}/_matrix/client/versions", timeout=_REQUEST_SECONDS)
            except httpx.TransportError:
                time.sleep(_POLL_SECONDS)
                continue
            assert answer.status_code == 200, f"/versions: {answer.status_code} {answer.text}"
            return
        raise AssertionError(f"the server did not answer in {_START_SECONDS} s:\n{self.log()}")


def _federation_listener(directory: Path, authority: trustme.CA, port: int) -> dict[str, Any]:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    tls = {"certificate": "cert.pem", "private_key": "key.pem"}
    return {"host": "127.0.0.1", "port": port, "resources": ["federation"], "tls": tls}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _environment() -> dict[str, str]:
    """That of the tests, without settings that would go before the configuration file."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RESTANTE_")}
    return {**inherited, "PYTHONPATH": str(_REPOSITORY)}


def _is_error(line: str) -> bool:
    if line.startswith("Traceback"):
        return True
    try:
        return json.loads(line).get("level") in {"error", "critical"}
    except (ValueError, AttributeError):
        return False
