"""The command `batchramp`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from batchramp.benchmark.escaping import printable
from batchramp.names import suggest
from batchramp.user_code.errors import errors_named
from batchramp.user_code.printing import prints_apart
from batchramp.values import shown

if TYPE_CHECKING:
    from rich.console import Console

    from batchramp.benchmark.race import DryRun, Race
    from batchramp.benchmark.results import Results
    from batchramp.schedules import Description

FAILED, BAD_INPUT, INTERRUPTED, READER_GONE = 1, 2, 130, 141
"""Exit codes beside 0 and, of `compare`, 3: a gate could not decide. The last is what a
shell gives for a process whose output was no longer read, as in `batchramp list | head`."""

LONGEST_LINE = 1000
"""The most characters of an error."""


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            raise click.UsageError(suggest("command", args[0], self.commands))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # else click prints an empty line before ours
            raise click.Abort from None
        except BrokenPipeError:  # else click ends with 1, which is a gate's
            raise click.exceptions.Exit(READER_GONE) from None

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **extra)
        except BrokenPipeError:
            raise click.exceptions.Exit(READER_GONE) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batchramp")
def cli() -> None:
    """Which batch-size and learning-rate schedule reaches the target soonest?

    \b
    batchramp run                       race the papers' schedules on digits
    batchramp plan smith-increase       count a schedule's updates, no training
    batchramp report runs/quick         the tables again, or a page with --html
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; bad input is one line and code 2."""
    try:
        code = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="batchramp",
            standalone_mode=False,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except click.ClickException as error:
        return _complain(error.format_message(), BAD_INPUT)
    except click.Abort:
        return _complain(
            "interrupted; what is finished is kept, the same command goes on from there",
            INTERRUPTED,
        )
    except (ValueError, OSError) as error:
        return _complain(str(error), BAD_INPUT)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    line = " ".join(message.split())
    if len(line) > LONGEST_LINE:  # as a path of the system's own error may be
        line = f"{line[:LONGEST_LINE]}..."
    with suppress(OSError):  # nobody reads it any more
        click.echo(f"batchramp: {printable(line)}", err=True)
    return code


_json = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON, and nothing else, on standard output.",
)


def _parameters(
    _context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, Any]:
    """Read `key=value` pairs; a value is JSON, or else a string."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not (key and separator):
            raise click.UsageError(f"--set must be key=value, got {shown(pair)}")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
        except RecursionError:
            message = f"--set {shown(key)} must not nest so deeply, got {shown(text)}"
            raise click.UsageError(message) from None
    return values


@cli.command()
@click.argument("suite", default="quick")
@click.option("--out", help="Results folder.  [default: runs/<suite>]")
@click.option("--seeds", type=int, help="Instead of the suite's number of seeds.")
@click.option("--data", help="The directory that holds cifar10/, fashion-mnist/, ...")
@click.option("--device", help="cpu or cuda.  [default: cuda if there is a GPU]")
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    help="Trials at a time; more than one disturb each other's clocks.",
)
@click.option(
    "--measure",
    default="",
    metavar="LIST",
    help="What to measure at each look, off the train clock: any of gradient-norm, "
    "variance, noise-scale, sharpness, batch-mean, full-train-loss, with commas.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be run, and stop.")
@_json
def run(
    suite: str,
    out: str | None,
    seeds: int | None,
    data: str | None,
    device: str | None,
    jobs: int,
    measure: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Race a suite's schedules, and print when each reached its targets.

    SUITE is a built-in suite's name or a TOML file. Run again, it goes on where it was
    interrupted.

    \b
    batchramp run
    batchramp run fashion.toml --data ~/data --seeds 3
    batchramp run --measure noise-scale,sharpness --out runs/measured
    """
    try:
        from batchramp.benchmark.runner import make_race
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = "run trains with torch: pip install 'batchramp[torch]'"
        raise ValueError(message) from error
    from batchramp.benchmark.progress import ProgressMonitor
    from batchramp.benchmark.render import render_errors

    race = make_race(
        suite,
        out=out,
        seeds=seeds,
        data=data,
        device=device,
        jobs=jobs,
        measure=measure.split(",") if measure else (),
    )
    with ProgressMonitor(_console(error=True)) as monitor, prints_apart():
        if dry_run:
            found = race.dry_run(monitor)
        else:
            try:
                execution = race.run(monitor)
            except OSError as error:  # a full disk is no bad input
                return _complain(f"{error}; what is finished is kept", FAILED)
    if dry_run:
        return _print_dry_run(race, found, as_json=as_json)
    _print_results(execution.results, as_json=as_json)
    if errors := render_errors(execution.results):
        _console(error=True).print(errors, soft_wrap=True)
    failed = sum(outcome.status == "failed" for outcome in execution.outcomes)
    if failed:
        return _complain(
            f"{failed} {'trial' if failed == 1 else 'trials'} failed; the same command "
            f"tries {'it' if failed == 1 else 'them'} again",
            FAILED,
        )
    return 0


def _print_dry_run(race: Race, found: DryRun, *, as_json: bool) -> int:
    from rich.table import Table

    from batchramp.benchmark.terminal import as_text

    pending = found.pending
    entries: list[dict[str, Any]] = [
        {
            "panel": number,
            "schedule": entry.label,
            "updates": found.planned_updates[entry.label],
            "trials": race.suite.seeds,
        }
        for number, panel in enumerate(race.suite.panels)
        for entry in panel.entries
    ]
    if as_json:
        summary = {
            "out": str(race.out),
            "pending": pending,
            "entries": entries,
            "notes": found.notes,
        }
        click.echo(json.dumps(summary, indent=2))
        return 0
    title = f"{race.suite.name}: {pending} trials to run into {race.out}"
    table = Table(title=as_text(title))
    for column in ("panel", "schedule", "updates", "trials"):
        table.add_column(column, justify="left" if column == "schedule" else "right")
    for entry in entries:
        shown = {**entry, "panel": entry["panel"] + 1}  # as people count
        values = ("adaptive" if v is None else str(v) for v in shown.values())
        table.add_row(*map(as_text, values))
    _console().print(table)
    for note in found.notes:
        _console().print(as_text(f"Take care: {note}"), soft_wrap=True)
    return 0


@cli.command()
@click.argument("schedule")
@click.option("--num-samples", help="Training samples.  [default: the paper's]")
@click.option("--epochs", help="Passes over them.  [default: the paper's]")
@click.option(
    "--boundary",
    default="keep",
    show_default=True,
    help="At a pass's end: keep (a short last batch), drop or wrap.",
)
@click.option(
    "--set",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parameters,
    help="A parameter of the schedule; may be repeated.",
)
@_json
def plan(
    schedule: str,
    num_samples: str | None,
    epochs: str | None,
    boundary: str,
    parameters: dict[str, Any],
    as_json: bool,
) -> int:
    """Lay a schedule over a data set and count its updates, without training.

    \b
    batchramp plan smith-increase --boundary wrap
    batchramp plan umeda-increasing-batch --num-samples 1297 --epochs 12 \\
        --set max_batch_size=128 --set interval='"2 epochs"'
    """
    from batchramp import schedules
    from batchramp.benchmark.plan_view import render_plan

    own = ":" in schedule
    with prints_apart(), errors_named(schedule) if own else nullcontext():
        # Made first: a parameter may not be taken for an argument of `plan`.
        make = schedules.load if own else schedules.make
        laid = schedules.plan(
            make(schedule, **parameters),
            num_samples=num_samples,
            epochs=epochs,
            boundary=boundary,
        )
    if as_json:
        click.echo(json.dumps(laid.to_dict(), indent=2))
    else:
        _console().print(render_plan(laid))
    return 0


@cli.command()
@click.argument("folder", metavar="RUN")
@click.option("--html", help="Also write one page with tables and charts here.")
@_json
def report(folder: str, html: str | None, as_json: bool) -> int:
    """Print a run's tables again, or write its page.

    \b
    batchramp report runs/quick --html quick.html
    """
    from batchramp.benchmark.render import render_errors
    from batchramp.benchmark.results import read_results

    results = read_results(folder)
    if html is not None:
        from batchramp.benchmark.report import write_report

        write_report(results, html)
        click.echo(f"wrote {printable(html)}", err=True)
    _print_results(results, as_json=as_json)
    if not as_json and (errors := render_errors(results)):
        _console().print(errors, soft_wrap=True)
    return 0


@cli.command()
@click.argument("base")
@click.argument("new")
@click.option(
    "--margin",
    default=0.1,
    show_default=True,
    help="How much slower is still the same; of a metric, the share that may be lost.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="LIST",
    help="Quantities to look at, with commas: any of planned_updates, updates, samples, "
    "train_seconds, metric, total_train_seconds.  [default: all]",
)
@_json
def compare(
    base: str, new: str, margin: float, only: tuple[str, ...], as_json: bool
) -> int:
    """Tell whether run NEW is worse than run BASE; for gates in CI.

    Each side is a results folder, or at least three with commas between. Exit code 0:
    within the margin; 1: slower, worse, another plan, or a trial failed; 3: cannot
    tell, or the runs were asked different things.

    \b
    batchramp compare runs/main runs/branch --margin 0.1
    batchramp compare runs/main runs/branch --only updates,metric
    batchramp compare a1,a2,a3 b1,b2,b3
    """
    from batchramp.benchmark.compare import compare as compare_results
    from batchramp.benchmark.compare import read_side
    from batchramp.benchmark.comparison import QUANTITIES
    from batchramp.benchmark.comparison_view import (
        comparison_to_json,
        render_comparison,
    )

    found = compare_results(
        read_side(base),
        read_side(new),
        margin=margin,
        only=",".join(only).split(",") if only else QUANTITIES,
    )
    if as_json:
        click.echo(json.dumps(comparison_to_json(found), indent=2))
    else:
        _console().print(render_comparison(found))
    return found.exit_code


@cli.command(name="list")
@click.argument("schedule", required=False)
@_json
def list_names(schedule: str | None, as_json: bool) -> int:
    """Name the suites, schedules and workloads; or tell all of one SCHEDULE.

    \b
    batchramp list
    batchramp list smith-increase
    """
    from importlib import resources

    from batchramp import schedules
    from batchramp.workloads import BUILT_IN

    if schedule is not None:
        with prints_apart():
            described = schedules.describe(schedule)
        return _print_description(described, as_json=as_json)

    suites = resources.files("batchramp.benchmark") / "suites"
    found = {
        "suites": sorted(file.name.removesuffix(".toml") for file in suites.iterdir()),
        "schedules": schedules.summaries(),
        "workloads": BUILT_IN,
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return 0
    for kind, names in found.items():
        click.secho(kind, bold=True)
        for name in names:
            summary = names[name] if isinstance(names, dict) else ""
            click.echo(f"  {name:<24} {summary}".rstrip())
    return 0


def _print_description(schedule: Description, *, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(asdict(schedule), indent=2))
        return 0
    click.secho(printable(schedule.name), bold=True)
    click.echo(printable(schedule.summary))
    if schedule.source:
        click.echo(printable(schedule.source))
    click.echo(
        f"{schedule.num_samples:,} samples and {schedule.epochs} epochs, or others"
    )
    for parameter in schedule.parameters:
        default = json.dumps(parameter.default)
        meaning = printable(parameter.meaning)
        click.echo(f"  {parameter.name:<16} {default:<18} {meaning}")
    return 0


def _print_results(results: Results, *, as_json: bool) -> None:
    from batchramp.benchmark.render import render, to_json

    if as_json:
        click.echo(json.dumps(to_json(results), indent=2))
    else:
        _console().print(render(results))


def _console(*, error: bool = False) -> Console:
    from batchramp.benchmark import terminal

    return terminal.remarks() if error else terminal.output()
