"""From the request for a sweep to its runs. Nothing is written, and torch is not loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from momentum_bench.harness.data.examples import TaskData
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.leakage import leaked_rows
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.installed import check_can_run
from momentum_bench.harness.launcher import lonely_launch
from momentum_bench.harness.models.files import ModelSource, resolve_model
from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.sweeps.confirming import Standing, standing
from momentum_bench.harness.sweeps.grids import NO_RATES, extended, points
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.plan import design_of, plan, work
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.harness.sweeps.suites import expand_suites, without_short_tasks


class SweepEvents:
    """What happens while a sweep runs. These methods do nothing; a subclass shows what it wants to show.

    `shows_steps` says whether a run in this process shows a progress bar of its steps.
    """

    shows_steps = False

    def message(self, text: str) -> None:
        """One line about the sweep: sizes, data, model, hardware, warnings."""

    def begun(self, n_runs: int) -> None:
        """This process, or the cluster, is about to start the runs that are missing."""

    def finished(self, number: int, n_runs: int, record: RunRecord) -> None:
        """One of these runs has ended; `number` counts from 1."""


@dataclass(frozen=True)
class PlannedSweep:
    """A request whose suites are replaced by tasks and whose inputs are read, and its runs.

    Attributes:
        data: the rows of each task, in the order of `sweep.task`.
        added: the rates that were added to the grid of a (task, optimizer).
        specs: all runs that are known so far; confirming runs follow when the tuning seeds are finished.
        design: what is written down before the first run; None: nothing is trained.
        amounts: the work of each run, as `sweeps.plan.work` counts it.
        known: records from elsewhere, by run id; none of them failed.
    """

    sweep: Sweep
    data: tuple[TaskData, ...]
    source: ModelSource
    store: Store
    added: Mapping[tuple[str, str], tuple[float, ...]]
    specs: tuple[RunSpec, ...]
    amounts: tuple[float, ...]
    design: Design | None = None
    known: Mapping[str, RunRecord] = field(default_factory=dict)

    @property
    def inputs(self) -> Inputs:
        """Where the inputs are on this machine."""
        sweep = self.sweep
        return Inputs(
            sweep.model,
            sweep.data_dir,
            sweep.optimizer_file,
            sweep.task_file,
            sweep.device,
            sweep.reading,
        )

    def finished(self) -> dict[str, RunRecord]:
        """The records of runs that are finished, here or elsewhere, by run id."""
        elsewhere = {s.run_id: self.known[s.run_id] for s in self.specs if s.run_id in self.known}
        return elsewhere | self.store.finished(self.specs)

    def take_known(self, specs: Sequence[RunSpec]) -> int:
        """Store known records that the directory lacks; returns their number."""
        taken = 0
        for spec in specs:
            record = self.known.get(spec.run_id)
            if record is None:
                continue
            with self.store.claim(spec) as claimed:
                if claimed and self.store.read(spec.run_id) is None:
                    self.store.write(record)
                    taken += 1
        return taken

    def grown(self) -> PlannedSweep | None:
        """The plan with one more rate at each edge where a best rate is; None: there is no such edge.

        A plan grows only when all its runs are finished.
        """
        records = self.finished()
        if len(records) < len(self.specs):
            return None
        more = extended(self.sweep, list(records.values()), self.added)
        return None if more == self.added else _planned(replace(self, added=more))

    def standing(self) -> Standing | None:
        """Where the design stands, as far as the runs of this plan go; None: there is no design."""
        return None if self.design is None else standing(self.design, self.finished())

    def with_runs(self, more: Sequence[RunSpec]) -> PlannedSweep:
        """The plan with those of these runs that it does not hold, at its end."""
        known = {spec.run_id for spec in self.specs}
        new = [spec for spec in more if spec.run_id not in known]
        return replace(self, specs=(*self.specs, *new), amounts=(*self.amounts, *_amounts(self, new)))


NO_RECORDS: Mapping[str, RunRecord] = MappingProxyType({})


def plan_sweep(
    asked: Sweep, events: SweepEvents, elsewhere: Mapping[str, RunRecord] = NO_RECORDS
) -> PlannedSweep:
    """Read the inputs of a request and plan its runs. Nothing is written.

    Args:
        elsewhere: checked records from elsewhere, by run id; a run among them that has a result is not done
            again.

    Raises:
        UserError: a task, its data or the model cannot be found, or the launcher contradicts the request.
    """
    check_can_run()
    sweep, left_out = expand_suites(asked)
    check_launcher(sweep)
    store = Store(sweep.output_dir)
    if store.exists:
        store.check_version()
    data = [
        load_task_data(find_task(name, sweep.task_file), sweep.data_dir, reading=sweep.reading)
        for name in sweep.task
    ]
    sweep, data, too_short = without_short_tasks(sweep, data, asked.task)
    for text in (*left_out, *too_short):
        events.message(text)
    for rows in data:
        if leaked := leaked_rows(rows):
            events.message(f"warning: {rows.task.name}: {leaked}; records count those that a split has drawn")
    source = resolve_model(sweep.model, sweep.task_file)
    known = {run_id: record for run_id, record in elsewhere.items() if record.status != "failed"}
    planned = _planned(PlannedSweep(sweep, tuple(data), source, store, NO_RATES, (), (), known=known))
    design = design_of(sweep, planned.specs)
    planned = replace(planned, design=design)
    for rows in data:
        _check_given(rows, sweep, design)
    events.message(f"{_arithmetic(planned)}; {len(planned.finished())} of them already there")
    for rows in data:
        events.message(
            f"{rows.task.name}: {len(rows.train)} {rows.called}, {len(rows.test)} test rows, {rows.origin}"
        )
    events.message(f"{source.name}: revision {source.revision}")
    if sweep.peft and sweep.learning_rates is None:
        events.message(
            f"the default rates are made for whole models: --peft {sweep.peft} may need --extend-grid 3"
        )
    if alone := lonely_launch():
        events.message(f"note: {alone}")
    return planned


def _check_given(rows: TaskData, sweep: Sweep, design: Design | None) -> None:
    """Raises: UserError, if a confirming seed has no split among those that were given.

    Those of the grid's seeds were drawn when short tasks were looked for.
    """
    if rows.given is not None and design is not None:
        for seed in design.confirm_seeds:
            draw_split(rows, sweep.k, seed, sweep.protocol)


def _planned(before: PlannedSweep) -> PlannedSweep:
    """The same request with the runs that follow from its rates."""
    specs = plan(before.sweep, before.data, before.source.name, before.source.revision, before.added)
    return replace(before, specs=tuple(specs), amounts=_amounts(before, specs))


def _amounts(planned: PlannedSweep, specs: Sequence[RunSpec]) -> tuple[float, ...]:
    """The work of runs."""
    of_task = {rows.task.name: rows for rows in planned.data}
    return tuple(work(spec, of_task[spec.task]) for spec in specs)


def _arithmetic(planned: PlannedSweep) -> str:
    """The number of runs; it is written as a product where all optimizers share one grid."""
    sweep, n_runs = planned.sweep, len(planned.specs)
    if not sweep.max_steps:
        return f"{len(sweep.task)} task(s) x {len(sweep.seeds)} seeds = {n_runs} runs without training"
    sizes = {len(points(sweep, task, name)) for task in sweep.task for name in sweep.optimizers}
    what = "points" if sweep.tunes else "rates"
    rates_text = f"{sizes.pop()} {what}" if len(sizes) == 1 else f"own grids of {what}"
    return (
        f"{len(sweep.task)} task(s) x {len(sweep.optimizers)} optimizers x {rates_text} x "
        f"{len(sweep.grid_seeds)} {'tuning ' if sweep.confirms else ''}seeds = {n_runs} runs of "
        f"{sweep.max_steps} steps x batch {'/'.join(map(str, sweep.batch_sizes))}{_to_come(planned)}"
    )


def _to_come(planned: PlannedSweep) -> str:
    """What follows the tuning seeds, in words; empty if nothing does."""
    design = planned.design
    if design is None or not design.confirm_seeds:
        return ""
    *looks, most = design.looks
    upto = f"up to {most} confirming seeds, with looks at {', '.join(map(str, looks))} and {most}"
    chosen = "point" if planned.sweep.tunes else "rate"
    return f"; then {upto if looks else f'{most} confirming seeds'}, at the chosen {chosen} alone"
