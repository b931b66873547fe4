"""What a command prints: for a person, as one JSON document, or nothing but paths."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from momentum_bench.harness.cli.options import option
from momentum_bench.harness.messages import note, printable

if TYPE_CHECKING:
    from momentum_bench.harness.records.schema import RunSpec
    from momentum_bench.leaderboards.build import Leaderboard


def results_in(folder: Path) -> list[Path]:
    """The files of a leaderboard that a command names when it is done; others lie next to them."""
    from momentum_bench.leaderboards.rendering.files import FIRST_FILES

    return [folder / name for name in FIRST_FILES]


def print_listing(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print facts for a person or for a script: a table on a terminal, tab-separated lines elsewhere."""
    if sys.stdout.isatty():
        table = Table(*header, box=box.SIMPLE)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:
        print(*("\t".join(row) for row in (header, *rows)), sep="\n")


def print_wrapped(text: str) -> None:
    """Print a sentence in lines of at most 80 characters, as narrow as a usual terminal."""
    print(fill(printable(text), 80, break_long_words=False, break_on_hyphens=False))


def json_option(group: str | None = None) -> Any:
    """`--json`."""
    return option("Print the result on stdout as one JSON document", "--json", group=group)


def quiet_option(what_is_left: str, group: str | None = None) -> Any:
    """`--quiet`; errors are printed whatever is left out."""
    return option(f"Print only errors and {what_is_left}", "--quiet", "-q", group=group)


def json_text(document: Mapping[str, Any]) -> str:
    """A document as JSON: a number that is none is null, a path is text."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_board(board: Leaderboard, files: Sequence[Path], quiet: bool, as_json: bool) -> None:
    """Print a leaderboard: tables and sentences, or one document, or only where it was written.

    The document has the rows, comparisons and pooled lines with the columns of the CSV files, the notes,
    and the paths of the files.
    """
    if as_json:
        document = {
            "rows": [row.columns for row in board.rows],
            "comparisons": [comparison.columns for comparison in board.comparisons],
            "pooled": [line.columns for line in board.pooled],
            "notes": board.notes,
            "left_out": [each.sentence for each in board.left_out],
            "files": files,
        }
        print(json_text(document))
        return
    if not quiet:
        from momentum_bench.leaderboards.rendering import terminal

        terminal.print_board(board, Console())
    if files:
        print(", ".join(map(str, files)))


def say_left_out(board: Leaderboard) -> None:
    """One line on stderr that says that the leaderboard is not whole; its notes say all."""
    if board.left_out:
        n = len(board.left_out)
        more = f"; and {n - 1} more" if n > 1 else ""
        note(f"the leaderboard is not whole: {board.left_out[0].sentence.rstrip('.')}{more}")


def run_facts(spec: RunSpec, state: str) -> dict[str, Any]:
    """A run in a document: its id, what tells it from the others of its sweep, and its state."""
    names = ("task", "model", "method", "k", "optimizer", "learning_rate", "seed")
    return (
        {"run_id": spec.run_id}
        | {name: getattr(spec, name) for name in names}
        | ({"settings": dict(spec.point.settings)} if spec.tuned else {})
        | {"state": state}
    )
