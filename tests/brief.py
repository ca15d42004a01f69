"""Fits of an epoch, or of half a second: examples show with them what they show."""

import time
from dataclasses import replace

from admc_sklearn._shared.training import TrainingPlan


def brief_plan_of():
    """`TrainingPlan.of` with the plan cut short."""
    plan_of = TrainingPlan.of

    def brief(*arguments):
        plan = plan_of(*arguments)
        deadline = min(plan.deadline, time.monotonic() + 0.5)
        return replace(plan, max_epochs=min(1, plan.max_epochs), deadline=deadline)

    return brief
