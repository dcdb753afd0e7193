"""Synapse, from the Python Package Index, called over HTTPS on this machine, with certificates checked.

Other servers find it at the port in its name, where a `Link` must stand; clients find it behind that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx

from tests.client import V3, Client, Refused
from tests.clients.environment import synapse_python

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

_START_SECONDS = 120
_UNLIMITED = {"per_second": 1_000_000, "burst_count": 1_000_000}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Person(Client):
    """A user of Synapse, whose answers are not judged."""

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Any:
        """Send a request below `/_matrix/client/v3`, or to a whole path; raises `Refused`."""
        answer = await self.http.request(
            method,
            path if path.startswith("/_") else V3 + path,
            content=content,
            json=body,
            headers={**(headers or {}), "Authorization": f"Bearer {self.access_token}"},
            params={name: value for name, value in query.items() if value is not None} or None,
        )
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.json(), dict(answer.headers))
        return answer.json()


class Link:
    """The way to a server: a port that hands on what it is sent, until it is cut or jammed."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()

    async def join(self) -> None:
        """Let through what comes."""
        self._passes.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def jam(self) -> None:
        """Hand on nothing, and say nothing: what comes waits until the link is joined again, or cut."""
        self._passes.clear()

    async def cut(self) -> None:
        """Let nothing through, and end what is under way."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._passes.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            # Nobody is there.
            writer.transport.abort()
            return
        finally:
            self._writers.discard(writer)
        pair = {writer, back}
        self._writers |= pair
        try:
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        finally:
            self._writers -= pair
            for one in pair:
                one.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class Synapse:
    """A server called `127.0.0.1:PORT`, where its link must stand for other servers to find it.

    It tries again after `least_pause` to reach a server that did not answer.
    """

    def __init__(self, directory: Path, authority: trustme.CA, *, least_pause: str = "1s") -> None:
        directory.mkdir()
        self._directory = directory
        self._python = synapse_python()
        self.port, self._port = free_port(), free_port()
        self.name = f"127.0.0.1:{self.port}"
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        (directory / "logging.json").write_text(
            json.dumps(
                {
                    "version": 1,
                    "handlers": {"console": {"class": "logging.StreamHandler"}},
                    "root": {"level": "INFO", "handlers": ["console"]},
                    "disable_existing_loggers": False,
                }
            )
        )
        self.database = directory / "homeserver.db"
        self._config = directory / "homeserver.yaml"
        self._config.write_text(
            json.dumps(
                {
                    "server_name": self.name,
                    "listeners": [
                        {
                            "port": self._port,
                            "bind_addresses": ["127.0.0.1"],
                            "type": "http",
                            "tls": True,
                            "resources": [{"names": ["client", "federation"], "compress": False}],
                        }
                    ],
                    "tls_certificate_path": str(directory / "cert.pem"),
                    "tls_private_key_path": str(directory / "key.pem"),
                    "federation_custom_ca_list": [str(directory / "ca.pem")],
                    "ip_range_blacklist": [],
                    "federation_ip_range_blacklist": [],
                    "database": {"name": "sqlite3", "args": {"database": str(self.database)}},
                    "log_config": str(directory / "logging.json"),
                    "pid_file": str(directory / "homeserver.pid"),
                    "media_store_path": str(directory / "media"),
                    "signing_key_path": str(directory / "signing.key"),
                    "registration_shared_secret": "secret",
                    "enable_registration": True,
                    "enable_registration_without_verification": True,
                    "report_stats": False,
                    "trusted_key_servers": [],
                    "suppress_key_server_warning": True,
                    "rc_message": _UNLIMITED,
                    "rc_registration": _UNLIMITED,
                    "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED},
                    "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
                    "rc_joins_per_room": _UNLIMITED,
                    "rc_invites": {
                        "per_room": _UNLIMITED,
                        "per_user": _UNLIMITED,
                        "per_issuer": _UNLIMITED,
                    },
                    "rc_room_creation": _UNLIMITED,
                    # As patient as a test.
                    "federation": {
                        "max_long_retry_delay": "1s",
                        "destination_min_retry_interval": least_pause,
                        "destination_max_retry_interval": "2s" if least_pause == "1s" else "7d",
                    },
                }
            )
        )
        self.url = f"https://127.0.0.1:{self._port}"
        self.trust = ssl.create_default_context(cafile=directory / "ca.pem")
        self.http = httpx.Client(base_url=self.url, verify=self.trust, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._run("--generate-keys")
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._python, "-m", "synapse.app.homeserver", "--config-path", self._config],
                cwd=self._directory,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get("/_matrix/client/versions").status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(self.log())

    def stop(self) -> None:
        """Stop it."""
        self.http.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)

    def kill(self) -> None:
        """End it as a loss of power does; `start` begins it again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def register(self, name: str) -> str:
        """A new user's access token."""
        nonce = self.http.get("/_synapse/admin/v1/register").json()["nonce"]
        signed = f"{nonce}\x00{name}\x00password\x00notadmin".encode()
        answer = self.http.post(
            "/_synapse/admin/v1/register",
            json={
                "nonce": nonce,
                "username": name,
                "password": "password",
                "admin": False,
                "mac": hmac.new(b"secret", signed, hashlib.sha1).hexdigest(),
            },
        ).json()
        return str(answer["access_token"])

    def link(self, port: int | None = None) -> Link:
        """The way by which other servers reach it, at the port in its name or at another."""
        return Link(self.port if port is None else port, self._port)

    def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """What it answers to a client."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = self.http.get(path, headers=headers)
        return answer.status_code, answer.json()

    def log(self) -> str:
        """What it wrote last."""
        return self.whole_log()[-20_000:]

    def whole_log(self) -> str:
        """What it wrote since the first start."""
        return (self._directory / "log").read_text("utf-8", "replace")

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [self._python, "-m", "synapse.app.homeserver", "--config-path", self._config, *arguments],
            check=True,
            cwd=self._directory,
            capture_output=True,
        )
