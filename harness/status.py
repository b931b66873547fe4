"""How far a results directory is: each planned run's state, and the time left. No torch here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table

from harness.errors import UserError
from harness.records import RunRecord, RunSpec, drawn
from harness.store import Store

State = Literal["done", "diverged", "failed", "running", "missing"]

STATES: tuple[State, ...] = ("done", "diverged", "failed", "running", "missing")

MOST_COLUMNS = 5
"""Of seeds, in a terminal of 80 characters; where there are more, each line counts states instead."""


@dataclass(frozen=True)
class RunStatus:
    """One run as it stands.

    Attributes:
        work: how much it is beside the others (`shares.work`); None: in no plan that is left.
        fraction: of its steps, at its last evaluation; 1 where it is finished, 0 where it is missing.
        seconds: that it took; None where it is not done.
    """

    spec: RunSpec
    state: State
    work: float | None
    fraction: float
    seconds: float | None


def status_of(store: Store) -> list[RunStatus]:
    """All runs that some sweep of the directory planned or that have a record, in the plans' order.

    A run is running while a live process holds its claim. Nothing is written.

    Raises:
        UserError: no sweep has begun here.
    """
    records = {record.spec.run_id: record for record in store.records()}
    planned = {
        spec.run_id: (spec, work)
        for plan in store.plans()
        for spec, work in zip(plan.specs, plan.work, strict=True)
    }
    known = planned | {name: (r.spec, None) for name, r in records.items() if name not in planned}
    if not known:
        raise UserError(f"{store.output_dir} holds no plan and no record: start a sweep there first")
    return [
        _status(store, spec, amount, records.get(spec.run_id))
        for spec, amount in sorted(known.values(), key=lambda pair: (pair[0].task, pair[0].seed))
    ]


def _status(store: Store, spec: RunSpec, work: float | None, record: RunRecord | None) -> RunStatus:
    if record is not None and record.status != "failed":
        seconds = None
        if record.status == "done" and (costs := record.costs):
            seconds = costs.train_seconds + costs.dev_seconds + costs.test_seconds
        return RunStatus(spec, record.status, work, 1.0, seconds)
    if store.is_claimed(spec.run_id):  # a failed one too, under --retry-failed
        steps = store.steps_done(spec.run_id) or 0
        return RunStatus(spec, "running", work, min(1.0, steps / max(1, spec.max_steps)), None)
    if record is not None:
        return RunStatus(spec, "failed", work, 1.0, None)
    return RunStatus(spec, "missing", work, 0.0, None)


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
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for header in ("task", "optimizer", "rate", *columns):
        table.add_column(header, no_wrap=True)
    for (task, optimizer, rate), cells in sorted(lines.items()):
        table.add_row(task, optimizer, f"{rate:g}", *(_cell(cells.get(column)) for column in columns))
    return table


def _cell(states: Counter[str] | None) -> str:
    """One word, or a number; several words where sweeps of other settings (batch size, say) share it."""
    if states is None:
        return ""
    return " ".join(word if word and n == 1 else f"{n} {word}".strip() for word, n in states.items())


def time_left(runs: Sequence[RunStatus]) -> str:
    """How many runs are in each state, and how long the others will take, from those that are done."""
    counts = Counter(run.state for run in runs)
    text = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    open_runs = [run for run in runs if run.state in ("running", "missing")]
    if not open_runs:
        return text
    done = [run for run in runs if run.seconds is not None and run.work is not None]
    if not done:
        return f"{text}; time left: not known before a run is done"
    seconds = sum(_seconds_left(run, done) for run in open_runs)
    at_a_time = counts["running"]
    if not at_a_time:
        return f"{text}; nothing is running now; about {_in_words(seconds)} of work is left"
    return f"{text}; about {_in_words(seconds / at_a_time)} left with {at_a_time} at a time"


def _seconds_left(run: RunStatus, done: Sequence[RunStatus]) -> float:
    """By the seconds that finished runs took for their work: of the same model and method, else of all."""
    like = [d for d in done if (d.spec.model, d.spec.method) == (run.spec.model, run.spec.method)] or done
    pace = sum(d.seconds or 0 for d in like) / sum(d.work or 0 for d in like)
    return (run.work or 0) * (1 - run.fraction) * pace


def _in_words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
