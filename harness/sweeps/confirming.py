"""From a design and its finished runs: the chosen rates, the runs that come next, and what is decided.

Everything here is a function of the design and of records. So each process that works on a sweep, and
whoever checks its leaderboard later, comes to the same rates, the same looks and the same end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from momentum_bench.harness.metrics.constant import best_constant
from momentum_bench.harness.metrics.functions import SHARES_OF_ROWS
from momentum_bench.harness.records.design import Design, DesignTask
from momentum_bench.harness.records.labels import arm_key, arm_labels
from momentum_bench.harness.records.schema import FinalScore, Point, RunRecord, RunSpec, settings_text
from momentum_bench.harness.records.selection import DevResult, dev_result, select_matched, select_point
from momentum_bench.harness.sweeps.grids import Tried, further_rates
from momentum_bench.harness.verdicts.sequential import Replay, SeedDifference, replay

Records = Mapping[str, RunRecord]
"""Finished runs, by run id."""


@dataclass(frozen=True)
class Tuned:
    """What the tuning seeds of one task say.

    Attributes:
        grids: the points of each arm, ascending, after the grid has grown.
        missing: the runs of these grids that have not ended.
        matched: where each arm with an effective rate is confirmed, all of them at one rate and one value of
            each shared axis; None: it is not known yet, no rate finished in all their runs, there are fewer
            than two such arms, or the arm has no effective rate.
        own: the point that each arm would choose alone; None as above.
    """

    grids: tuple[tuple[Point, ...], ...]
    missing: tuple[RunSpec, ...]
    matched: tuple[Point | None, ...]
    own: tuple[Point | None, ...]


@dataclass(frozen=True)
class Question:
    """One comparison of a design: of which task, of which pair, and at which points of their grids.

    Attributes:
        pair: places of the two arms in the design.
        confirm: `matched`: both at one rate; `own`: each at its own.
        points: those of the two arms.
    """

    task: str
    pair: tuple[int, int]
    confirm: str
    points: tuple[Point, Point]


def tuned(design: Design, task: DesignTask, records: Records) -> Tuned:
    """The chosen points of one task.

    The grids grow as `sweeps.grids.extended` lets them grow, as long as all runs of the grids before
    have ended.
    """
    grids = list(task.whole_grids)
    nothing = (None,) * len(grids)
    for growth in range(design.extend_grid + 1):
        runs, missing = _tuning_runs(design, task, grids, records)
        if missing:
            return Tuned(tuple(grids), tuple(missing), nothing, nothing)
        if growth == design.extend_grid or (larger := _grown(design, grids, runs)) == grids:
            break
        grids = larger
    results = [[_results(of_seed) for of_seed in of_arm] for of_arm in runs]
    sharing = [place for place, arm in enumerate(design.arms) if arm.shares_axis]
    matched: list[Point | None] = list(nothing)
    if sharing[1:] and (chosen := select_matched([results[p] for p in sharing])):
        for place, point in zip(sharing, chosen, strict=True):
            matched[place] = point
    return Tuned(tuple(grids), (), tuple(matched), tuple(select_point(of_arm) for of_arm in results))


def _tuning_runs(
    design: Design, task: DesignTask, grids: Sequence[Sequence[Point]], records: Records
) -> tuple[list[list[list[RunRecord]]], list[RunSpec]]:
    """The runs of each arm and tuning seed, and those that have not ended."""
    runs: list[list[list[RunRecord]]] = []
    missing = []
    for arm, points in enumerate(grids):
        of_arm = []
        for seed in design.tune_seeds:
            specs = [design.spec(task, arm, seed, point) for point in points]
            of_arm.append([records[spec.run_id] for spec in specs if spec.run_id in records])
            missing += [spec for spec in specs if spec.run_id not in records]
        runs.append(of_arm)
    return runs, missing


def _grown(
    design: Design, grids: list[tuple[Point, ...]], runs: Sequence[Sequence[Sequence[RunRecord]]]
) -> list[tuple[Point, ...]]:
    """The grids with one more rate at each edge where a best rate is."""
    tried = [
        Tried(
            "effective" if arm.shares_axis else str(place),
            tuple(sorted({point.learning_rate for point in grids[place]})),
            [run for of_seed in runs[place] for run in of_seed],
        )
        for place, arm in enumerate(design.arms)
    ]
    larger = []
    for points, new in zip(grids, further_rates(tried), strict=True):
        settings = {point.settings for point in points}
        larger.append(tuple(sorted((*points, *(Point(rate, each) for rate in new for each in settings)))))
    return larger


def _results(runs: Iterable[RunRecord]) -> list[DevResult]:
    return [dev_result(run) for run in runs if run.status == "done"]


def questions(design: Design, task: DesignTask, of_task: Tuned) -> list[Question]:
    """What the confirming seeds of a task are asked, once its points are chosen."""
    chosen = {"matched": of_task.matched} | ({"own": of_task.own} if design.confirm == "own" else {})
    found = []
    for pair in design.pairs:
        for confirm, points in chosen.items():
            first, second = (points[place] for place in pair)
            if first is not None and second is not None:
                found.append(Question(task.task, pair, confirm, (first, second)))
    return found


def seed_difference(first: RunRecord, second: RunRecord) -> SeedDifference | None:
    """What two runs of one seed say about their arms; None: one of them has no score, or they are no pair.

    Runs of different batch layout draw different dropout masks, so they are no pair. A run that diverged
    scores as the best constant answer does: seeds that break one optimizer must not drop out of its mean.
    """
    one, other = first.test, second.test
    if first.status == "diverged" and other is not None:
        return _above_constant(second.metric, other)
    if second.status == "diverged" and one is not None and (found := _above_constant(first.metric, one)):
        return found._replace(difference=-found.difference)
    if one is None or other is None or first.read_back is None or second.read_back is None:
        return None
    if first.read_back.layout != second.read_back.layout or one.rows != other.rows:
        return None
    differ = sum(a != b for a, b in zip(one.predictions, other.predictions, strict=True))
    return _difference(first.metric, other.metric - one.metric, differ, len(one.rows))


def _above_constant(metric: str, test: FinalScore) -> SeedDifference | None:
    """A score minus that of the best constant answer; None: the metric's is not known."""
    constant = best_constant(metric, test.labels, test.questions)
    if constant is None:
        return None
    [(commonest, _)] = Counter(test.labels).most_common(1)
    differ = sum(prediction != commonest for prediction in test.predictions)
    return _difference(metric, test.metric - constant, differ, len(test.rows))


def _difference(metric: str, difference: float, differ: int, n_test: int) -> SeedDifference:
    """What a seed says. How much sampled rows vary follows from disagreement for a share of rows alone."""
    return SeedDifference(difference, differ / n_test if metric in SHARES_OF_ROWS else 0.0, n_test)


def confirming_runs(
    design: Design, task: DesignTask, question: Question, n_seeds: int
) -> list[tuple[RunSpec, RunSpec]]:
    """The two runs of each of the first confirming seeds that a question needs."""
    return [
        (
            design.spec(task, question.pair[0], seed, question.points[0]),
            design.spec(task, question.pair[1], seed, question.points[1]),
        )
        for seed in design.confirm_seeds[:n_seeds]
    ]


@dataclass(frozen=True)
class Standing:
    """Where a design stands.

    Attributes:
        tuned: what the tuning seeds of each task say, by the name of the task.
        replayed: its questions at their last looks; empty while runs of the tuning seeds are missing.
        runs: the runs that the next look needs, finished ones among them; empty: the design has ended, or
            its tuning seeds are not finished.
        is_tuned: whether all runs of the tuning seeds have ended.
    """

    tuned: Mapping[str, Tuned]
    replayed: Replay[Question]
    runs: tuple[RunSpec, ...]

    @property
    def is_tuned(self) -> bool:
        return not any(of_task.missing for of_task in self.tuned.values())

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be run."""
        return self.is_tuned and self.replayed.next_look is None


def standing(design: Design, records: Records) -> Standing:
    """Where a design stands, from its finished runs.

    The questions of all tasks go from look to look together, because the error rate of all of them is kept.
    Those at matched rates and those at own rates are two families.
    """
    of_tasks = {task.task: tuned(design, task, records) for task in design.tasks}
    if not design.confirm_seeds or any(of_task.missing for of_task in of_tasks.values()):
        return Standing(of_tasks, Replay(), ())
    asked = {q: task for task in design.tasks for q in questions(design, task, of_tasks[task.task])}
    pairs = {q: confirming_runs(design, task, q, len(design.confirm_seeds)) for q, task in asked.items()}
    seeds = {q: _as_far_as_ended(of_question, records) for q, of_question in pairs.items()}
    replayed = replay(seeds, design.looks, design.margin, {q: q.confirm for q in asked})
    needed = {
        spec.run_id: spec
        for question in replayed.undecided
        for pair in pairs[question][: replayed.next_look or 0]
        for spec in pair
    }
    return Standing(of_tasks, replayed, tuple(needed.values()))


def _as_far_as_ended(
    pairs: Sequence[tuple[RunSpec, RunSpec]], records: Records
) -> list[SeedDifference | None]:
    found = []
    for first, second in pairs:
        if first.run_id not in records or second.run_id not in records:
            break
        found.append(seed_difference(records[first.run_id], records[second.run_id]))
    return found


def standings_of(designs: Iterable[Design], records: Iterable[RunRecord]) -> list[tuple[Design, Standing]]:
    """Each design with where it stands."""
    by_id = {record.spec.run_id: record for record in records}
    return [(design, standing(design, by_id)) for design in designs]


def _chosen_in_words(names: Sequence[str], points: Sequence[Point | None]) -> str:
    """The matched points: what all arms share, and what some have for themselves."""
    known = [(name, point) for name, point in zip(names, points, strict=True) if point is not None]
    shared = known[0][1].shared
    settings = f" with {shared.settings_text}" if shared.settings else ""
    own = [f", and {settings_text(point.own)} for {name}" for name, point in known if point.own]
    return "".join([f"the effective rate {shared.learning_rate:g}{settings} for all", *own])


def progress_in_words(design: Design, now: Standing) -> list[str]:
    """What has been chosen and decided so far, a sentence for each task and each pair of arms."""
    arms = [(arm.optimizer, arm.hyperparameters) for arm in design.arms]
    labels = arm_labels(arms)
    sentences = []
    for task in design.tasks:
        if any(now.tuned[task.task].matched):
            names = [labels[arm_key(arm)] for arm in arms]
            chosen = _chosen_in_words(names, now.tuned[task.task].matched)
            sentences.append(f"{task.task}: dev of the tuning seeds chose {chosen}")
    for question, found in now.replayed.pairs.items():
        first, second = (labels[arm_key(arms[place])] for place in question.pair)
        at = "at the matched rate" if question.confirm == "matched" else "at their own rates"
        what = f"{question.task}: {second} and {first} {at}, look at {found.n_seeds} seeds"
        if found.is_decided:
            sentences.append(f"{what}: decided")
        elif found.n_seeds == design.looks[-1]:
            sentences.append(f"{what}, the last one: not decided")
        else:
            sentences.append(f"{what}: not decided, going on")
    return sentences
