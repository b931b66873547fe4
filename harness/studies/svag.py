"""SVAG: SGD and SGDM while the difference that curvature makes between them shrinks.

Stochastic variance amplified gradient (Li, Malladi & Arora, NeurIPS 2021; for SGDM: Wang et al. 2024,
definition 5.1) at level l draws two independent batches B1, B2 of the nominal size at every step, takes

    g = c1 g(B1) + c2 g(B2),   c1 = (1 + sqrt(2 l - 1)) / 2,   c2 = (1 - sqrt(2 l - 1)) / 2,

and makes l times as many steps at rate eta / l, with the same beta. c1 + c2 = 1 keeps the mean gradient,
and c1^2 + c2^2 = l multiplies its covariance by l. So per *effective step*, step / l, the drift and the
effect of the noise stay as they are, but the gradient changes less within a step, by a factor 1 / l.
l = 1 has c2 = 0: it is the ordinary algorithm on B1.

What to expect: if curvature makes SGD and SGDM differ at l = 1, their curves come closer as l grows. If
they already agree at l = 1, a larger l changes only the noise of single paths. All levels share their seeds
but not their batches (l times the steps continue in the same order), so the curves of different levels are
different draws of the noise.

Each batch has its own forward pass. Clipping is refused, because it would act on g and break both
identities. Dropout is 0 and the rate is constant, as in `closeness`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Literal

import torch
from matplotlib.lines import Line2D

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.records.schema import RunSpec, Stored
from momentum_bench.harness.reporting import COLOURS, INK, svg_text
from momentum_bench.harness.seeds import batch_indices, derived_seed
from momentum_bench.harness.studies.arms import (
    Arm,
    check_horizon,
    cross_entropy,
    make_pair,
    separation_of,
    side_by_side,
)
from momentum_bench.harness.studies.cells import CellRecord, CellSpec, even_steps, outcome
from momentum_bench.harness.studies.outputs import SETTING_COLUMNS, panels, setting_columns
from momentum_bench.harness.studies.study import PlannedStudy, Study, Table, Tables
from momentum_bench.harness.sweeps.request import listed
from momentum_bench.harness.training.session import Session

PRESETS: dict[str, dict[str, Any]] = {
    # 100 effective steps are 700 steps of 2 models, and most of these have two forward passes
    "small": {
        "k": 4,
        "seeds": (13,),
        "batch_size": 1,
        "steps": 100,
        "momentum": 0.9,
        "levels": (1, 2, 4),
        "n_times": 5,
        "rates": {"head": (0.03,), "prompt": (0.003,)},
    },
    "large": {
        "task": ("sst2",),
        "k": 16,
        "seeds": (13, 21, 42),
        "batch_size": 8,
        "steps": 1000,
        "momentum": 0.9,
        "levels": (1, 2, 4, 8),
        "n_times": 20,
        "rates": {"head": (0.01,), "prompt": (0.001,)},
    },
}


EXPECTATION = """\
What to expect: where curvature makes SGD and SGDM differ at l = 1, they come closer as l grows. The noise
per effective step stays the same, but every level is another draw of it."""


def svag_coefficients(level: int) -> tuple[float, float]:
    """c1 and c2 of a level l >= 1. Their sum is 1, and the sum of their squares is l."""
    root = math.sqrt(2 * level - 1)
    return (1 + root) / 2, (1 - root) / 2


class SvagSpec(CellSpec):
    """One cell: SGD and SGDM side by side at one level and seed.

    Attributes:
        sgd: the SGD arm at l = 1, as a run, with the nominal rate and number of steps.
        momentum: beta of the SGDM arm.
        n_times: how many comparisons there are, evenly spaced in effective steps, at most `sgd.max_steps`.
    """

    study: Literal["svag"] = "svag"
    momentum: float
    level: int
    n_times: int

    @property
    def label(self) -> str:
        return f"{self.sgd.label}, l = {self.level}"

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps (from 1) after which the arms are compared: l times the effective steps."""
        return tuple(self.level * step for step in even_steps(self.sgd.max_steps, self.n_times))


class SvagPoint(Stored):
    """SGD and SGDM after one effective step (step / l). Losses are in nats, over the whole split.

    Attributes:
        distance: ||x_sgd - x_sgdm|| over all parameters.
        relative_distance: distance / ||x_sgdm - x_0||; None where SGDM has not moved.
        cosine: between the displacements; None where one of them is zero.
    """

    effective_step: int
    distance: float
    relative_distance: float | None
    cosine: float | None
    train_loss_sgd: float
    train_loss_sgdm: float
    dev_loss_sgd: float
    dev_loss_sgdm: float
    dev_metric_sgd: float
    dev_metric_sgdm: float


class SvagRecord(CellRecord):
    """A finished cell. `diverged`: a loss was not finite, and the points end before that step."""

    spec: SvagSpec
    metric: str
    points: tuple[SvagPoint, ...]


def read_levels(values: str | Sequence[int]) -> tuple[int, ...]:
    """Raises: UserError, when a value is not a whole number from 1, or is there twice."""
    try:
        levels = tuple(int(word) for word in listed(values))
    except ValueError:
        levels = (0,)
    if min(levels) < 1 or len(set(levels)) < len(levels):
        raise UserError(f"--levels {values}: expected different whole numbers from 1, e.g. 1,2,4,8")
    return levels


def read_no_clipping(value: str) -> None:
    """Raises: UserError, when a norm was given at which to clip."""
    if value != "none":
        raise UserError(
            f"--max-grad-norm {value}: clipping changes the mean and the covariance of the combined "
            f"gradient, and SVAG exists to control both. Leave it out"
        )


def svag_cells(
    specs: Sequence[RunSpec], momentum: float, levels: Sequence[int], n_times: int
) -> list[SvagSpec]:
    """The cells that belong to nominal SGD runs: every level for every seed.

    Raises:
        UserError: too few steps for the momentum at l = 1, which has the fewest.
    """
    check_horizon(specs[0].max_steps, momentum)
    return [
        SvagSpec(sgd=spec, momentum=momentum, level=level, n_times=min(n_times, spec.max_steps))
        for spec in specs
        for level in sorted(levels)
    ]


def run_svag_cell(spec: SvagSpec, session: Session, models_at_a_time: int) -> SvagRecord:
    """Run one cell: SGD and SGDM on the combined gradients of its level.

    Args:
        models_at_a_time: arms that compute at the same time, 2 at most; it has no effect on results.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    session.check_inputs(spec.sgd)
    rate, n_steps = spec.sgd.learning_rate / spec.level, spec.sgd.max_steps * spec.level
    run = spec.sgd.model_copy(update={"learning_rate": rate, "max_steps": n_steps, "eval_every": n_steps})
    split = session.split(run)
    arms = make_pair(run, spec.momentum, session)
    weights = svag_coefficients(spec.level)
    metric = session.task(run).metric

    def descend(arm: Arm, step: int) -> float:
        seeds = (arm.order_seed, derived_seed(arm.order_seed, "second batch"))
        n = len(split.train.labels)
        rows = [batch_indices(seed, step, n, run.batch_size) for seed in seeds]
        return arm.descend([arm.batch(split.train, of) for of in rows], weights)

    def scores(arm: Arm) -> tuple[torch.Tensor, torch.Tensor]:
        return arm.scores(split.train), arm.scores(split.dev)

    points: list[SvagPoint] = []
    failures: list[str] = []
    started = time.perf_counter()
    with side_by_side(models_at_a_time, run.threads_per_run) as pool:
        for step in range(n_steps):
            losses = list(pool.map(descend, arms, repeat(step)))
            if not all(map(math.isfinite, losses)):
                failures = [f"training loss not finite at step {step + 1}"]
                break
            if step + 1 in spec.steps:
                gap = separation_of(*arms)
                columns: dict[str, float] = {}
                for name, (train, dev) in zip(("sgd", "sgdm"), pool.map(scores, arms), strict=True):
                    columns[f"train_loss_{name}"] = cross_entropy(train, split.train.labels)
                    columns[f"dev_loss_{name}"] = cross_entropy(dev, split.dev.labels)
                    predictions = dev.argmax(dim=1).tolist()
                    right = split.dev.references
                    columns[f"dev_metric_{name}"] = compute(
                        metric, right.answers, predictions, right.questions
                    )
                points.append(
                    SvagPoint(
                        effective_step=(step + 1) // spec.level,
                        distance=gap.distance,
                        relative_distance=gap.distance / gap.moved_b if gap.moved_b else None,
                        cosine=gap.cosine,
                        **columns,
                    )
                )
    return SvagRecord(
        spec=spec,
        metric=metric,
        points=tuple(points),
        **outcome(arms, split, failures, started),
    )


POINT_COLUMNS = (
    *(*SETTING_COLUMNS, "status", "torch_learning_rate_sgd", "torch_learning_rate_sgdm", "momentum", "level"),
    *SvagPoint.model_fields,
)
"""The columns of svag.csv."""


def point_rows(records: Sequence[SvagRecord]) -> list[dict[str, Any]]:
    """The rows of svag.csv, sorted by seed, rate, level and effective step.

    `learning_rate` is the effective rate at l = 1; the rates that torch ran with are in their own columns.
    """
    rows = []
    for record in records:
        setting = setting_columns(record.spec.sgd) | {"status": record.status}
        setting |= {f"torch_learning_rate_{arm.name}": arm.torch_learning_rate for arm in record.arms}
        setting |= {"momentum": record.spec.momentum, "level": record.spec.level}
        rows += [setting | point.model_dump() for point in record.points]
    return sorted(rows, key=lambda r: (r["seed"], r["learning_rate"], r["level"], r["effective_step"]))


def plot(records: Sequence[SvagRecord]) -> str:
    """SVG: distance, train loss, dev loss and dev metric against effective step. Each level has a colour."""
    spec = records[0].spec
    levels = sorted({record.spec.level for record in records})
    colour = {level: COLOURS[i % len(COLOURS)] for i, level in enumerate(levels)}
    run = spec.sgd
    title = f"SVAG, SGD and SGDM (beta {spec.momentum:g}): {run.task}, {run.model}, {run.method}"
    with panels(2, 2, title) as (figure, (distance, train, dev_loss, dev_metric)):
        for record in records:
            steps = [point.effective_step for point in record.points]
            shade = colour[record.spec.level]
            ratios = [point.relative_distance for point in record.points]
            distance.plot(steps, [math.nan if r is None else r for r in ratios], color=shade, marker=".")
            for axes, name in ((train, "train_loss"), (dev_loss, "dev_loss"), (dev_metric, "dev_metric")):
                for arm, dashes in (("sgd", "-"), ("sgdm", "--")):
                    values = [getattr(point, f"{name}_{arm}") for point in record.points]
                    axes.plot(steps, values, color=shade, ls=dashes, marker=".")
        distance.set(title="Distance of SGD and SGDM", ylabel="||x_sgd - x_sgdm|| / ||x_sgdm - x_0||")
        train.set(title="Train loss", ylabel="nats")
        dev_loss.set(title="Dev loss", ylabel="nats")
        dev_metric.set(title="Dev metric", ylabel=records[0].metric)
        for axes in (distance, train, dev_loss, dev_metric):
            axes.set_xlabel("effective step, step / l")
        handles = [Line2D([], [], color=colour[level], label=f"l = {level}") for level in levels]
        handles += [
            Line2D([], [], color=INK, ls=dashes, label=name)
            for name, dashes in (("SGD", "-"), ("SGDM", "--"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        return svg_text(figure)


def svag_report(records: Sequence[SvagRecord]) -> list[str]:
    """The last relative distance of each cell, and what to expect."""
    lines = ["||x_sgd - x_sgdm|| / ||x_sgdm - x_0|| after the last effective step:"]
    for record in records:
        last = record.points[-1].relative_distance if record.status == "done" else None
        run = record.spec.sgd
        name = f"seed {run.seed}, eta {run.learning_rate:g}, l = {record.spec.level}"
        lines.append(f"  {name}: {record.status if last is None else f'{last:.4f}'}")
    return [*lines, EXPECTATION]


def svag_tables(records: Sequence[SvagRecord]) -> Tables:
    """The rows of svag.csv."""
    return {"": Table(POINT_COLUMNS, point_rows(records))}


def _cells(planned: PlannedStudy) -> list[SvagSpec]:
    settings = planned.settings
    return svag_cells(planned.specs, planned.momentum, settings["levels"], settings["n_times"])


SVAG = Study(
    name="svag",
    presets=PRESETS,
    readers={"levels": read_levels, "max_grad_norm": read_no_clipping},
    make_cells=_cells,
    run_cell=run_svag_cell,
    record=SvagRecord,
    tables=svag_tables,
    plot=plot,
    report=svag_report,
)
