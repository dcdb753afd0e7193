"""What people can set and type is documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from homeserver.cli.program import program
from homeserver.config import ListenerSettings, Settings, TlsSettings, keys_of
from homeserver.http.rate_limits import RATE_LIMITS, RateLimit

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def commands(group: Any, prefix: str) -> list[str]:
    found = []
    for name, command in group.commands.items():
        full = f"{prefix} {name}"
        found += commands(command, full) if hasattr(command, "commands") else [full]
    return found


def test_every_key_is_in_the_documentation() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    keys = [*keys_of(Settings), *keys_of(ListenerSettings), *keys_of(TlsSettings)]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_every_key_in_the_documentation_exists() -> None:
    keys = (ROOT / "docs/configuration.md").read_text().partition("## Rate limits")[0]
    table = [line for line in keys.splitlines() if line.startswith("| `")]
    named = [key for line in table for key in re.findall(r"`([a-z_.]+)`", line.split("|")[1])]
    assert [key for key in named if key not in keys_of(Settings)] == []


def test_the_rate_limits_of_the_documentation_are_those_of_the_code() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d+) \| ([\d.]+) \|", text, re.MULTILINE)
    told = {name: RateLimit(float(per_second), int(burst)) for name, burst, per_second in rows}
    assert told == RATE_LIMITS


def test_every_command_is_in_the_documentation() -> None:
    group = typer.main.get_command(program)
    text = (ROOT / "docs/install.md").read_text()
    assert sorted(commands(group, "restante")) == sorted(
        re.findall(r"^\| `(restante [a-z -]+)`", text, re.MULTILINE)
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z]+)`", document.read_text()))
        assert named <= targets, document
