"""A plan as people read it: a table of its stages."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from batchramp.benchmark.terminal import as_text
from batchramp.schedules import Plan


def render_plan(plan: Plan) -> RenderableType:
    """Return the stages of a plan and its totals; epochs are positions over N."""
    horizon = plan.horizon
    table = Table(box=box.SIMPLE_HEAD)
    for name in (
        "from epoch",
        "batch size",
        "rate",
        "rate at end",
        "momentum",
        "updates",
    ):
        table.add_column(name, justify="right")
    for stage in plan.stages:
        table.add_row(
            f"{stage.start / horizon.num_samples:.6g}",
            f"{stage.batch_size:,}",
            f"{stage.lr:.4g}",
            f"{stage.lr_end:.4g}",
            f"{stage.momentum:g}",
            f"{stage.updates:,}",
        )
    epochs = horizon.budget / horizon.num_samples
    title = (
        f"{plan.schedule.name}: {epochs:.6g} epochs of {horizon.num_samples:,} samples, "
        f"boundary {horizon.boundary}"
    )
    total = f"{plan.updates:,} updates, {plan.samples:,} samples"
    return Group(as_text(title, style="bold"), table, Text(total, style="bold"))
