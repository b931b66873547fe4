"""A leaderboard in Python: the tables as data frames, in a notebook as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.api.frames import frame
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import drawn
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.archive import ArchivedStore
from momentum_bench.leaderboards.build import Leaderboard as BuiltLeaderboard
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.rendering.files import save
from momentum_bench.leaderboards.rendering.terminal import percent
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tables import COLUMNS, tables_of

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 12
"""Rows and sentences of a leaderboard that `repr` shows; its tables hold all of them."""


@dataclass(frozen=True, repr=False)
class Leaderboard(BuiltLeaderboard):
    """The best-per-optimizer results of records, and the paired comparisons of the optimizers.

    Attributes:
        rows: one for each optimizer of each setting: `row.columns` is its row of leaderboard.csv.
        comparisons: the pairs of optimizers, second minus first; `.sentence` and `.verdict` say it in words.
        pooled: a pair over several tasks.
        notes: sentences on what was left out, and why.
        left_out: those of them after which the board is not whole, such as cells without a result.
        margin: half the width of the band of equivalence, a fraction.
    """

    def to_pandas(self) -> pd.DataFrame:
        """The rows, with the columns of leaderboard.csv.

        A number is a number, and a missing one is NaN or NA. A cell that holds several values (`seeds`,
        `learning_rates`, `grid`) is text, the values separated by `;`, as in the CSV.
        """
        return frame((row.columns for row in self.rows), COLUMNS["leaderboard"])

    def comparisons_to_pandas(self) -> pd.DataFrame:
        """The comparisons, with the columns of comparison.csv; see `to_pandas`."""
        return frame((pair.columns for pair in self.comparisons), COLUMNS["comparison"])

    def pooled_to_pandas(self) -> pd.DataFrame:
        """The pooled lines, with the columns of pooled.csv; see `to_pandas`."""
        return frame((line.columns for line in self.pooled), COLUMNS["pooled"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table, by the name of its CSV file without `.csv`; see `to_pandas`.

        They are `leaderboard`, `comparison`, `pooled`, `tuning_budget`, `sensitivity`,
        `matched_differences` and `regret`. A table without rows has its columns.
        """
        return {name: frame(lines, COLUMNS[name]) for name, lines in tables_of(self).items()}

    def save(self, directory: str | PathLike[str]) -> None:
        """Write what `momentum-bench leaderboard build --out DIRECTORY` writes, records too.

        Where the directory has no `runs/`, the archive of all records is written too, so that
        `leaderboard check` can compute the tables again.

        Raises:
            UserError: the directory cannot be written, or it is not ours and has files of these names.
        """
        save(self, Path(directory))

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{len(part)} {name}{'' if len(part) == 1 else 's'}"
            for part, name in ((self.rows, "row"), (self.comparisons, "comparison"), (self.notes, "note"))
        )
        lines = [_line(row) for row in self.rows]
        lines += [*self._sentences, *self.notes]
        more = [f"... and {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
        return "\n".join([f"Leaderboard: {counts}", *(f"  {line}" for line in lines[:MOST_LINES] + more)])

    def _repr_html_(self) -> str:
        """A table for a notebook: the rows, and below them the comparisons and notes in words."""
        import pandas as pd

        table = pd.DataFrame([_cells(row) for row in self.rows]).to_html(index=False, border=0, max_rows=60)
        sentences = [*self._sentences, *self.notes]
        return table + "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)

    @property
    def _sentences(self) -> list[str]:
        comparisons = [pair.sentence for pair in self.comparisons if not pair.refused]  # notes say why
        return comparisons + [line.sentence for line in self.pooled]


def leaderboard_of(
    stores: Sequence[Store | ArchivedStore], margin: float | None, mix_environments: bool = False
) -> Leaderboard:
    """The leaderboard of the records of stores.

    Raises:
        UserError: there is no finished run, or the margin is out of range.
    """
    if margin is not None and not 0 < margin < 1:
        raise UserError(f"margin {margin:g}: expected a fraction between 0 and 1; 0.01 is one point")
    board = build(*stores, margin=margin, mix_environments=mix_environments)
    if not board.rows:
        names = ", ".join(str(store.output_dir) for store in stores)
        raise UserError(f"no finished run in {names}: let a sweep end first")
    return Leaderboard(**{each.name: getattr(board, each.name) for each in fields(board)})


def _cells(row: Row) -> dict[str, Any]:
    """A row as a notebook shows it; scores in per cent."""
    c = row.columns
    return {
        **{name: c[name] for name in ("task", "model", "method", "k")},
        "optimizer": row.label,
        f"test {c['metric']}": percent(c["test_mean"]),
        "sd": percent(c["test_std"]),
        "±95 %": percent(c["test_ci_high"] - c["test_mean"]),
        "dev": percent(c["dev_mean"]),
        "seeds": c["n_seeds"],
        "chosen rates": c["learning_rates"].replace(";", " "),
        "tied": c["n_tied"],
        "edge": c["on_grid_edge"],
        "diverged": c["n_diverged"],
        "failed": c["n_failed"],
    }


def _line(row: Row) -> str:
    c = row.columns
    seeds = f"{c['n_seeds']} seed{'' if c['n_seeds'] == 1 else 's'}"
    score = f"{c['metric']} {percent(c['test_mean'])} % on test"
    return f"{c['task']}, {c['model']}, {c['method']}, {drawn(c['k'])}: {row.label}: {score}, {seeds}"
