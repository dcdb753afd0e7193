"""Synapse, from the Python Package Index, called over HTTPS on this machine, with certificates checked."""

from __future__ import annotations

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

from tests.clients.environment import synapse_python

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

_START_SECONDS = 120
_UNLIMITED = {"per_second": 1_000_000, "burst_count": 1_000_000}


class Synapse:
    """A server called `127.0.0.1:PORT`, for clients at the same place."""

    def __init__(self, directory: Path, authority: trustme.CA) -> None:
        directory.mkdir()
        self._directory = directory
        self._python = synapse_python()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.name = f"127.0.0.1:{self._port}"
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
                    "database": {"name": "sqlite3", "args": {"database": str(directory / "homeserver.db")}},
                    "log_config": str(directory / "logging.json"),
                    "pid_file": str(directory / "homeserver.pid"),
                    "media_store_path": str(directory / "media"),
                    "signing_key_path": str(directory / "signing.key"),
                    "registration_shared_secret": "secret",
                    "report_stats": False,
                    "trusted_key_servers": [],
                    "suppress_key_server_warning": True,
                    "rc_message": _UNLIMITED,
                    "rc_registration": _UNLIMITED,
                }
            )
        )
        trust = ssl.create_default_context(cafile=directory / "ca.pem")
        self.http = httpx.Client(base_url=f"https://{self.name}", verify=trust, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._run("--generate-keys")
        with (self._directory / "log").open("wb") as log:
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

    def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """What it answers to a client."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = self.http.get(path, headers=headers)
        return answer.status_code, answer.json()

    def log(self) -> str:
        """What it wrote last."""
        return (self._directory / "log").read_text("utf-8", "replace")[-20_000:]

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [self._python, "-m", "synapse.app.homeserver", "--config-path", self._config, *arguments],
            check=True,
            cwd=self._directory,
            capture_output=True,
        )
