"""`momentum-bench status`: which runs of a results directory are done, and the time left."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.messages import print_table, printable
from momentum_bench.harness.records.schema import drawn
from momentum_bench.harness.records.status import STATES, RunStatus

if TYPE_CHECKING:
    pass


MOST_COLUMNS = 5
"""Of seeds, in a terminal of 80 characters; where there are more, each line counts states instead."""


def tables(runs: Sequence[RunStatus]) -> list[Table]:
    """A table by effective rate and seed for each model, method and k; of running ones, the share done."""
    groups: dict[tuple[str, str, int], list[RunStatus]] = defaultdict(list)
    for run in runs:
        groups[run.spec.model, run.spec.method, run.spec.k].append(run)
    return [
        _table(f"{model} by {method}, {drawn(k)}", part)
        for (model, method, k), part in sorted(groups.items())
    ]


def _table(title: str, runs: Iterable[RunStatus]) -> Table:
    runs = list(runs)
    seeds = sorted({run.spec.seed for run in runs})
    by_seed = len(seeds) <= MOST_COLUMNS
    columns = list(map(str, seeds)) if by_seed else list(STATES)
    lines: dict[tuple[str, str, float], dict[str, Counter[str]]] = {}
    for run in runs:
        spec = run.spec
        cells = lines.setdefault((spec.task, spec.optimizer, spec.learning_rate), {})
        word = f"{run.fraction:.0%}" if run.state == "running" else run.state
        place, word = (str(spec.seed), word) if by_seed else (run.state, "")
        cells.setdefault(place, Counter())[word] += 1
    table = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE)
    for header in ("task", "optimizer", "rate", *columns):
        table.add_column(header, no_wrap=True)
    for (task, optimizer, rate), cells in sorted(lines.items()):
        texts = (task, optimizer, f"{rate:g}", *(_cell(cells.get(column)) for column in columns))
        table.add_row(*(Text(printable(text)) for text in texts))
    return table


def _cell(states: Counter[str] | None) -> str:
    """One word, or a number; several words where sweeps of other settings (batch size, say) share it."""
    if states is None:
        return ""
    return " ".join(word if word and n == 1 else f"{n} {word}".strip() for word, n in states.items())


def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The results directory of a sweep")],
) -> None:
    """Show which runs are done, running, diverged, failed or missing, and the time left."""
    from momentum_bench.harness.records.status import status_of, time_left
    from momentum_bench.harness.records.store import Store

    with plain_errors("nothing was changed"):
        store = Store(directory)
        store.check_version()
        runs = status_of(store)
        for table in tables(runs):
            print_table(table, Console())
        print(time_left(runs))
