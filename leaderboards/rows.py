"""The rows of a leaderboard: the best-per-optimizer result of each setting."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, groupby
from typing import Any

from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.records.budget import evaluations_by_run
from momentum_bench.harness.records.design import (
    Design,
    arm_of,
    confirming_seeds,
    setting_of,
    shown_hyperparameters,
)
from momentum_bench.harness.records.labels import Arm, arm_key, arm_labels
from momentum_bench.harness.records.schema import RESULTS, Point, RunRecord, RunSpec, canonical_json
from momentum_bench.harness.records.selection import edges_of
from momentum_bench.harness.reporting import joined
from momentum_bench.harness.sweeps.confirming import Standing
from momentum_bench.leaderboards.columns import (
    Choices,
    Role,
    arm_columns,
    choice_columns,
    cost_columns,
    edge_columns,
    ends_text,
    score_columns,
    setting_columns,
)
from momentum_bench.leaderboards.environments import FACTS, Facts, facts_of, mixed

TASK = ("task", "task_version", "data_fingerprint")
"""The fields in which the rows behind a pooled line differ."""

Cell = tuple[int, Point]
"""The seed and the point of a run in its row."""


IN_CAPITALS = {"sgd": "SGD", "sgdm": "SGDM", "qhm": "QHM", "sngm": "SNGM"}


@dataclass(frozen=True)
class Row:
    """The best-per-optimizer result of one setting.

    Attributes:
        setting: what compared rows must share: the spec without the fields of its arm, and the batch layout.
        label: the optimizer; with the hyperparameters that tell it from others, if the setting has this
            optimizer more than once.
        chosen: the selected run of each seed.
        runs: all runs of the row with any status, sorted by seed and point.
        facts: the environments of the runs that have a result.
        mixed: the facts in which these runs differ, in words, if the row has no score because of them.
        columns: the row of leaderboard.csv.
        grid: all points that were to run on each of the row's seeds, whatever became of them.
        bagged: of tuned seeds: the test score of each seed's bagged choice, where all its runs have dev
            predictions.
        role: what its seeds are for.
        design: of a row of confirming seeds, whose design it is; None: a tuned row.
    """

    setting: dict[str, Any]
    label: str
    chosen: dict[int, RunRecord]
    runs: list[RunRecord]
    facts: Facts
    mixed: str
    columns: dict[str, Any]
    grid: frozenset[Point]
    bagged: dict[int, float] = field(default_factory=dict)
    role: Role = "tuned"
    design: Design | None = None

    @property
    def table_key(self) -> tuple[str, str, str]:
        """Rows with equal keys stand in one table and may be compared."""
        return self.setting_key, self.role, self.design.design_id if self.design else ""

    @property
    def setting_key(self) -> str:
        """What the row's runs have in common with those of other optimizers, as text."""
        return canonical_json(self.setting)

    @property
    def family(self) -> str:
        """The setting without its task. Rows of one family share a pooled line and a table in a paper."""
        return canonical_json({name: value for name, value in self.setting.items() if name not in TASK})

    @property
    def setting_id(self) -> str:
        """A short name of the setting."""
        return _id(_stated(self.setting))[:8]

    @property
    def name(self) -> str:
        """The label as it stands in a sentence. Abbreviations are in capitals."""
        optimizer, *settings = self.label.split(" ")
        return " ".join([IN_CAPITALS.get(optimizer, optimizer), *settings])

    @property
    def model_key(self) -> tuple[str, str]:
        """The model's name and revision."""
        return str(self.columns["model"]), str(self.columns["model_revision"])

    @property
    def arm(self) -> tuple[str, str]:
        """The optimizer and its hyperparameters, as they stand in leaderboard.csv."""
        return str(self.columns["optimizer"]), str(self.columns["hyperparameters"])

    @property
    def arm_key(self) -> str:
        """The optimizer and its hyperparameters, as `DesignArm.key` gives them."""
        return canonical_json(arm_of(self.runs[0].spec))

    @property
    def axes(self) -> tuple[str, ...]:
        """The further axes that are tuned next to the learning rate, sorted."""
        return self.runs[0].spec.tuned or ()

    @property
    def planned_points(self) -> frozenset[Point]:
        """All points among which dev was to choose: of confirming seeds, those of the tuning seeds."""
        if self.design is None:
            return self.grid
        of_task = next(task for task in self.design.tasks if task.task == self.columns["task"])
        [place] = [place for place, arm in enumerate(self.design.arms) if arm.key == self.arm_key]
        return frozenset(of_task.whole_grids[place])

    @property
    def chosen_ids(self) -> list[str]:
        """Ids of the chosen runs, in the order of their seeds."""
        return [run.spec.run_id for run in self.chosen.values()]

    @cached_property
    def budget(self) -> dict[int, frozenset[Point]]:
        """The search budget of each seed: the points whose run ended in a result.

        A run that failed or is missing had no chance to be chosen, so its point was not searched.
        """
        return {
            seed: frozenset(run.spec.point for run in part if run.status in RESULTS)
            for seed, part in groupby(self.runs, key=lambda run: run.spec.seed)  # they are sorted by seed
        }

    @cached_property
    def diverged(self) -> dict[int, RunRecord]:
        """One of the runs of each seed on which all points of the grid diverged."""
        of_seeds = {
            seed: list(part) for seed, part in groupby(self.runs, key=lambda run: run.spec.seed)
        }  # they are sorted by seed
        return {
            seed: runs[0]
            for seed, runs in of_seeds.items()
            if all(run.status == "diverged" for run in runs) and {r.spec.point for r in runs} >= self.grid
        }

    @cached_property
    def gradient_evaluations(self) -> dict[int, int]:
        """What the search of each seed cost, in gradients of whole batches; runs without a result cost 0."""
        counts = evaluations_by_run(self.runs)
        return {
            seed: sum(counts.get(run.spec.run_id, 0) for run in part)
            for seed, part in groupby(self.runs, key=lambda run: run.spec.seed)  # they are sorted by seed
        }

    @cached_property
    def left_out(self) -> dict[str, list[Cell]]:
        """The cells of the grid without a result: those whose run `failed`, and those that are `missing`."""
        there = {(run.spec.seed, run.spec.point): run.status for run in self.runs}
        cells = [(seed, point) for seed in sorted({seed for seed, _ in there}) for point in sorted(self.grid)]
        return {
            "failed": [cell for cell in cells if there.get(cell) == "failed"],
            "missing": [cell for cell in cells if cell not in there],
        }

    @property
    def has_effective_rate(self) -> bool:
        """Whether its rates are effective rates; False for an optimizer that is not in the registry."""
        entry = OPTIMIZERS.get(self.runs[0].spec.optimizer)
        return entry is not None and not entry.own_rate

    @property
    def row_id(self) -> str:
        """The row's id: 16 hexadecimal digits that follow from its setting and its arm."""
        return str(self.columns["row_id"])


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows in groups of one setting, in the order in which they come."""
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        settings[row.setting_key].append(row)
    return list(settings.values())


def by_table(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows in groups whose members may be compared: one setting, and seeds of one role."""
    tables: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        tables[row.table_key].append(row)
    return list(tables.values())


def model_names(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """A name for each model of the rows, by `Row.model_key`.

    Two model folders may have one name (`checkpoint-500`). Then each name carries the beginning of the
    model's revision, which is a digest of the folder's content. Other names stay as they are.
    """
    revisions: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        model, revision = row.model_key
        revisions[model].add(revision)
    names = {}
    for model, known in revisions.items():
        n_digits = next(n for n in count(8) if len({revision[:n] for revision in known}) == len(known))
        for revision in known:
            names[model, revision] = f"{model} ({revision[:n_digits]})" if len(known) > 1 else model
    return names


def cells_in_words(cells: Iterable[Cell]) -> str:
    """Cells of one row, such as `rates 0.001, 0.01 on seeds 13, 21; rate 0.1 on seed 13`."""
    seeds_of: dict[Point, list[int]] = defaultdict(list)
    for seed, point in sorted(cells):
        seeds_of[point].append(seed)
    points_of: dict[tuple[int, ...], list[Point]] = defaultdict(list)
    for point, seeds in sorted(seeds_of.items()):
        points_of[tuple(seeds)].append(point)
    return "; ".join(
        f"{_counted('rate', map(point_text, points))} on {_counted('seed', map(str, seeds))}"
        for seeds, points in points_of.items()
    )


def point_text(point: Point) -> str:
    """A point in words, such as `0.01 (batch_size=8)`."""
    return f"{point.learning_rate:g}" + (f" ({point.settings_text})" if point.settings else "")


def _counted(noun: str, values: Iterable[str]) -> str:
    values = list(values)
    return f"{noun}{'' if len(values) == 1 else 's'} {', '.join(values)}"


def result_of(run: RunRecord) -> tuple[object, ...]:
    """The results of a run, which two executions of one specification should share; costs are not in it."""
    return run.status, run.evaluations, run.best_step, run.test


Standings = Sequence[tuple[Design, Standing]]
"""Designs, and where each of them stands."""


def rows_of(
    records: Iterable[RunRecord], mix_environments: bool = False, standings: Standings = ()
) -> list[Row]:
    """The rows of these records, in the order of a leaderboard. Each run occurs once in the tuned rows.

    Seeds on which different learning rates were to run are rows of their own: a choice among three rates is
    not a choice among seven. So are the confirming seeds of each design.

    Args:
        mix_environments: a row whose runs differ in a fact of `environments` has a score like any other.
        standings: the designs that the records belong to.

    Raises:
        UserError: a record names a protocol that this version does not know.
    """
    records = list(records)
    settings: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        settings[canonical_json(setting_of(record.spec))].append(record)
    arms: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for setting, of_setting in settings.items():
        for run, layout in zip(of_setting, _layouts(of_setting), strict=True):
            arms[setting, layout, run.spec.optimizer, canonical_json(arm_of(run.spec))].append(run)
    labels = _labels(arms)
    planned = _PlannedGrids([design for design, _ in standings])
    rows = []
    for key, runs in arms.items():
        about = _About(json.loads(key[1]), labels[key], mix_environments)
        rows += _tuned_rows(runs, about, planned)
        for design, now in standings:
            rows += _confirming_rows(runs, about, design, now)
    return sorted(rows, key=_sort_key)


def _labels(arms: Mapping[tuple[str, ...], Sequence[RunRecord]]) -> dict[tuple[str, ...], str]:
    """A short name for each arm, which tells it apart from the others of its setting and layout."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], Arm]] = defaultdict(dict)
    for key, runs in arms.items():
        spec = runs[0].spec
        name = spec.optimizer if spec.max_steps else "zero-shot"
        groups[key[:2]][key] = name, shown_hyperparameters(spec)
    of_groups = [(group, arm_labels(group.values())) for group in groups.values()]
    return {key: labels[arm_key(arm)] for group, labels in of_groups for key, arm in group.items()}


@dataclass(frozen=True)
class _About:
    """What all rows of one arm share."""

    layout: dict[str, int | str]
    label: str
    mix_environments: bool


class _PlannedGrids:
    """The points that designs planned for the seeds of an arm."""

    def __init__(self, designs: Sequence[Design]):
        self._grids: dict[tuple[str, str], list[tuple[Design, tuple[Point, ...]]]] = defaultdict(list)
        self._confirming = confirming_seeds(designs)
        self._tuning: dict[str, set[int]] = defaultdict(set)
        for design in designs:
            for task in design.tasks:
                setting = canonical_json(design.setting(task))
                self._tuning[setting] |= set(design.tune_seeds)
                for arm, points in zip(design.arms, task.whole_grids, strict=True):
                    self._grids[setting, arm.key].append((design, points))

    def confirms(self, spec: RunSpec) -> bool:
        """Whether the run's seed is a confirming seed of some design, and tunes in none."""
        setting = canonical_json(setting_of(spec))
        return spec.seed in self._confirming.get(setting, ()) and spec.seed not in self._tuning[setting]

    def of(self, runs: Sequence[RunRecord]) -> dict[int, frozenset[Point]]:
        """The points that were to run on each seed of one arm.

        For a seed of a design they are known. For another they are those that ran; if these are part of
        another seed's points, the others are taken to be missing.
        """
        spec = runs[0].spec
        arm = canonical_json(arm_of(spec))
        tried: dict[int, set[Point]] = defaultdict(set)
        for run in runs:
            tried[run.spec.seed].add(run.spec.point)
        of_design: set[int] = set()
        for design, planned in self._grids[canonical_json(setting_of(spec)), arm]:
            seeds = [seed for seed in design.tune_seeds if seed in tried]
            # a grid that grows has grown on all of its seeds, or will
            grown = set().union(*(tried[seed] for seed in seeds)) if design.extend_grid else set()
            for seed in seeds:
                tried[seed] |= {*planned, *grown}
            of_design |= set(seeds)
        largest_first = sorted(map(frozenset, tried.values()), key=lambda grid: (-len(grid), sorted(grid)))
        return {
            seed: frozenset(of_seed)
            if seed in of_design
            else next(grid for grid in largest_first if grid >= of_seed)
            for seed, of_seed in tried.items()
        }


def _tuned_rows(runs: Sequence[RunRecord], about: _About, planned: _PlannedGrids) -> list[Row]:
    """The rows of one arm's seeds on which a grid ran, one for each grid; the largest grid comes first."""
    runs = [run for run in runs if not planned.confirms(run.spec)]
    if not runs:
        return []
    grids = planned.of(runs)
    of_grid: dict[frozenset[Point], list[RunRecord]] = defaultdict(list)
    for run in runs:
        of_grid[grids[run.spec.seed]].append(run)
    largest_first = sorted(of_grid, key=lambda grid: (-len(grid), -len(of_grid[grid]), sorted(grid)))
    return [
        # the first has the id that the only row of an arm has, whatever else is in the leaderboard
        _row(of_grid[grid], about, sorted(grid), {"grid": _stated_grid(grid)} if place else None)
        for place, grid in enumerate(largest_first)
    ]


def _stated_grid(grid: Iterable[Point]) -> list[object]:
    """A grid as a row's id states it: of rates alone, it is their list."""
    return [point if point.settings else point.learning_rate for point in sorted(grid)]


def _confirming_rows(runs: Sequence[RunRecord], about: _About, design: Design, now: Standing) -> list[Row]:
    """The rows of one arm's confirming seeds in a design: at the matched rate, and at its own rate."""
    spec = runs[0].spec
    setting = setting_of(spec)
    tasks = [task for task in design.tasks if design.setting(task) == setting]
    arm_key = canonical_json(arm_of(spec))
    places = [place for place, arm in enumerate(design.arms) if arm.key == arm_key]
    if not (tasks and places and design.confirm_seeds):
        return []
    [place], of_task = places, now.tuned[tasks[0].task]
    points: dict[Role, Point | None] = {"matched": of_task.matched[place]}
    if design.confirm == "own":
        points["own"] = of_task.own[place]
    rows = []
    for role, point in points.items():
        wanted = {design.spec(tasks[0], place, s, point).run_id for s in design.confirm_seeds if point}
        found = [run for run in runs if run.spec.run_id in wanted]
        if found and point:
            identity = {"role": role, "design": design.design_id}
            row = _row(found, about, [point], identity, role, design)
            on_edge, ends = edges_of(point, of_task.grids[place])
            row.columns["on_grid_edge"] = len(row.chosen) if on_edge else 0
            row.columns["ends"] = ends_text(row.axes, len(row.chosen) * ends)
            rows.append(row)
    return rows


def _layouts(runs: Sequence[RunRecord]) -> list[str]:
    """The batch layout of each run of one setting, as canonical JSON.

    Runs of different layouts draw different dropout masks, so they do not share a row. A run that ended
    before its layout could be read back gets the layout that most runs have.
    """
    layouts = [canonical_json(run.read_back.layout) if run.read_back else None for run in runs]
    known = Counter(layout for layout in layouts if layout is not None)
    commonest = min(known, key=lambda layout: (-known[layout], layout), default="{}")
    return [commonest if layout is None else layout for layout in layouts]


def _sort_key(row: Row) -> tuple[Any, ...]:
    setting, arm = ("task", "model", "method", "k"), ("optimizer", "momentum", "hyperparameters")
    # numbers as numbers: batch size 16 before 256 before 1024
    protocol = [
        int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", row.columns["protocol"])
    ]
    of_arm = [-1.0 if row.columns[n] is None else row.columns[n] for n in arm]  # a tuned momentum comes first
    return (*(row.columns[n] for n in setting), protocol, row.setting_key, *of_arm)


def _row(
    runs: list[RunRecord],
    about: _About,
    grid: list[Point],
    identity: dict[str, Any] | None,
    role: Role = "tuned",
    design: Design | None = None,
) -> Row:
    """A row.

    Args:
        grid: the points that were to run on each seed, ascending.
        identity: what the row's id follows from, apart from its setting and arm; None: nothing.
    """
    facts = facts_of(run for run in runs if run.status in RESULTS)
    apart = "" if about.mix_environments else mixed(facts)
    of_row = Choices.among(runs, grid, none=bool(apart))
    spec = of_row.spec
    setting = setting_of(spec) | {"layout": about.layout}
    bagged = of_row.bagged_scores() if role == "tuned" and spec.max_steps else {}
    further = [identity] if identity else []
    columns = {
        **arm_columns(spec, role),
        **choice_columns(of_row),
        **score_columns(of_row, bagged),
        **edge_columns(of_row),
        **cost_columns(of_row),
        **{name: joined(facts[name]) for name in FACTS},
        "left_out": "",
        **setting_columns(spec),
        "design": design.design_id if design else "",
        "row_id": _id([_stated(setting), *arm_of(spec), *further]),
        "chosen_runs": joined(run.spec.run_id for run in of_row.best),
    }
    row = Row(
        *(setting, about.label, of_row.chosen, of_row.runs, facts, apart, columns),
        *(frozenset(grid), bagged, role, design),
    )
    columns["left_out"] = "; ".join(
        f"{state}: {cells_in_words(cells)}" for state, cells in row.left_out.items() if cells
    )
    return row


def _stated(setting: dict[str, Any]) -> dict[str, Any]:
    """The setting without fields that are None. So a new field does not change older ids, as with run ids."""
    return {name: value for name, value in setting.items() if value is not None}


def _id(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
