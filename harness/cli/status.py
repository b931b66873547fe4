"""`momentum-bench status`: which runs of a results directory are done, and the time left."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.cli.output import json_option, json_text, print_wrapped, quiet_option, run_facts
from momentum_bench.harness.messages import print_table, printable
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.records.budget import Budget, budgets_in_words, budgets_of
from momentum_bench.harness.records.design import arm_of, confirming_seeds, setting_of
from momentum_bench.harness.records.labels import run_labels
from momentum_bench.harness.records.schema import RunSpec, canonical_json, drawn
from momentum_bench.harness.records.status import STATES, RunStatus, status_of, time_left
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.sweeps.confirming import progress_in_words, standings_of

MOST_COLUMNS = 5
"""Largest number of seeds that fit into a terminal of 80 characters. With more, a line counts states, and so
it does where tuned axes make names longer."""


def _parts(runs: Sequence[RunStatus]) -> dict[str, list[RunStatus]]:
    """The runs of each model, method and k, by a title of them, in order."""
    groups: dict[tuple[str, str, int], list[RunStatus]] = defaultdict(list)
    for run in runs:
        groups[run.spec.model, run.spec.method, run.spec.k].append(run)
    return {f"{model} by {method}, {drawn(k)}": part for (model, method, k), part in sorted(groups.items())}


def _table_of(title: str, runs: Iterable[RunStatus]) -> Table:
    """A table by effective rate and seed. A running run shows how far it is."""
    runs = list(runs)
    seeds = sorted({run.spec.seed for run in runs})
    by_seed = len(seeds) <= MOST_COLUMNS and not any(run.spec.tuned for run in runs)
    found = [state for state in STATES if any(run.state == state for run in runs)]
    columns = list(map(str, seeds)) if by_seed else list(map(str, found))
    labels = run_labels(run.spec for run in runs)
    lines: dict[tuple[str, str, float], dict[str, Counter[str]]] = {}
    for run in runs:
        spec = run.spec
        cells = lines.setdefault((spec.task, labels[spec.run_id], spec.learning_rate), {})
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
    """One state, or a number; several states where sweeps with other settings have runs in the same cell."""
    if states is None:
        return ""
    return " ".join(word if word and n == 1 else f"{n} {word}".strip() for word, n in states.items())


def budgets_by_part(store: Store, runs: Sequence[RunStatus]) -> dict[str, list[Budget]]:
    """What the search of each arm costs on its tuning seeds, by the title of the table that has its runs.

    What a step costs is known for our optimizers, and for others when a run of theirs is done.
    """
    confirming = confirming_seeds(store.designs())
    tuning = [
        run for run in runs if run.spec.seed not in confirming.get(canonical_json(setting_of(run.spec)), ())
    ]
    ratios: dict[str, list[float]] = defaultdict(list)
    for run in tuning:
        if run.evaluations is not None and run.spec.max_steps:
            ratios[canonical_json(arm_of(run.spec))].append(run.evaluations / run.spec.max_steps)

    def per_step(spec: RunSpec) -> float | None:
        if found := ratios.get(canonical_json(arm_of(spec))):
            return math.fsum(found) / len(found)
        entry = OPTIMIZERS.get(spec.optimizer)
        return 1.0 if entry is not None and entry.closure is None else None

    return {title: budgets_of([run.spec for run in part], per_step) for title, part in _parts(tuning).items()}


def designs_in_words(store: Store) -> dict[str, list[str]]:
    """What each design of the directory has chosen and decided so far, by the design's id."""
    designs = [design for design in store.designs() if design.confirm_seeds]
    return {
        design.design_id: progress_in_words(design, now)
        for design, now in standings_of(designs, store.records() if designs else ())
    }


def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The results directory of a sweep")],
    quiet: Annotated[bool, quiet_option("the last line, with the number of runs in each state")] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """Show which runs are done, running, diverged, failed or missing, and the time left."""
    with plain_errors("nothing was changed"):
        store = Store(directory)
        store.check_version()
        runs = status_of(store)
        budgets = budgets_by_part(store, runs)
        if as_json:
            facts = [
                run_facts(run.spec, run.state) | {"fraction": run.fraction, "seconds": run.seconds}
                for run in runs
            ]
            counts = Counter(run.state for run in runs)
            document = {
                "runs": facts,
                "counts": counts,
                "budgets": {title: list(map(asdict, part)) for title, part in budgets.items()},
                "designs": designs_in_words(store),
            }
            print(json_text(document | {"summary": time_left(runs)}))
            return
        if not quiet:
            for title, part in _parts(runs).items():
                print_table(_table_of(title, part), Console())
                for line in budgets_in_words(budgets.get(title, ())):
                    print_wrapped(line)
            for line in (line for lines in designs_in_words(store).values() for line in lines):
                print(printable(line))
        print(time_left(runs))
