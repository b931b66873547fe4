"""`momentum-bench run`, which `harness/run.py` starts too: from flags to a leaderboard."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from momentum_bench.harness.cli.exits import EXIT_NOT_WHOLE, plain_errors
from momentum_bench.harness.cli.options import OUTPUT, option, with_settings
from momentum_bench.harness.cli.output import (
    json_option,
    json_text,
    print_board,
    print_wrapped,
    quiet_option,
    results_in,
    run_facts,
    say_left_out,
)
from momentum_bench.harness.launcher import launched
from momentum_bench.harness.messages import note, print_table, printable
from momentum_bench.harness.records.budget import (
    Budget,
    budgets_in_words,
    budgets_of,
    not_compared_in_words,
)
from momentum_bench.harness.records.design import arm_of
from momentum_bench.harness.records.labels import run_labels
from momentum_bench.harness.records.schema import canonical_json
from momentum_bench.harness.records.status import STATES
from momentum_bench.harness.sweeps.grids import MOST_RUNS, check_number_of_runs, entry_of, is_of_arm
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.settings import FILES

if TYPE_CHECKING:
    from momentum_bench.harness.execution.plan_sweep import PlannedSweep, SweepEvents
    from momentum_bench.harness.execution.run_sweep import SweepOutcome
    from momentum_bench.harness.records.schema import RunRecord, RunSpec
    from momentum_bench.leaderboards.build import Leaderboard

MOST_SEEDS_IN_A_LINE = 5
"""With more seeds, --dry-run counts the runs of a line, which would not fit on a terminal."""


@with_settings
def run(
    *,
    sweep: Annotated[
        Path | None,
        option("TOML file with the same names; what is typed overrides it", group=FILES, metavar="FILE"),
    ] = None,
    retry_failed: Annotated[
        bool, option("Run again what is recorded as failed", "--retry-failed", group=OUTPUT)
    ] = False,
    resume_from: Annotated[
        list[Path] | None,
        option(
            "Take finished runs, after a check, from another results directory or a board with an archive",
            group=FILES,
            metavar="DIR",
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        option(
            "Folder for the leaderboard with all records, written every ten minutes and at the end; runs "
            "that it has are not done again",
            group=FILES,
            metavar="DIR",
        ),
    ] = None,
    dry_run: Annotated[
        bool, option("Print the runs and which of them are there, and stop", "--dry-run", group=OUTPUT)
    ] = False,
    yes: Annotated[
        bool, option(f"Start a sweep of more than {MOST_RUNS:,} runs", "--yes", group=OUTPUT)
    ] = False,
    quiet: Annotated[bool, quiet_option("the paths of the results", OUTPUT)] = False,
    as_json: Annotated[bool, json_option(OUTPUT)] = False,
    **given: Any,
) -> None:
    """Fine-tune over a grid of learning rates, SGD against SGDM, and build the leaderboard.

    Without --task it is the quick start, a small sweep whose task and model come from pip packages.
    Finished runs are never run again: type the same command to go on after an interruption.
    """
    flags = {name: value for name, value in given.items() if value is not None}
    if "data_parallel_ranks" in flags:  # typed as a flag; how many ranks there are, the launcher says
        flags["data_parallel_ranks"] = launched().ranks
    with plain_errors("finished runs are kept, type the same command to go on"):
        asked = make_sweep(flags, sweep)

        from momentum_bench.harness.execution.plan_sweep import plan_sweep

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's warning is a Ctrl-C
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not under nohup
            signal.signal(signal.SIGHUP, signal.default_int_handler)  # and so is a terminal that closes
        events = terminal_events(quiet)
        if not yes:
            check_number_of_runs(asked)
        with_records = [*(resume_from or ()), *_archives(archive)]
        planned = plan_sweep(asked, events, finished_elsewhere(with_records))
        if dry_run:
            planned = _with_what_follows(planned)
            _print_runs(planned.specs, planned.finished(), _budgets(planned), as_json)
            return

        outcome = _run_and_write(planned, events, retry_failed, archive)
        if not outcome.builds_board:
            return
        board = board_of_sweep(outcome)
        print_board(board, results_in(planned.store.output_dir), quiet, as_json)
        failed = [record for record in outcome.records.values() if record.status == "failed"]
    if failed:
        note(f"{len(failed)} run(s) failed, the first: {_in_a_line(failed[0])}")
    say_left_out(board)
    if failed or board.left_out:
        raise typer.Exit(EXIT_NOT_WHOLE)


def _with_what_follows(planned: PlannedSweep) -> PlannedSweep:
    """The plan with the runs that follow from those that are finished."""
    for _ in range(planned.sweep.extend_grid):
        planned = planned.grown() or planned
    while (now := planned.standing()) is not None and now.runs:
        before, planned = len(planned.specs), planned.with_runs(now.runs)
        if len(planned.specs) == before:
            break  # some of these runs are missing
    return planned


def _run_and_write(
    planned: PlannedSweep,
    events: SweepEvents,
    retry_failed: bool,
    archive: Path | None,
) -> SweepOutcome:
    """Do the runs that are missing, and write the leaderboard into the results directory and the archive."""
    from momentum_bench.harness.cli.archiving import SECONDS_BETWEEN, ArchivingEvents
    from momentum_bench.harness.execution.run_sweep import run_sweep
    from momentum_bench.leaderboards.rendering.files import write_board

    archiving = None
    if archive is not None:
        often = inf if launched().rank else SECONDS_BETWEEN  # one process is enough
        archiving = ArchivingEvents(events, planned.store, archive, often)
    outcome = run_sweep(planned, archiving or events, retry_failed)
    if outcome.builds_board:
        write_board(planned.store)
        if archiving is not None:
            archiving.write()
    return outcome


def _archives(folder: Path | None) -> list[Path]:
    """The folder of --archive, if it has an archive already."""
    from momentum_bench.leaderboards.archive import ARCHIVE

    return [] if folder is None or not (folder / ARCHIVE).is_file() else [folder]


def finished_elsewhere(directories: Sequence[Path]) -> dict[str, RunRecord]:
    """The records of other results directories or archives, checked, by run id.

    Raises:
        UserError: one of them cannot be read or does not pass the check.
    """
    from momentum_bench.leaderboards.checking.check import checked_runs

    found: dict[str, RunRecord] = {}
    for directory in directories:
        found |= checked_runs(directory)
    return found


def terminal_events(quiet: bool = False) -> SweepEvents:
    """What a sweep tells, as lines on stderr and, where that is a terminal, progress bars.

    Args:
        quiet: tell nothing.
    """
    from momentum_bench.harness.execution.plan_sweep import SweepEvents

    if quiet:
        return SweepEvents()
    from tqdm import tqdm

    class TerminalEvents(SweepEvents):
        shows_steps = sys.stderr.isatty()

        def message(self, text: str) -> None:
            note(text)

        def begun(self, n_runs: int) -> None:
            self.bar = tqdm(total=n_runs, desc="runs", disable=not self.shows_steps)

        def finished(self, number: int, n_runs: int, record: RunRecord) -> None:
            self.bar.update()
            self.bar.write(f"[{number}/{n_runs}] {_in_a_line(record)}", file=sys.stderr)
            if number == n_runs:
                self.bar.close()

    return TerminalEvents()


def board_of_sweep(outcome: SweepOutcome) -> Leaderboard:
    """The leaderboard of a sweep's own runs. The directory may hold runs of other sweeps, which it counts."""
    from momentum_bench.leaderboards.build import build

    return build(outcome.store)


def _in_a_line(record: RunRecord) -> str:
    if record.best is None or record.costs is None or record.test is None:
        return f"{record.spec.label}: {record.status} ({record.failure})"
    seconds = record.costs.train_seconds + record.costs.dev_seconds + record.costs.test_seconds
    return f"{record.spec.label}: dev {record.best.dev_metric:.4f}, {seconds:.1f} s"


def _budgets(planned: PlannedSweep) -> list[Budget]:
    """What the search of each arm costs on its tuning seeds."""
    sweep = planned.sweep
    costs: dict[str, float | None] = {}

    def per_step(spec: RunSpec) -> float | None:
        key = canonical_json(arm_of(spec))
        if key not in costs:
            entry = entry_of(sweep, next(arm for arm in sweep.optimizers if is_of_arm(sweep, arm, spec)))
            costs[key] = entry.evaluations_per_step if entry.closure else 1
        return costs[key]

    return budgets_of([spec for spec in planned.specs if spec.seed in sweep.grid_seeds], per_step)


def _print_runs(
    specs: Sequence[RunSpec], finished: Mapping[str, RunRecord], budgets: Sequence[Budget], as_json: bool
) -> None:
    """Print the runs of a plan, the states of those that are there, and what the search costs."""
    states = {spec.run_id: finished[spec.run_id].status for spec in specs if spec.run_id in finished}
    if as_json:
        runs = [run_facts(spec, states.get(spec.run_id, "missing")) for spec in specs]
        print(json_text({"runs": runs, "budgets": list(map(asdict, budgets))}))
        return
    seeds = list(dict.fromkeys(spec.seed for spec in specs))
    labels = run_labels(specs)
    lines: dict[tuple[str, str, float], dict[int, str]] = {}
    for spec in specs:
        line = lines.setdefault((spec.task, labels[spec.run_id], spec.learning_rate), {})
        line[spec.seed] = states.get(spec.run_id, "missing")
    headers: list[str]
    if len(seeds) > MOST_SEEDS_IN_A_LINE or any(spec.tuned for spec in specs):
        found = [state for state in STATES if any(state in cells.values() for cells in lines.values())]
        title, headers = f"Runs by effective rate, of {len(seeds)} seeds", list(map(str, found))
        texts = {key: [_count(cells, state) for state in found] for key, cells in lines.items()}
    else:
        title, headers = "Runs by effective rate and seed", list(map(str, seeds))
        texts = {key: [cells.get(seed, "") for seed in seeds] for key, cells in lines.items()}
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for header in ("task", "optimizer", "rate", *headers):
        table.add_column(header, no_wrap=True)
    for (task, optimizer, rate), of_line in sorted(texts.items()):
        table.add_row(*(Text(printable(text)) for text in (task, optimizer, f"{rate:g}", *of_line)))
    print_table(table, Console())
    for words in filter(None, [*budgets_in_words(budgets), not_compared_in_words(budgets)]):
        print_wrapped(words)


def _count(cells: Mapping[int, str], state: str) -> str:
    n = sum(each == state for each in cells.values())
    return str(n) if n else ""
