"""Run a planned sweep: do the runs that are missing, and let its grids grow if it asks for that.

Nothing here prints. What a person may want to see goes to `SweepEvents`: the command line prints it, and a
notebook shows it as a progress bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from momentum_bench.harness.execution.capacity import bytes_to_come, runs_at_a_time
from momentum_bench.harness.execution.data_parallel import dismiss, follow
from momentum_bench.harness.execution.device import device_line
from momentum_bench.harness.execution.job import Job
from momentum_bench.harness.execution.local import Pools, execute
from momentum_bench.harness.execution.plan_sweep import PlannedSweep, SweepEvents
from momentum_bench.harness.execution.prepare import prepare, prepare_for_others, remarks
from momentum_bench.harness.execution.workers import closing_pools
from momentum_bench.harness.launcher import by_torchrun, launched
from momentum_bench.harness.records.schema import Plan, RunRecord, RunSpec
from momentum_bench.harness.records.store import SweepStore
from momentum_bench.harness.sweeps.confirming import progress_in_words, standing
from momentum_bench.harness.sweeps.grids import rates
from momentum_bench.harness.sweeps.plan import longest_first, share_out


@dataclass(frozen=True)
class SweepOutcome:
    """What is there when `run_sweep` returns.

    Attributes:
        records: of the plan's runs, by run id.
        builds_board: whether this process is the one that should build the leaderboard.
    """

    planned: PlannedSweep
    records: dict[str, RunRecord]
    builds_board: bool

    @property
    def store(self) -> SweepStore:
        """The results directory, of which only this sweep's runs are seen."""
        design = self.planned.design
        return SweepStore(
            self.planned.store.output_dir,
            self.planned.specs,
            self.records.values(),
            () if design is None else (design,),
        )


def run_sweep(planned: PlannedSweep, events: SweepEvents, retry_failed: bool = False) -> SweepOutcome:
    """Do the runs of a plan that are missing: in this process, in workers, or on a cluster.

    A rank of a launcher does its share of them.

    Args:
        retry_failed: run again what is recorded as failed.

    Raises:
        UserError: something cannot be prepared, or the disk or an input is gone. Finished runs are kept.
    """
    how = _How(events, retry_failed)
    with closing_pools(how.pools):
        return _run_sweep(planned, how)


@dataclass(frozen=True)
class _How:
    """How the runs of a sweep are done, from its first part to its last.

    Attributes:
        pools: its workers, which stay from the tuning runs to the last look: to start a process and to load
            its libraries, model and data takes longer than many a run.
    """

    events: SweepEvents
    retry_failed: bool
    pools: Pools = field(default_factory=list)
    _told: set[str] = field(default_factory=set)

    def tell_once(self, text: str) -> None:
        """A message that later parts of the sweep would only repeat."""
        if text not in self._told:
            self._told.add(text)
            self.events.message(text)


def _run_sweep(planned: PlannedSweep, how: _How) -> SweepOutcome:
    rank, ranks, _ = launched()
    together = planned.sweep.data_parallel_ranks is not None
    _keep(planned)
    if together and rank:
        follow(prepare([], planned.inputs, planned.sweep.precision, together=True))
        return SweepOutcome(planned, planned.finished(), builds_board=False)
    # Ranks start at different moments, so the share of a rank must not depend on what is finished now.
    fresh = (
        longest_first(planned.specs, planned.amounts)
        if together
        else share_out(planned.specs, planned.amounts, ranks)[rank]
    )
    did_runs = _run_missing(planned, fresh, how)
    if ranks > 1 and not together:
        # What other ranks have not begun is done here too. So nothing is missing where a rank died or never
        # came, as after WORLD_SIZE was left in a shell; runs that another rank holds are waited for.
        did_runs |= _run_missing(planned, planned.specs, replace(how, retry_failed=False))
    for _ in range(planned.sweep.extend_grid):
        grown = planned.grown()
        if grown is None:
            break
        how.events.message(f"a best rate is on the edge of its grid; now {_grids(grown)}")
        planned = _run_added(planned, grown, how)
    planned = _confirm(planned, how)
    if together:
        dismiss(prepare([], planned.inputs, planned.sweep.precision, together=True).accelerator)
    # torchrun's rank 0 is always there; without torchrun this rank may be the only one that came. Failed
    # runs that are done again count as finished, so that rank 0 does not wait for them.
    builds_board = rank == 0 or (did_runs and (how.retry_failed or not by_torchrun()))
    return SweepOutcome(planned, planned.finished(), builds_board)


def _confirm(planned: PlannedSweep, how: _How) -> PlannedSweep:
    """Run the confirming seeds from look to look, until all is decided or the last look is reached.

    All processes that work on the sweep do this. A look takes place when all of its runs have ended, so each
    process sees the same results at it, and none looks between two looks.
    """
    design = planned.design
    while design is not None and design.confirm_seeds:
        now = standing(design, planned.finished())
        for text in progress_in_words(design, now):
            how.tell_once(text)
        if not now.runs:
            break
        planned = _run_added(planned, planned.with_runs(now.runs), how)
    return planned


def _run_added(before: PlannedSweep, planned: PlannedSweep, how: _How) -> PlannedSweep:
    """Do the runs that a plan has and the plan before it had not; returns the plan."""
    _keep(planned)
    known = {spec.run_id for spec in before.specs}
    fresh = [s for s in longest_first(planned.specs, planned.amounts) if s.run_id not in known]
    _run_missing(planned, fresh, how)
    return planned


def _keep(planned: PlannedSweep) -> None:
    """Open the results directory and store there what is planned: the design, and the runs for `status`."""
    planned.store.open()
    if planned.design is not None:
        planned.store.keep_design(planned.design)
    planned.store.keep_plan(Plan(specs=planned.specs, work=planned.amounts))


def _run_missing(planned: PlannedSweep, fresh: Sequence[RunSpec], how: _How) -> bool:
    """Do those runs of `fresh` that have no final record, and return whether there were any."""
    if taken := planned.take_known(fresh):
        how.events.message(f"{taken} finished run(s) were taken from elsewhere")
    there = planned.finished()
    redo = {"failed"} if how.retry_failed else set()
    todo = [s for s in fresh if s.run_id not in there or there[s.run_id].status in redo]
    if todo:
        _execute(planned, todo, how)
    return bool(todo)


def _execute(planned: PlannedSweep, todo: Sequence[RunSpec], how: _How) -> None:
    sweep, inputs, ranks, events = planned.sweep, planned.inputs, launched().ranks, how.events
    unknown = bool(sweep.allow_unknown_tokens)
    if sweep.executor == "ray":
        session = prepare_for_others(todo, inputs, unknown)
    else:
        together = sweep.data_parallel_ranks is not None
        session = prepare(todo, inputs, sweep.precision, together, allow_unknown=unknown)
    of_splits = {(s.task, s.seed): s for s in todo}.values()
    for text in dict.fromkeys(line for s in of_splits for line in remarks(s, session.split(s).facts)):
        events.message(text)
    for task, short in {s.task: session.split(s).facts.short_classes for s in todo}.items():
        if short:
            events.message(
                f"warning: {task} has fewer than 2 x {sweep.k} training rows of {', '.join(short)}"
            )
    # workers that are there hold memory, so the free memory alone would say that fewer fit
    fitting = runs_at_a_time(session, todo, sweep.runs_at_a_time)
    workers = min(max(fitting, len(how.pools)), len(todo))
    device = session.accelerator.device.type
    if sweep.executor == "local":
        how.tell_once(device_line(session.accelerator.device, sweep.device is not None))
    places = f"{ranks} process(es) on {device}, {workers} worker(s)" if sweep.executor == "local" else "Ray"
    how.tell_once(
        f"{places}, {sweep.threads_per_run} thread(s) a "
        f"run, {sweep.precision}, gradient accumulation {sweep.gradient_accumulation_steps}"
    )
    job = Job(
        inputs, sweep.precision, planned.store, how.retry_failed, sweep.checkpoint_every, sweep.log_with
    )
    planned.store.check_space(bytes_to_come(todo, job, session, workers))
    if sweep.executor == "ray":
        from momentum_bench.harness.execution.ray_cluster import execute_on_ray

        at_a_time = sweep.runs_at_a_time
        assert at_a_time != "auto"  # `sweeps.rules` refuses it
        results = execute_on_ray(todo, job, sweep.ray_address, at_a_time)
    else:
        results = execute(todo, job, session, workers, events.shows_steps, how.pools)
    events.begun(len(todo))
    for number, record in enumerate(results, 1):
        events.finished(number, len(todo), record)


def _grids(planned: PlannedSweep) -> str:
    """The present rates of the grids that have grown."""
    names: dict[str, list[str]] = {}
    for task, name in planned.added:
        text = " ".join(f"{rate:g}" for rate in rates(planned.sweep, task, name, planned.added))
        names.setdefault(f"of {task} at {text}", []).append(name)
    return "; ".join(f"{', '.join(optimizers)} {where}" for where, optimizers in names.items())
