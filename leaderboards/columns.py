"""The runs behind a row, which of them dev chose, and what leaderboard.csv says of them.

The columns are made in groups. A row puts the groups in the order of the file.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from momentum_bench.harness.metrics.constant import best_constant
from momentum_bench.harness.optimizers.accumulated import accumulated_rate
from momentum_bench.harness.records.budget import evaluations_by_run
from momentum_bench.harness.records.design import shown_hyperparameters
from momentum_bench.harness.records.labels import setting_words
from momentum_bench.harness.records.schema import (
    RESULTS,
    SHOWN_DIGITS,
    Point,
    RunRecord,
    RunSpec,
    setting_text,
)
from momentum_bench.harness.records.selection import Selection, dev_result, select
from momentum_bench.harness.reporting import joined
from momentum_bench.harness.sweeps.protocols import settings_name
from momentum_bench.harness.verdicts.paired import summary
from momentum_bench.leaderboards.bagged import bagged_score

Role = Literal["tuned", "matched", "own"]
"""What the seeds of a row are for. `tuned`: on each seed the whole grid ran, and dev chose. `matched`: fresh
seeds, which confirm at one effective rate for all arms. `own`: fresh seeds, each arm at its own rate."""


@dataclass(frozen=True)
class Choices:
    """The runs of a row, and which of them dev chose on each seed.

    Attributes:
        runs: with any status, sorted by seed and point.
        grid: the points that were to run on each seed, ascending.
        selections: by seed; a seed without a run that is done has none.
    """

    runs: list[RunRecord]
    grid: Sequence[Point]
    selections: dict[int, Selection]

    @classmethod
    def among(cls, runs: Iterable[RunRecord], grid: Sequence[Point], none: bool) -> Choices:
        """The choices by dev among these runs.

        Args:
            none: choose nothing, because these runs may not be compared with each other.
        """
        runs = sorted(runs, key=lambda run: (run.spec.seed, run.spec.point))
        selections = {}
        for seed, part in groupby([] if none else runs, key=lambda run: run.spec.seed):
            with_result = [run for run in part if run.status in RESULTS]
            results = [dev_result(run) for run in with_result if run.status == "done"]
            if results:
                selections[seed] = select(results, [run.spec.point for run in with_result])
        return cls(runs, grid, selections)

    @property
    def spec(self) -> RunSpec:
        """That of the first run; what a row says of its arm and its setting is the same in all."""
        return self.runs[0].spec

    @cached_property
    def done(self) -> dict[str, RunRecord]:
        """The runs that are done, by id."""
        return {run.spec.run_id: run for run in self.runs if run.status == "done"}

    @cached_property
    def chosen(self) -> dict[int, RunRecord]:
        """The chosen run of each seed."""
        return {seed: self.done[selection.run_id] for seed, selection in self.selections.items()}

    @property
    def best(self) -> list[RunRecord]:
        """The chosen runs, in the order of their seeds."""
        return list(self.chosen.values())

    def bagged_scores(self) -> dict[int, float]:
        """The test score of each seed's bagged choice, where all its runs have dev predictions."""
        by_seed = {seed: list(part) for seed, part in groupby(self.runs, key=lambda run: run.spec.seed)}
        scores = {seed: bagged_score(by_seed[seed]) for seed in self.chosen}
        return {seed: score for seed, score in scores.items() if score is not None}


def arm_columns(spec: RunSpec, role: Role) -> dict[str, Any]:
    """What was compared, and what the seeds are for."""
    return {
        "task": spec.task,
        "model": spec.model,
        "method": spec.method,
        "k": spec.k,
        "optimizer": spec.optimizer,
        "momentum": None if "momentum" in (spec.tuned or ()) else spec.hyperparameters.get("momentum", 0.0),
        "hyperparameters": ";".join(hyperparameter_words(spec)),
        "role": role,
    }


PAIR_COLUMNS = (
    *("first", "second", "first_momentum", "second_momentum"),
    *("first_hyperparameters", "second_hyperparameters"),
)
"""The columns that name the two optimizers of a pair."""


def pair_columns(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The two optimizers of a pair, from the columns of their rows."""
    return {
        "first": first["optimizer"],
        "second": second["optimizer"],
        "first_momentum": first["momentum"],
        "second_momentum": second["momentum"],
        "first_hyperparameters": first["hyperparameters"],
        "second_hyperparameters": second["hyperparameters"],
    }


def choice_columns(of_row: Choices) -> dict[str, Any]:
    """What dev chose on each seed, and among how many runs."""
    runs, best = of_row.runs, of_row.best
    return {
        "seeds": joined(of_row.chosen),
        "learning_rates": joined(run.spec.learning_rate for run in best),
        "torch_learning_rates": joined(run.read_back.torch_learning_rate for run in best if run.read_back),
        "grid": joined(sorted({point.learning_rate for point in of_row.grid})),
        "axes": _axes_text(of_row.grid),
        "chosen_settings": joined(run.spec.point.settings_text for run in best) if of_row.spec.tuned else "",
        "n_seeds": len(of_row.chosen),
        "n_runs": len(runs),
        "gradient_evaluations": sum(evaluations_by_run(runs).values()),
        "n_missing": len(of_row.grid) * len({run.spec.seed for run in runs}) - len(runs),
        "n_diverged": sum(run.status == "diverged" for run in runs),
        "n_failed": sum(run.status == "failed" for run in runs),
        "metric": runs[0].metric,
    }


def score_columns(of_row: Choices, bagged: dict[int, float]) -> dict[str, Any]:
    """What the chosen runs scored."""
    spec, best = of_row.spec, of_row.best
    test = summary([metric_on_test(run) for run in best])
    dev = summary([run.best.dev_metric for run in best if run.best])
    return {
        "test_mean": test.mean,
        "test_std": test.std,
        "test_ci_low": test.ci_low,
        "test_ci_high": test.ci_high,
        **_over_ties(of_row),
        "test_bagged_mean": summary(list(bagged.values())).mean if len(bagged) == len(best) else math.nan,
        "test_worst": min(map(metric_on_test, best), default=math.nan),
        "majority": _majority(best),
        "dev_mean": dev.mean,
        "dev_std": dev.std,
        "accumulated_rate": accumulated_rate(spec) if _is_the_same_in_all(of_row) else None,
    }


def _is_the_same_in_all(of_row: Choices) -> bool:
    """Whether all runs of a row move as far in comparison with SGD: one momentum, and as many steps.

    Confirming seeds have one point, which was chosen before.
    """
    spec = of_row.spec
    return len(of_row.grid) == 1 or (spec.examples is None and not spec.point.own)


def edge_columns(of_row: Choices) -> dict[str, Any]:
    """What speaks against the choices: ends of the grid, ties, gradients that were clipped."""
    spec = of_row.spec
    return {
        # without training there is no grid, so there is no edge
        "on_grid_edge": sum(s.on_edge for s in of_row.selections.values()) if spec.max_steps else 0,
        "ends": ends_text(spec.tuned or (), [name for s in of_row.selections.values() for name in s.ends]),
        "n_tied": sum(selection.n_tied for selection in of_row.selections.values()),
        "clipped_fraction": summary([run.clipped_fraction or 0.0 for run in of_row.best]).mean,
    }


def cost_columns(of_row: Choices) -> dict[str, Any]:
    """What the arm costs in memory and time, and the data that it saw."""
    best, costs = of_row.best, [run.costs for run in of_row.runs if run.costs]
    return {
        "optimizer_state_bytes": max(
            (run.read_back.optimizer_state_bytes for run in best if run.read_back), default=None
        ),
        "short_classes": joined(sorted({c for run in best if run.split for c in run.split.short_classes})),
        **_of_data(best),
        "train_seconds": math.fsum(cost.train_seconds for cost in costs),
        "search_seconds": math.fsum(c.train_seconds + c.dev_seconds + c.test_seconds for c in costs),
        "peak_memory_bytes": max((cost.peak_memory_bytes for cost in costs), default=None),
    }


def setting_columns(spec: RunSpec) -> dict[str, Any]:
    """The setting, and the versions of what it names."""
    return {
        "protocol": settings_name(spec),
        "protocol_version": spec.protocol_version,
        "task_version": spec.task_version,
        "data_fingerprint": spec.data_fingerprint,
        "model_revision": spec.model_revision,
    }


def hyperparameter_words(spec: RunSpec) -> list[str]:
    """The hyperparameters of an arm as its row shows them."""
    return setting_words(shown_hyperparameters(spec))


def metric_on_test(run: RunRecord) -> float:
    """The test score of a run that is done."""
    assert run.test is not None  # a run that is done was scored on test
    return run.test.metric


def _over_ties(of_row: Choices) -> dict[str, float]:
    """The lowest and the highest test mean that another choice among ties on dev would give.

    They are over all choices of one tied learning rate for each seed. Ties between the checkpoints of one
    run are left out, because the test split is scored at one checkpoint only.
    """
    tied = [[metric_on_test(of_row.done[run_id]) for run_id in s.tied] for s in of_row.selections.values()]
    return {
        "test_tied_low": summary([min(scores) for scores in tied]).mean,
        "test_tied_high": summary([max(scores) for scores in tied]).mean,
    }


def _majority(runs: Sequence[RunRecord]) -> float:
    """The mean test score of the best constant prediction, which a model that learned nothing gives."""
    scores = [best_constant(run.metric, t.labels, t.questions) for run in runs if (t := run.test)]
    known = [score for score in scores if score is not None]
    return summary(known).mean if len(known) == len(scores) else math.nan


def _axes_text(grid: Sequence[Point]) -> str:
    """The further axes and their values, such as `batch_size=4/8 momentum=0.5/0.9`; empty without them."""
    values: dict[str, set[Any]] = defaultdict(set)
    for point in grid:
        for name, value in point.settings:
            values[name].add(value)
    return " ".join(f"{name}={_values_text(sorted(of_axis))}" for name, of_axis in values.items())


def _values_text(values: Sequence[Any]) -> str:
    between = "," if any(isinstance(value, tuple) for value in values) else "/"
    return between.join(setting_text(value, SHOWN_DIGITS) for value in values)


def ends_text(axes: Sequence[str], ends: Iterable[str]) -> str:
    """How many seeds chose an end of each axis, such as `learning_rate=2 momentum=1`; empty with one axis.

    Args:
        axes: the axes that are tuned next to the learning rate.
        ends: the axes at an end of which a seed is, once for each seed.
    """
    counts = Counter(ends)
    return " ".join(f"{name}={counts[name]}" for name in ("learning_rate", *axes)) if axes else ""


def _of_data(best: Sequence[RunRecord]) -> dict[str, float | None]:
    """What a reader should know of the texts behind a row: the largest values of its chosen runs."""
    splits = [run.split for run in best if run.split]
    return {
        "n_leaked": max((s.n_leaked for s in splits if s.n_leaked is not None), default=None),
        "unknown_tokens": max((s.unknown_share for s in splits if s.unknown_share is not None), default=None),
    }
