"""How the runs of a results directory are added to a published leaderboard, without losing any run of others.

A published leaderboard is a folder. It holds everybody's `runs/<id>/record.json`, and the tables, plots and
page that are built from all of them, so that it passes `leaderboard check`. The key is the run's id, which
follows from the whole specification. A publisher adds or replaces runs and never removes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.files import record_text
from momentum_bench.harness.records.schema import PROTOCOL_VERSION, canonical_json
from momentum_bench.harness.records.store import DESIGNS, MARKER, Store
from momentum_bench.leaderboards.build import board_of, build
from momentum_bench.leaderboards.checking.check import departures, record_departures
from momentum_bench.leaderboards.printable import short_line
from momentum_bench.leaderboards.rendering.files import contents
from momentum_bench.leaderboards.rows import Row, model_names, result_of
from momentum_bench.leaderboards.tables import COLUMNS

ATTEMPTS = 20
"""How many times a commit is tried while other publishers commit at the same time."""

DESIGN_FILE = re.compile(r"[0-9a-f]{16}\.json")
"""The only allowed names of designs' files, because they become paths on the publisher's disk."""

BUILT_FOLDERS = ("tasks", "plots")
"""Folders of a leaderboard whose files are named after its tasks and settings."""

BUILT_FILES = (*(f"{name}.csv" for name in COLUMNS), "trials.parquet", "index.html")
"""Files of a leaderboard with fixed names; earlier leaderboards have fewer tables."""


@dataclass(frozen=True)
class Changes:
    """What publishing does to a leaderboard.

    Attributes:
        added, replaced: ids of runs.
        files: the content of each file to write, by its path in the leaderboard.
        removed: files of the earlier build that the new one does not have; never a record.
        rows: a line for each row of the leaderboard that is new or changes.
    """

    added: list[str]
    replaced: list[str]
    files: dict[str, bytes]
    removed: list[str]
    rows: list[str]

    @property
    def title(self) -> str:
        """The changes in one line."""
        return f"Leaderboard: {len(self.added)} runs added, {len(self.replaced)} replaced"


def check_own(directory: Path) -> None:
    """Raise a UserError if a results directory does not pass the check; then nothing of it is published."""
    Store(directory).check_version()
    _refuse(departures(directory), f"{directory} is not published")


def merge(published: Path, names: Iterable[str], own: Path, replace: bool) -> Changes:
    """Add a publisher's records to a copy of a published leaderboard's records, and build it again.

    A run that is published with the same result stays as it is. A failed run is replaced by one that did not
    fail.

    Args:
        published: a folder that we made, which is written to. It holds the published marker and records as
            plain files and nothing else, so no link in it leads elsewhere. It may be empty.
        names: the published files other than records. Those that the published leaderboard has and the new
            one does not have are removed. Other files belong to somebody else and stay.
        own: a results directory that has passed `check_own`.
        replace: also replace published runs whose result differs.

    Raises:
        UserError: results differ; another version wrote the published records; the records of both do not
            pass the check; or a file that no leaderboard wrote would be overwritten.
    """
    store, mine, names = Store(published), Store(own), set(names)
    is_new = not store.exists
    if store.exists:
        store.check_version()
    before, old_designs = store.records(), store.designs()
    there = [run_id for run_id in mine.run_folders() if (published / place_of(run_id)).exists()]
    added = sorted(set(mine.run_folders()) - set(there))
    replaced = [run_id for run_id in there if _differ(store, mine, run_id)]
    protected = [run_id for run_id in replaced if (run := store.read(run_id)) and run.status != "failed"]
    if protected and not replace:
        raise UserError(
            f"{len(protected)} run(s) are published with another result, the first: {protected[0]}. Nothing "
            f"was published. If the published ones are yours and wrong, replace them with --replace"
        )
    files = {place_of(run_id): (own / place_of(run_id)).read_bytes() for run_id in (*added, *replaced)}
    designs = {place_of_design(design): record_text(design).encode() for design in mine.designs()}
    files |= {name: content for name, content in designs.items() if not (published / name).exists()}
    if is_new:
        files[MARKER] = (canonical_json({"protocol_version": PROTOCOL_VERSION}) + "\n").encode()
    _write(published, files)
    # the records of others are checked before anything is built from them
    _refuse(record_departures(published), "with these runs the leaderboard would not pass the check")
    board = build(store)
    try:
        old_board = board_of(before, designs=old_designs)
        old_rows = old_board.rows
        old_names = set(contents(old_board)) if before else set()
    except (ArithmeticError, ValueError) as error:  # because of a wrong record that is being replaced
        raise UserError(f"no leaderboard can be built from what is published: {first_line(error)}") from error
    lost = {row.row_id for row in old_rows} - {row.row_id for row in board.rows}
    were_mixed = {row.row_id for row in old_rows if row.mixed}
    if newly := [row for row in board.rows if row.mixed and row.row_id not in were_mixed]:
        row = newly[0]
        raise UserError(
            f"with these runs {len(newly)} row(s) would lose their score, the first: {row.row_id} "
            f"({short_line(row.columns['task'])} {short_line(row.label)}), whose runs would mix "
            f"{short_line(row.mixed)}. Nothing was published. Do all runs of a row in one environment"
        )
    if lost:  # cannot happen, because runs are only added; checked because a lost row could not be restored
        raise UserError(f"row(s) {', '.join(sorted(lost))} would be lost: nothing was published")
    built = {name: c.encode() if isinstance(c, str) else c for name, c in contents(board).items()}
    if is_new and (taken := sorted(names & set(built))):
        raise UserError(
            f"{short_line(taken[0])} is there and does not belong to a leaderboard: it would be overwritten. "
            f"Publish into a folder of its own, such as --to CLONE/leaderboard"
        )
    removed = sorted(names & old_names - set(built))
    _write(published, built)
    _refuse(departures(published), "with these runs the leaderboard would not pass the check")
    return Changes(added, replaced, files | built, removed, _row_changes(old_rows, board.rows))


def place_of(run_id: str) -> str:
    """The path of a run's record in a leaderboard."""
    return f"runs/{run_id}/record.json"


def place_of_design(design: Design) -> str:
    """The path of a design in a leaderboard."""
    return f"{DESIGNS}/{design.design_id}.json"


def _differ(published: Store, own: Store, run_id: str) -> bool:
    there, new = published.read(run_id), own.read(run_id)
    assert new is not None  # because `check_own` has read it
    return there is None or result_of(there) != result_of(new)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _refuse(found: list[str], what: str) -> None:
    if found:
        lines = "\n".join(f"  {line}" for line in found[:10])
        raise UserError(f"{what}; {len(found)} departure(s), as `leaderboard check` finds them:\n{lines}")


def _row_changes(before: Iterable[Row], after: Iterable[Row]) -> list[str]:
    """A line for each row that is new or changes: a sign, the row, its number of runs and its test mean."""
    old = {row.row_id: row.columns for row in before}
    after = list(after)
    models = model_names(after)
    lines = []
    for row in after:
        c, was = row.columns, old.get(row.row_id)
        who = f"{row.row_id} {c['task']} {row.label}, {models[row.model_key]} by {c['method']}, k {c['k']}"
        if was is None:
            lines.append(short_line(f"+ {who}: {c['n_runs']} runs, test mean {c['test_mean']:.4f}"))
        elif (was["n_runs"], was["chosen_runs"], was["test_mean"]) != (
            c["n_runs"],
            c["chosen_runs"],
            c["test_mean"],
        ):
            lines.append(
                short_line(
                    f"~ {who}: {was['n_runs']} runs -> {c['n_runs']}, test mean {was['test_mean']:.4f} -> "
                    f"{c['test_mean']:.4f}"
                )
            )
    return lines
