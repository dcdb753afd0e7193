"""What is looked for in the leavings of a server would be found there."""

from __future__ import annotations

import base64
import json
import random
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.traces import files, traces

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "Plain/text+42~with é"
ENCODINGS = {
    "plain": lambda data: data,
    "base64": base64.b64encode,
    "URL-safe": base64.urlsafe_b64encode,
    "hexadecimal": lambda data: data.hex().encode(),
    "capitals": lambda data: data.hex().upper().encode(),
    "percent": lambda data: quote(data.decode(), safe="").encode(),
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "big end": lambda data: data.decode().encode("utf-16-be"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_found_in_every_encoding_wherever_it_stands(encoding: str) -> None:
    for before in range(7):
        for after in range(4):
            whole = ENCODINGS[encoding]((secrets.token_hex(8)[:before] + TEXT + "x" * after).encode())
            assert traces({"text": TEXT}, [("here", whole)]), (before, after)
            assert not traces({"text": TEXT.replace("42", "43")}, [("here", whole)])


def test_chance_finds_nothing() -> None:
    noise = random.Random(1).randbytes(1_000_000)
    assert traces({"text": TEXT}, [("noise", noise), ("JSON", json.dumps("\u00e9" * 99).encode())]) == set()


def test_all_files_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text(f"before {TEXT} after")
    assert {(name, form) for name, form, _ in traces({"text": TEXT}, files(tmp_path))} == {("text", "plain")}
