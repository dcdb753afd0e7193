"""`restante jobs`: long work that is under way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import typer

from homeserver.cli.control import perform
from homeserver.cli.options import DEFAULT_CONFIG, ConfigOption
from homeserver.clock import Clock


def jobs(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show long work that is under way: who joins which room of other servers, and how far that is."""
    now_ms = Clock().now_ms()
    for job in perform(config, "jobs")["jobs"]:
        typer.echo(f"{job['kind']}  {job['user_id']}  {job['room_id']}  {_state(job, now_ms)}")


def _state(job: dict[str, Any], now_ms: int) -> str:
    parts = [_phase(job), f"for {timedelta(seconds=max(0, now_ms - job['created_ts']) // 1000)}"]
    if job["tried"]:
        parts.append(f"by way of {job['tried'][-1]}")
    if job["tried"][:-1]:
        parts.append(f"in vain by {', '.join(job['tried'][:-1])}")
    if job["last_error"] is not None:
        parts.append(f"last error: {job['last_error']}")
    return "; ".join(parts)


def _phase(job: dict[str, Any]) -> str:
    phase, received = job["phase"], job["received"]
    if phase == "receiving":
        return f"receiving, {received:,} events so far"
    if phase in ("checking", "writing"):
        done = job["checked" if phase == "checking" else "written"]
        return f"{phase}, {done:,} of {received:,} events"
    return str(phase)
