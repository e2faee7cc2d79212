"""The two baselines of an honest comparison: which of them a panel lacks."""

from __future__ import annotations

from batchramp.schedules import Plan, Schedule


def missing_baselines(
    made: list[Schedule], plans: list[Plan | None], tuned: list[bool]
) -> list[str]:
    """Say which of the two baselines of an honest comparison a panel lacks.

    Args:
        made: A panel's schedules.
        plans: Their plans; None for an adaptive one, whose `lr` counts as its rate.
        tuned: Whether each has a tuning search.
    """
    rates = [
        {rate for stage in plan.stages for rate in (stage.lr, stage.lr_end)}
        if plan
        else {float(schedule.parameters().get("lr", 0))}
        for schedule, plan in zip(made, plans, strict=True)
    ]
    held = [plan is not None and len(plan.runs) == 1 for plan in plans]
    largest = max(set().union(*rates))
    missing = []
    if not any(flat and of == {largest} for flat, of in zip(held, rates, strict=True)):
        missing.append(
            f"this panel has no constant batch at its largest rate, {largest:g}, so "
            "part of a difference may be the rate's"
        )
    cosines = [
        searched
        for flat, schedule, searched in zip(held, made, tuned, strict=True)
        if flat
        and (
            schedule.name == "constant-cosine"
            or schedule.parameters().get("decay") == "cosine"
        )
    ]
    if not cosines:
        missing.append("this panel has no constant batch with a cosine")
    elif not any(cosines):
        missing.append("this panel's constant batch with a cosine was not tuned")
    return missing
