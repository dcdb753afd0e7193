"""How stateful tests are run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.stateful import RuleBasedStateMachine


def run_machine(
    make: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int, derandomize: bool
) -> None:
    """Run examples of so many steps; `RESTANTE_NO_SHRINKING` shows the first failure as it was found."""
    run_state_machine_as_test(
        make,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomize,
            database=None,
            print_blob=True,
            phases=[Phase.generate]
            if os.environ.get("RESTANTE_NO_SHRINKING")
            else [Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
