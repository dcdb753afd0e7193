from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
import structlog

from homeserver import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _leaves_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, settings = root.handlers, root.level, structlog.get_config()
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**settings)


@contextmanager
def request(number: str) -> Iterator[None]:
    token = logs.request_id.set(number)
    yield
    logs.request_id.reset(token)


def test_a_line_of_json_holds_the_fields_the_level_and_the_id_of_the_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    with request("r1"):
        structlog.get_logger("some.module").info("something_happened", room_id="!r", data=b"x")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "something_happened",
        "level": "info",
        "logger": "some.module",
        "request_id": "r1",
        "room_id": "!r",
        "data": "b'x'",
    }


def test_what_libraries_log_takes_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    with request("r1"):
        logging.getLogger("library").warning("full: %d", 3)
    entry = json.loads(capsys.readouterr().err)
    assert (entry["event"], entry["request_id"], entry["level"]) == ("full: 3", "r1", "warning")


def test_what_is_below_the_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "text")
    structlog.get_logger("some.module").info("unheard")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("output_format", ["text", "json"])
def test_a_traceback_shows_no_values_of_variables(
    capsys: pytest.CaptureFixture[str], output_format: str
) -> None:
    logs.configure("info", output_format)
    private = "what " + "people wrote"
    try:
        _ = [private][len(private)]
    except IndexError:
        structlog.get_logger("some.module").exception("failed")
    written = capsys.readouterr().err
    assert "IndexError" in written
    assert "people wrote" not in written.replace('"what " + "people wrote"', "")


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("output_format", ["text", "json"])
@pytest.mark.parametrize(
    "error",
    [
        KeyError("what people wrote"),
        ValueError("what people wrote"),
        ExceptionGroup("what people wrote", [ValueError("what people wrote")]),
        asyncpg.UniqueViolationError("what people wrote"),
    ],
)
def test_what_an_error_says_is_not_logged_since_it_may_hold_what_people_wrote(
    capsys: pytest.CaptureFixture[str], output_format: str, error: Exception
) -> None:
    logs.configure("info", output_format)
    private = "what " + "people wrote"
    try:
        try:
            fail(error)
        except type(error) as first:
            raise RuntimeError(private) from first
    except RuntimeError:
        structlog.get_logger("some.module").exception("failed")
        logging.getLogger("library").exception("failed there, too")
    written = capsys.readouterr().err
    assert written.count("builtins.RuntimeError") == 2
    assert written.count(f".{type(error).__name__}") == 2
    assert "in fail" in written
    assert private not in written


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk is full")]
)
def test_what_the_system_says_is_logged(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    logs.configure("info", "text")
    try:
        fail(error)
    except type(error):
        structlog.get_logger("some.module").exception("failed")
    assert str(error) in capsys.readouterr().err


async def test_an_error_that_nobody_caught_is_logged_like_all_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", "json")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.unhandled)
    loop.call_soon(fail, ValueError("what people wrote"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    entry = json.loads(capsys.readouterr().err)
    assert entry["event"] == "unhandled_error"
    assert "ValueError" in entry["exception"]
    assert "what people wrote" not in str(entry)
