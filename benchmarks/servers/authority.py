"""Certificates for servers on this machine, which are checked as any others."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """A certificate authority that is believed in a benchmark."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.path))
        self.trust = ssl.create_default_context(cafile=self.path)

    def issue(self, directory: Path, *addresses: str) -> None:
        """Write `cert.pem` and `key.pem` of a server at these addresses."""
        certificate = self._authority.issue_cert(*addresses)
        certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
