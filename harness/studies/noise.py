"""Noise: how far search directions are from the gradient, measured, and Sato & Iiduka's bounds on it.

Sato & Iiduka (arXiv 2402.02325) call the optimizer's direction minus the full gradient its *search-direction
noise* omega, and learning rate x ||omega|| its level. In expectation, the optimizer then makes gradient
descent on a loss that noise of that size smooths; the size is the degree of smoothing delta. They bound
delta by the gradient variance C^2, the bound K of the gradient's norm, the batch size and beta. They found
C^2 indirectly, from the batch size at which training costs least. This study measures all of it directly
along the path of each optimizer: C^2 and ||G|| from gradients of single examples, and omega against the full
gradient at the same point.

SHB is heavy ball (m <- beta m + g, x <- x - gamma m), NSHB is the averaging form (d <- beta d + (1 - beta) g,
x <- x - eta d). At matched effective rate, gamma = eta (1 - beta), both follow one path, so one arm of SGDM
serves for both, with d = (1 - beta) m. Their steps are the same too. Their noise is not, because the first
is compared with gamma G and the second with eta G.

Dropout, clipping and schedule are off, as in `closeness`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.lines import Line2D

from momentum_bench.harness.records.schema import RunSpec, Stored
from momentum_bench.harness.reporting import COLOURS, FAINT, INK, svg_text
from momentum_bench.harness.seeds import batch_indices
from momentum_bench.harness.studies.arms import Arm, check_horizon, inner_product, make_pair, side_by_side
from momentum_bench.harness.studies.cells import CellRecord, CellSpec, outcome
from momentum_bench.harness.studies.gradient_noise import (
    FORMULAS,
    GradientNoise,
    Measured,
    degree_of_smoothing,
    drawn_examples,
    measure,
)
from momentum_bench.harness.studies.outputs import (
    DASHES,
    SETTING_COLUMNS,
    log_scale,
    panels,
    setting_columns,
)
from momentum_bench.harness.studies.study import PlannedStudy, Study, Table, Tables
from momentum_bench.harness.training.session import Session

PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "k": 4,
        "seeds": (13,),
        "batch_size": 2,
        "steps": 100,
        "momentum": 0.9,
        "n_times": 10,
        "n_examples": 64,
        "rates": {"head": (0.03,), "prompt": (0.003,)},
    },
    "large": {
        "task": ("sst2",),
        "k": 64,
        "seeds": (13, 21, 42),
        "batch_size": 8,
        "steps": 1000,
        "momentum": 0.9,
        "n_times": 20,
        "n_examples": 64,
        "rates": {"head": (0.001, 0.003, 0.01), "prompt": (1e-4, 3e-4, 1e-3)},
    },
}


Method = Literal["sgd", "shb", "nshb"]
METHODS: tuple[Method, ...] = ("sgd", "shb", "nshb")

EXPECTATION = """\
The formulas bound the root mean square over batches, here from the largest C^2 and ||G|| on the path. A
factor above 1 says how loose a bound is; a single step may exceed the bound. SHB and NSHB make the same
steps (at rates eta (1 - beta) and eta). Their levels differ because they are compared with different
gradients. A direction that lags behind the gradient counts as noise too, whatever the batch is."""


class NoiseSpec(CellSpec):
    """One cell: SGD and SGDM from one start, and how often their noise is measured.

    Attributes:
        sgd: the SGD arm, as a run.
        momentum: beta of the SGDM arm.
        n_times: how many steps are measured, evenly spaced from the first to the last.
        n_examples: single gradients are taken of at most this many training examples, at each of these steps.
    """

    study: Literal["noise"] = "noise"
    momentum: float
    n_times: int
    n_examples: int

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps (from 1) whose directions are measured."""
        return tuple(round(x) for x in np.linspace(1, self.sgd.max_steps, self.n_times))


class NoisePoint(Stored):
    """One method at one step: the gradient and its noise before the step, and the direction of the step.

    Attributes:
        learning_rate: torch's rate for this form of the method.
        batch_noise: ||g_b - G|| of this step's batch.
        direction_noise: ||omega||, the norm of the direction minus G.
    """

    method: Method
    step: int
    learning_rate: float
    gradient: GradientNoise
    batch_noise: float
    direction_noise: float

    @property
    def level(self) -> float:
        """Learning rate x ||omega||: a length in parameter space."""
        return self.learning_rate * self.direction_noise


class NoiseRecord(CellRecord):
    """A finished cell. `diverged`: a loss was not finite, and the points of its arm end before that step."""

    spec: NoiseSpec
    points: tuple[NoisePoint, ...]

    def path(self, method: Method) -> list[NoisePoint]:
        """The points of one method, in the order of the steps."""
        return [point for point in self.points if point.method == method]


def noise_cells(specs: Sequence[RunSpec], momentum: float, n_times: int, n_examples: int) -> list[NoiseSpec]:
    """One cell for each run of plain SGD.

    Raises:
        UserError: too few steps for the momentum.
    """
    check_horizon(specs[0].max_steps, momentum)
    return [
        NoiseSpec(sgd=spec, momentum=momentum, n_times=min(n_times, spec.max_steps), n_examples=n_examples)
        for spec in specs
    ]


def run_noise_cell(spec: NoiseSpec, session: Session, models_at_a_time: int) -> NoiseRecord:
    """Run one cell: SGD and SGDM, measured at some of their steps.

    Args:
        models_at_a_time: arms that compute at the same time, 2 at most; it has no effect on results.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    run = spec.sgd
    session.check_inputs(run)
    split = session.split(run)
    arms = make_pair(run, spec.momentum, session)
    n = len(split.train.labels)

    def path(arm: Arm) -> tuple[list[NoisePoint], str | None]:
        points: list[NoisePoint] = []
        for step in range(run.max_steps):
            before: Measured | None = None
            if step + 1 in spec.steps:
                examples = drawn_examples(run.seed, step, n, spec.n_examples)
                before = measure(arm, split.train, examples)
            rows = batch_indices(arm.order_seed, step, n, run.batch_size)
            loss = arm.backward([arm.batch(split.train, rows)])
            if not math.isfinite(loss):
                return points, f"training loss of {arm.name} not finite at step {step + 1}"
            gradient = arm.gradient
            arm.step()
            if before is not None:
                points += _points(arm, step + 1, before, gradient)
        return points, None

    started = time.perf_counter()
    with side_by_side(models_at_a_time, run.threads_per_run) as pool:
        paths = list(pool.map(path, arms))
    return NoiseRecord(
        spec=spec,
        points=tuple(point for points, _ in paths for point in points),
        **outcome(arms, split, [failure for _, failure in paths if failure], started),
    )


def _points(arm: Arm, step: int, before: Measured, gradient: list[torch.Tensor]) -> list[NoisePoint]:
    """What the arm's step says about each method that follows its path."""
    rate = arm.optimizer.param_groups[0]["lr"]
    if arm.name == "sgd":
        directions: list[tuple[Method, float, list[torch.Tensor]]] = [("sgd", rate, gradient)]
    else:
        beta, buffers = arm.spec.hyperparameters["momentum"], arm.momentum_buffers
        averages = list(torch._foreach_mul(buffers, 1 - beta))
        directions = [("shb", rate, buffers), ("nshb", arm.spec.learning_rate, averages)]
    return [
        NoisePoint(
            method=method,
            step=step,
            learning_rate=learning_rate,
            gradient=before.noise,
            batch_noise=_distance(gradient, before.gradient),
            direction_noise=_distance(direction, before.gradient),
        )
        for method, learning_rate, direction in directions
    ]


def _distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    apart = torch._foreach_sub(a, b)
    return math.sqrt(inner_product(apart, apart))


@dataclass(frozen=True)
class Degree:
    """A bound on the level of the noise along one path, and the level that was measured there.

    Attributes:
        variance, gradient_norm: the largest on the path, which stand for C^2 and K.
        bound: the degree of smoothing by the formula.
        level_rms, level_largest: root mean square and largest of the measured learning rate x ||omega||.
    """

    formula: str
    torch_learning_rate: float
    variance: float
    gradient_norm: float
    bound: float
    level_rms: float
    level_largest: float


def degrees(record: NoiseRecord) -> list[Degree]:
    """Each formula with the measured noise of its method. An arm without a point has none."""
    found = []
    for formula in FORMULAS:
        method = next(method for method in METHODS if formula.startswith(method))
        path = record.path(method)
        if not path:
            continue
        # an estimate of the variance from few examples can be below 0
        variance = max(0.0, *(point.gradient.variance for point in path))
        norm = max(point.gradient.gradient_norm for point in path)
        rate, spec = path[0].learning_rate, record.spec
        levels = [point.level for point in path]
        found.append(
            Degree(
                formula=formula,
                torch_learning_rate=rate,
                variance=variance,
                gradient_norm=norm,
                bound=degree_of_smoothing(formula, rate, variance, norm, spec.sgd.batch_size, spec.momentum),
                level_rms=math.sqrt(sum(level**2 for level in levels) / len(levels)),
                level_largest=max(levels),
            )
        )
    return found


def degree_table(records: Sequence[NoiseRecord]) -> list[str]:
    """The lines of a table for a terminal: one block for each cell."""
    lines = []
    for record in records:
        spec = record.spec
        lines.append(
            f"seed {spec.sgd.seed}, eta {spec.sgd.learning_rate:g}, batch {spec.sgd.batch_size}, "
            f"beta {spec.momentum:g}{'' if record.failure is None else ': ' + record.failure}"
        )
        lines.append("  formula       torch rate     C^2       K     bound       rms  largest  bound / rms")
        for d in degrees(record):
            factor = f"{d.bound / d.level_rms:.2f}" if d.level_rms else ""
            lines.append(
                f"  {d.formula:<12}{d.torch_learning_rate:>12.4g}{d.variance:>8.3g}{d.gradient_norm:>8.3g}"
                f"{d.bound:>10.4f}{d.level_rms:>10.4f}{d.level_largest:>9.4f}{factor:>13}"
            )
    return lines


def conclusion(records: Sequence[NoiseRecord]) -> str:
    """SGDM relative to SGD at the same effective rate, measured and by the formulas; means over cells."""
    ratios: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        found = {degree.formula: degree for degree in degrees(record)}
        sgd = found.pop("sgd", None)
        if record.status == "diverged" or sgd is None or not sgd.level_rms * sgd.bound:
            continue
        for formula, d in found.items():
            ratios.setdefault(formula, []).append((d.level_rms / sgd.level_rms, d.bound / sgd.bound))
    if not ratios:
        return "No cell has whole paths of SGD and SGDM with noise in SGD: nothing can be compared."
    n = len(ratios["shb"])
    means = {f: [sum(column) / n for column in zip(*pairs, strict=True)] for f, pairs in ratios.items()}
    bounds = ", ".join(f"{mean[1]:.2f} ({formula})" for formula, mean in means.items())
    return (
        f"Relative to SGD at the same effective rate ({n} {'cell' if n == 1 else 'cells'}), the measured\n"
        f"level is {means['shb'][0]:.2f} as SHB and {means['nshb_v1'][0]:.2f} as NSHB; the formulas give\n"
        f"{bounds}."
    )


POINT_COLUMNS = (
    *(*SETTING_COLUMNS, "status", "momentum", "step", "torch_learning_rate"),
    *(*GradientNoise.model_fields, "noise_scale", "batch_noise", "direction_noise", "level"),
)
"""The columns of noise.csv. `method` is the form of the optimizer there, not the way of fine-tuning."""

DEGREE_COLUMNS = (*SETTING_COLUMNS, "status", "momentum", *(field.name for field in fields(Degree)))
"""The columns of noise_degrees.csv."""


def point_rows(records: Sequence[NoiseRecord]) -> list[dict[str, Any]]:
    """The rows of noise.csv, sorted by seed, rate, method and step."""
    rows = []
    for record in records:
        setting = setting_columns(record.spec.sgd) | {"status": record.status}
        setting["momentum"] = record.spec.momentum
        for point in record.points:
            own = {"method": point.method, "step": point.step, "torch_learning_rate": point.learning_rate}
            own |= point.gradient.model_dump() | {"noise_scale": point.gradient.noise_scale}
            own |= {"batch_noise": point.batch_noise, "direction_noise": point.direction_noise}
            rows.append(setting | own | {"level": point.level})
    return sorted(rows, key=lambda r: (r["seed"], r["learning_rate"], r["method"], r["step"]))


def degree_rows(records: Sequence[NoiseRecord]) -> list[dict[str, Any]]:
    """The rows of noise_degrees.csv, sorted by seed, rate and formula."""
    rows = []
    for record in records:
        setting = setting_columns(record.spec.sgd) | {"status": record.status}
        setting["momentum"] = record.spec.momentum
        rows += [setting | degree.__dict__ for degree in degrees(record)]
    return sorted(rows, key=lambda r: (r["seed"], r["learning_rate"], r["formula"]))


def plot(records: Sequence[NoiseRecord]) -> str:
    """SVG: signal and noise of the batches, levels of the directions' noise, and bounds against levels.

    Each method has a colour, each rate a kind of line, and every seed has its own lines.
    """
    spec = records[0].spec
    run = spec.sgd
    rates = sorted({record.spec.sgd.learning_rate for record in records})
    dashes = {rate: DASHES[i % len(DASHES)] for i, rate in enumerate(rates)}
    colour = dict(zip(METHODS, COLOURS, strict=False))
    marks = dict(zip(FORMULAS, "os^v", strict=True))
    title = f"Gradient noise at batch {run.batch_size}, beta {spec.momentum:g}: "
    with panels(1, 3, title + f"{run.task}, {run.model}, {run.method}") as (figure, (signal, levels, bounds)):
        for record in records:
            style = dashes[record.spec.sgd.learning_rate]
            for method in METHODS:
                path = record.path(method)
                steps = [point.step for point in path]
                if path and method != "nshb":  # its path is that of shb
                    deviations = [math.sqrt(max(0.0, p.gradient.variance) / run.batch_size) for p in path]
                    norms = [p.gradient.gradient_norm for p in path]
                    signal.plot(steps, deviations, color=colour[method], ls=style, marker="o", mfc="white")
                    signal.plot(steps, norms, color=colour[method], ls=style, marker=".")
                if path:
                    found = [point.level for point in path]
                    levels.plot(steps, found, color=colour[method], ls=style, marker=".")
            for degree in degrees(record):
                method = next(m for m in METHODS if degree.formula.startswith(m))
                face = "white" if degree.formula == "nshb_aaai25" else colour[method]
                look: dict[str, Any] = {
                    "color": colour[method],
                    "marker": marks[degree.formula],
                    "mfc": face,
                    "ls": "",
                }
                bounds.plot([degree.level_rms], [degree.bound], ms=8, **look)
        signal.set(title="Signal and noise of a batch", ylabel="gradient norm", xlabel="step")
        levels.set(title="Search-direction noise", ylabel="rate x ||omega||", xlabel="step")
        bounds.set(
            title="Bounds",
            ylabel="bound by the formula",
            xlabel="measured, root mean square of rate x ||omega||",
        )
        for axes in (signal, levels, bounds):
            if axes.lines:
                log_scale(axes, "y")
        if bounds.lines:
            drawn = [value for line in bounds.lines for value in np.ravel(line.get_xydata())]
            ends = [min(drawn), max(drawn)]
            bounds.plot(ends, ends, color=FAINT, ls=":")
            log_scale(bounds, "x")
            log_scale(bounds, "y")
        handles = [
            Line2D([], [], color=colour["sgd"], label="SGD"),
            Line2D([], [], color=colour["shb"], label="SHB"),
            Line2D([], [], color=colour["nshb"], label="NSHB (same path)"),
            Line2D(
                [], [], color=INK, ls="", marker="o", mfc="white", label="noise of a batch, (C^2 / b)^(1/2)"
            ),
            Line2D([], [], color=INK, ls="", marker=".", label="||G||"),
        ]
        handles += [
            Line2D(
                [],
                [],
                color=colour[next(m for m in METHODS if f.startswith(m))],
                ls="",
                marker=marks[f],
                mfc="white" if f == "nshb_aaai25" else None,
                label=f"formula {f}",
            )
            for f in FORMULAS
        ]
        handles.append(Line2D([], [], color=FAINT, ls=":", label="bound = measured"))
        if len(rates) > 1:
            handles += [Line2D([], [], color=INK, ls=dashes[r], label=f"eta {r:g}") for r in rates]
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
        return svg_text(figure)


def noise_tables(records: Sequence[NoiseRecord]) -> Tables:
    """The rows of noise.csv and noise_degrees.csv."""
    return {
        "": Table(POINT_COLUMNS, point_rows(records)),
        "_degrees": Table(DEGREE_COLUMNS, degree_rows(records)),
    }


def noise_report(records: Sequence[NoiseRecord]) -> list[str]:
    """The degrees of smoothing, SGDM relative to SGD, and how to read both."""
    return [
        "Degrees of smoothing by the formulas, next to the measured level, rate x ||omega||:",
        *degree_table(records),
        conclusion(records),
        EXPECTATION,
    ]


def _cells(planned: PlannedStudy) -> list[NoiseSpec]:
    counts = {name: planned.settings[name] for name in ("n_times", "n_examples")}
    return noise_cells(planned.specs, planned.momentum, **counts)


NOISE = Study(
    name="noise",
    presets=PRESETS,
    readers={},
    make_cells=_cells,
    run_cell=run_noise_cell,
    record=NoiseRecord,
    tables=noise_tables,
    plot=plot,
    report=noise_report,
)
