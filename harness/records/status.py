"""The progress of a results directory: the state of each planned run, and the time left. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.budget import evaluations_by_run
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Store

State = Literal["done", "diverged", "failed", "running", "missing"]

STATES: tuple[State, ...] = ("done", "diverged", "failed", "running", "missing")


@dataclass(frozen=True)
class RunStatus:
    """The state of one run.

    Attributes:
        work: its amount of work, relative to the others (`sweeps.plan.work`); None: no stored plan has it.
        fraction: of its steps, at its last evaluation; 1 for a finished run, 0 for a missing one.
        seconds: how long it took; None: it is not done.
        evaluations: the gradients of whole batches that it evaluated; None: it is not done.
    """

    spec: RunSpec
    state: State
    work: float | None
    fraction: float
    seconds: float | None
    evaluations: int | None = None


def status_of(store: Store) -> list[RunStatus]:
    """All runs that a sweep of the directory planned or that have a record, by task and seed.

    A run is running while a live process holds its claim. Nothing is written.

    Raises:
        UserError: no sweep has started here.
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
        seconds = evaluations = None
        if record.status == "done" and (costs := record.costs):
            seconds = costs.train_seconds + costs.dev_seconds + costs.test_seconds
            evaluations = evaluations_by_run([record])[spec.run_id]
        return RunStatus(spec, record.status, work, 1.0, seconds, evaluations)
    if store.is_claimed(spec.run_id):  # a failed one too, under --retry-failed
        steps = store.steps_done(spec.run_id) or 0
        return RunStatus(spec, "running", work, min(1.0, steps / max(1, spec.max_steps)), None)
    if record is not None:
        return RunStatus(spec, "failed", work, 1.0, None)
    return RunStatus(spec, "missing", work, 0.0, None)


def time_left(runs: Sequence[RunStatus]) -> str:
    """How many runs are in each state, and how long the open runs will take, estimated from the done ones."""
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
        return f"{text}; nothing is running now; about {duration(seconds)} of work is left"
    return f"{text}; about {duration(seconds / at_a_time)} left with {at_a_time} at a time"


def _seconds_left(run: RunStatus, done: Sequence[RunStatus]) -> float:
    """Estimated from the seconds of finished runs: those of the same model and method, or else of all."""
    like = [d for d in done if (d.spec.model, d.spec.method) == (run.spec.model, run.spec.method)] or done
    pace = sum(d.seconds or 0 for d in like) / sum(d.work or 0 for d in like)
    return (run.work or 0) * (1 - run.fraction) * pace


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
