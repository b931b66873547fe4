"""Closeness: how far apart SGD and SGDM are when everything but the momentum is the same.

SGD and heavy-ball SGDM start from the same weights and run at the same effective rate eta. They are
compared at the same effective times eta * step. With *common* batches they see the same examples at every
step, so momentum is the only difference. With *independent* batches SGD sees the examples in another
order. This shows what the order alone does, and the first number should be read next to it.

Three settings are fixed, because each of them would add a difference that momentum does not make:

* dropout 0: the batch is then the only noise, and common batches are common noise to the last bit;
* constant learning rate: effective time is eta * step for both. (Under a schedule, the SGD of the theorem
  runs an averaged schedule of its own; here that differs only in the last 1 / (1 - beta) steps.)
* no gradient clipping: it acts on the gradient before the momentum and depends on the gradient's size, so
  it would make the effective rates of the two arms differ.

What to expect (Wang et al. 2024, theorem 3.5). The theorem bounds the *weak* error, the difference of
expectations, over O(1 / eta) steps. It assumes gradient noise that grows as eta^(-1/2), and its order is
(eta / (1 - beta))^(1/2). This study measures another thing: the distance of two coupled paths, at the
noise that the batches have, whatever eta is. This distance grows about as eta, because SGDM lags behind
SGD by eta beta / (1 - beta) m, where m is its average gradient. `noisy_quadratic` has both regimes in
closed form. So the slope of log distance against log eta should be near 1, and a slope of 1/2 would not
confirm the theorem. The slope against log(eta / (1 - beta)) mixes two effects: over beta, the steady part
of m counts as beta / (1 - beta) and its noisy part as beta / (1 - beta^2)^(1/2), so nothing fixes the slope
at 1. beta = 0 is SGD itself. It is a control: no fit uses it, and its distance on common batches must be
exactly 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import linregress

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.intervals import t_quantile
from momentum_bench.harness.records.schema import RunSpec, Stored
from momentum_bench.harness.reporting import COLOURS, FAINT, INK, svg_text
from momentum_bench.harness.seeds import batch_indices, derived_seed
from momentum_bench.harness.studies.arms import (
    Arm,
    Separation,
    check_horizon,
    cross_entropy,
    disagreement,
    make_arms,
    mean_kl,
    separation_of,
    side_by_side,
    with_momentum,
)
from momentum_bench.harness.studies.cells import CellRecord, CellSpec, even_steps, outcome
from momentum_bench.harness.studies.outputs import (
    DASHES,
    SETTING_COLUMNS,
    log_scale,
    panels,
    setting_columns,
)
from momentum_bench.harness.studies.study import PlannedStudy, Study, Table, Tables
from momentum_bench.harness.sweeps.request import listed
from momentum_bench.harness.training.session import Session

PRESETS: dict[str, dict[str, Any]] = {
    # On bbc_news: 622 steps of 4 models and 100 steps of the control, about 0.13 s of one core each. Up to
    # eta x steps = 1 the loss still falls; on the one grid that was tried beyond, no power law fitted.
    "small": {
        "k": 4,
        "seeds": (13,),
        "batch_size": 2,
        "steps": 100,
        "momenta": (0.0, 0.5, 0.9),
        "n_times": 20,
        "n_dev": 2,
        "rates": {"head": (0.0045, 0.006, 0.0075, 0.01), "prompt": (0.00045, 0.0006, 0.00075, 0.001)},
    },
    "large": {
        "task": ("sst2",),
        "k": 16,
        "seeds": (13, 21, 42),
        "batch_size": 8,
        "steps": 10_000,
        "momenta": (0.0, 0.5, 0.9, 0.99, 0.999),
        "n_times": 100,
        "n_dev": 20,
        "rates": {"head": (0.0025, 0.005, 0.01), "prompt": (0.00025, 0.0005, 0.001)},
    },
}
"""`steps` are the steps at the largest rate."""

EXPECTATION = """\
What to expect: with common batches, at the noise that the batches have, the distance shrinks about as eta
(slope 1). The theorem's order, (eta / (1 - beta))^(1/2), bounds the difference of expectations under noise
that grows as eta^(-1/2), and does not predict these slopes. Independent batches are the reference."""

Batches = Literal["common", "independent"]
BATCHES: tuple[Batches, ...] = ("common", "independent")


class ClosenessSpec(CellSpec):
    """One cell: SGD at one effective rate and seed, and one SGDM for each momentum.

    Attributes:
        sgd: the SGD arm, as a run; `max_steps` is the horizon.
        momenta: beta of each SGDM arm, ascending; 0 is the control.
        n_times: how many comparisons there are, evenly spaced, the last at the horizon.
        n_dev: how many of these, evenly spaced, also score dev; it divides `n_times`.
    """

    study: Literal["closeness"] = "closeness"
    momenta: tuple[float, ...]
    n_times: int
    n_dev: int

    @property
    def label(self) -> str:
        return f"{self.sgd.label}, {self.sgd.max_steps} steps"

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps (from 1) after which the arms are compared."""
        return even_steps(self.sgd.max_steps, self.n_times)

    @property
    def dev_steps(self) -> tuple[int, ...]:
        """Those of `steps` after which dev is scored."""
        every = self.n_times // self.n_dev
        return self.steps[every - 1 :: every]


class Comparison(Stored):
    """SGD and one SGDM at one time. Norms are over all parameters; losses and KL are in nats.

    The fields that begin with `dev_` are None where dev was not scored.

    Attributes:
        step: steps done.
        distance: ||x_sgd - x_sgdm||.
        displacement_sgd, displacement_sgdm: norms of x - x_0.
        relative_distance: distance / displacement_sgdm; None where SGDM has not moved.
        cosine: between the displacements; None where one of them is zero.
        dev_disagreement: share of dev examples that the two predict differently.
        dev_kl: mean over dev of KL(SGD || SGDM) of the predicted classes.
    """

    momentum: float
    batches: Batches
    step: int
    effective_time: float
    distance: float
    displacement_sgd: float
    displacement_sgdm: float
    relative_distance: float | None
    cosine: float | None
    dev_disagreement: float | None
    dev_kl: float | None
    dev_loss_sgd: float | None
    dev_loss_sgdm: float | None


class ClosenessRecord(CellRecord):
    """A finished cell. `diverged`: a loss was not finite, and the comparisons end before that step."""

    spec: ClosenessSpec
    comparisons: tuple[Comparison, ...]

    def typical_distance(self, momentum: float, batches: Batches) -> float | None:
        """Geometric mean of the relative distances in the second half of the steps.

        It is a mean because the distance at one step depends on the last few gradients. None where the
        cell diverged, or where a distance is 0 or undefined.
        """
        if self.status == "diverged":
            return None
        found = [
            c.relative_distance or 0.0
            for c in self.comparisons
            if (c.momentum, c.batches) == (momentum, batches) and 2 * c.step > self.spec.sgd.max_steps
        ]
        return math.exp(sum(map(math.log, found)) / len(found)) if all(found) else None


def read_momenta(values: str | Sequence[float]) -> tuple[float, ...]:
    """Raises: UserError, when a value is not a number from 0 to below 1, is there twice, or all are 0."""
    try:
        betas = tuple(float(word) for word in listed(values))
    except ValueError:
        betas = (math.nan,)
    if not all(0 <= beta < 1 for beta in betas) or len(set(betas)) < len(betas) or not any(betas):
        raise UserError(
            f"--momenta {values}: expected different numbers from 0 to below 1, at least one above 0, "
            f"e.g. 0,0.5,0.9"
        )
    return betas


def closeness_cells(
    specs: Sequence[RunSpec], momenta: Sequence[float], n_times: int, n_dev: int
) -> list[ClosenessSpec]:
    """The cells that belong to SGD runs; their `max_steps` is the number of steps at the largest rate.

    Smaller rates get more steps, so that the horizon in effective time is equal (to the nearest step). The
    control, beta = 0, runs at the largest rate only, where it costs least.

    Raises:
        UserError: the largest rate has too few steps for the largest momentum.
    """
    largest = max(spec.learning_rate for spec in specs)
    fewest = specs[0].max_steps
    check_horizon(fewest, max(momenta), at_least=n_times)
    cells = []
    for spec in specs:
        steps = round(fewest * largest / spec.learning_rate)
        betas = tuple(sorted(beta for beta in momenta if beta or spec.learning_rate == largest))
        run = spec.model_copy(update={"max_steps": steps, "eval_every": steps})
        cells.append(ClosenessSpec(sgd=run, momenta=betas, n_times=n_times, n_dev=n_dev))
    return cells


def run_closeness_cell(spec: ClosenessSpec, session: Session, models_at_a_time: int) -> ClosenessRecord:
    """Run one cell: SGD on the common and on independent batches, and an SGDM for each momentum.

    Args:
        models_at_a_time: arms that compute at the same time; it has no effect on results.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    run = spec.sgd
    session.check_inputs(run)
    split = session.split(run)
    wanted = [("sgd", run, run.seed), ("sgd, independent", run, derived_seed(run.seed, "independent order"))]
    wanted += [(_arm_name(beta), with_momentum(run, beta), run.seed) for beta in spec.momenta]
    arms = make_arms(wanted, session, run)
    # the two SGD arms come first, so their places are 0 and 1
    couplings = [(i, sgdm) for sgdm in range(2, len(arms)) for i in (0, 1)]
    comparisons: list[Comparison] = []
    failures: list[str] = []

    def descend(arm: Arm, step: int) -> float:
        rows = batch_indices(arm.order_seed, step, len(split.train.labels), run.batch_size)
        return arm.descend([arm.batch(split.train, rows)])

    started = time.perf_counter()
    with side_by_side(models_at_a_time, run.threads_per_run) as pool:
        for step in range(run.max_steps):
            losses = list(pool.map(descend, arms, repeat(step)))
            if not all(map(math.isfinite, losses)):
                failures = [f"training loss not finite at step {step + 1}"]
                break
            if step + 1 in spec.steps:
                scores: list[torch.Tensor | None] = [None] * len(arms)
                if step + 1 in spec.dev_steps:
                    scores = list(pool.map(lambda arm: arm.scores(split.dev), arms))
                gaps = pool.map(lambda pair: separation_of(arms[pair[0]], arms[pair[1]]), couplings)
                for (a, b), gap in zip(couplings, gaps, strict=True):
                    dev = _dev_columns(scores[a], scores[b], split.dev.labels)
                    comparisons.append(_comparison(arms[b], BATCHES[a], step + 1, gap, dev))
    return ClosenessRecord(
        spec=spec,
        comparisons=tuple(comparisons),
        **outcome(arms, split, failures, started),
    )


def _arm_name(momentum: float) -> str:
    return f"sgdm {momentum:.10g}"


def _comparison(
    sgdm: Arm, batches: Batches, step: int, gap: Separation, dev: dict[str, float | None]
) -> Comparison:
    return Comparison(
        momentum=sgdm.spec.hyperparameters["momentum"],
        batches=batches,
        step=step,
        effective_time=sgdm.spec.learning_rate * step,
        distance=gap.distance,
        displacement_sgd=gap.moved_a,
        displacement_sgdm=gap.moved_b,
        relative_distance=gap.distance / gap.moved_b if gap.moved_b else None,
        cosine=gap.cosine,
        **dev,
    )


def _dev_columns(
    sgd: torch.Tensor | None, sgdm: torch.Tensor | None, labels: Sequence[float]
) -> dict[str, float | None]:
    if sgd is None or sgdm is None:
        return dict.fromkeys(("dev_disagreement", "dev_kl", "dev_loss_sgd", "dev_loss_sgdm"))
    return {
        "dev_disagreement": disagreement(sgd, sgdm),
        "dev_kl": mean_kl(sgd, sgdm),
        "dev_loss_sgd": cross_entropy(sgd, labels),
        "dev_loss_sgdm": cross_entropy(sgdm, labels),
    }


@dataclass(frozen=True)
class Slope:
    """A least-squares line through the log of the typical distance, with one point for each cell.

    Attributes:
        against: the quantity on the x axis, as its logarithm.
        momentum: of the points; None: all above 0.
        slope, low, high: the slope and the ends of its 95 % t interval. None where there are fewer than
            three points, or all points have the same x.
    """

    batches: Batches
    against: Literal["eta", "eta / (1 - beta)"]
    momentum: float | None
    n: int
    slope: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        what = "all momenta" if self.momentum is None else f"momentum {self.momentum:g}"
        name = f"{self.batches} batches, against log({self.against}), {what}, {self.n} points"
        if self.slope is None:
            return f"{name}: too few points for a line"
        return f"{name}: slope {self.slope:.3f} [{self.low:.3f}, {self.high:.3f}]"


def fit_slopes(records: Sequence[ClosenessRecord]) -> list[Slope]:
    """The slopes for both kinds of batches: against eta for each momentum, against eta / (1 - beta) for all.

    Cells that diverged are left out, and so is beta = 0.
    """
    slopes = []
    for batches in BATCHES:
        points = [
            (record.spec.sgd.learning_rate, beta, distance)
            for record in records
            for beta in record.spec.momenta
            if beta and (distance := record.typical_distance(beta, batches))
        ]
        for beta in sorted({momentum for _, momentum, _ in points}):
            line = [(eta, distance) for eta, momentum, distance in points if momentum == beta]
            slopes.append(_slope(batches, "eta", beta, line))
        scaled = [(eta / (1 - momentum), distance) for eta, momentum, distance in points]
        slopes.append(_slope(batches, "eta / (1 - beta)", None, scaled))
    return slopes


def _slope(
    batches: Batches,
    against: Literal["eta", "eta / (1 - beta)"],
    momentum: float | None,
    points: Sequence[tuple[float, float]],
) -> Slope:
    n = len(points)
    if n < 3 or len({x for x, _ in points}) < 2:
        return Slope(batches, against, momentum, n, None, None, None)
    fit = linregress([math.log(x) for x, _ in points], [math.log(y) for _, y in points])
    half = t_quantile(n - 2) * float(fit.stderr)
    slope = float(fit.slope)
    return Slope(batches, against, momentum, n, slope, slope - half, slope + half)


def control_distance(records: Sequence[ClosenessRecord]) -> float | None:
    """The largest distance of the control, beta = 0, on common batches; None where there is no control."""
    found = [c.distance for r in records for c in r.comparisons if (c.momentum, c.batches) == (0, "common")]
    return max(found, default=None)


def closeness_tables(records: Sequence[ClosenessRecord]) -> Tables:
    """The rows of closeness.csv and closeness_slopes.csv."""
    slopes = [slope.__dict__ for slope in fit_slopes(records)]
    return {
        "": Table(COMPARISON_COLUMNS, comparison_rows(records)),
        "_slopes": Table(tuple(field.name for field in fields(Slope)), slopes),
    }


def closeness_report(records: Sequence[ClosenessRecord]) -> list[str]:
    """The control's distance, the slopes with their intervals, and what to expect."""
    lines = []
    if (control := control_distance(records)) is not None:
        lines.append(f"Control, beta = 0 on common batches: largest distance {control:g}, expected 0")
    lines.append("Slope of log relative distance in the second half of the steps, with a 95 % t interval:")
    lines += [f"  {slope}" for slope in fit_slopes(records)]
    return [*lines, EXPECTATION]


COMPARISON_COLUMNS = (*SETTING_COLUMNS, "status", "torch_learning_rate", *Comparison.model_fields)
"""The columns of closeness.csv."""


def comparison_rows(records: Sequence[ClosenessRecord]) -> list[dict[str, Any]]:
    """The rows of closeness.csv, sorted by cell, momentum, batches and step.

    `torch_learning_rate` is the rate of the SGDM arm, as it ran; the rate of SGD is `learning_rate`, the
    effective one.
    """
    rows = []
    for record in records:
        setting = setting_columns(record.spec.sgd) | {"status": record.status}
        torch_rates = {arm.name: arm.torch_learning_rate for arm in record.arms}
        for comparison in record.comparisons:
            rate = {"torch_learning_rate": torch_rates[_arm_name(comparison.momentum)]}
            rows.append(setting | rate | comparison.model_dump())
    return sorted(
        rows,
        key=lambda r: tuple(r[name] for name in ("seed", "learning_rate", "momentum", "batches", "step")),
    )


def plot(records: Sequence[ClosenessRecord]) -> str:
    """SVG: typical distance against eta and eta / (1 - beta); distance and KL against time.

    Each momentum has a colour, and a line joins the points of one seed. The control, beta = 0, has no
    distance on common batches. So the upper plots show it with independent batches only, which is what the
    order of the batches does by itself.
    """
    spec = records[0].spec.sgd
    betas = sorted({beta for record in records for beta in record.spec.momenta})
    rates = sorted({record.spec.sgd.learning_rate for record in records}, reverse=True)
    colour = {beta: FAINT if beta == 0 else COLOURS[i % len(COLOURS)] for i, beta in enumerate(betas)}
    dashes = {rate: DASHES[i % len(DASHES)] for i, rate in enumerate(rates)}
    title = f"SGD and SGDM at equal effective rate: {spec.task}, {spec.model}, {spec.method}"
    with panels(2, 2, title) as (figure, (by_rate, by_scale, over_time, kl)):
        for axes, scaled in ((by_rate, False), (by_scale, True)):
            for batches, look in zip(BATCHES, ("o-", "s--"), strict=True):
                for beta in betas:
                    _draw_distances(axes, records, batches, beta, scaled, look, colour[beta])
            axes.set_xlabel("effective rate eta" + " / (1 - beta)" * scaled)
            axes.set_ylabel("||x_sgd - x_sgdm|| / ||x_sgdm - x_0||")
        by_rate.set_title("Geometric mean over the second half of the way")
        by_scale.set_title("The same, on the theorem's scale")
        _guide(by_rate)
        for axes in (by_rate, by_scale):
            _log_scale_of_drawn(axes, "x", "y")
        if by_rate.lines:
            by_rate.set_xticks(rates)
        for record in records:
            for beta in filter(None, record.spec.momenta):
                line = {"color": colour[beta], "ls": dashes[record.spec.sgd.learning_rate]}
                _draw_way(over_time, record, beta, "relative_distance", line | {"marker": ""})
                _draw_way(kl, record, beta, "dev_kl", line | {"marker": "."})
        over_time.set(ylabel="||x_sgd - x_sgdm|| / ||x_sgdm - x_0||", title="On the way")
        kl.set(ylabel="mean KL of dev predictions, nats", title="Predictions on the way")
        for axes in (over_time, kl):
            _log_scale_of_drawn(axes, "y")
            axes.set_xlabel("effective time, eta x steps (common batches)")
        handles = [Line2D([], [], color=colour[beta], label=f"beta {beta:g}") for beta in betas]
        handles += [Line2D([], [], color=INK, ls=dashes[r], label=f"eta {r:g}") for r in rates]
        handles += [
            Line2D([], [], color=INK, ls="-", marker="o", label="common batches"),
            Line2D([], [], color=INK, ls="--", marker="s", mfc="white", label="independent batches"),
            Line2D([], [], color=FAINT, ls=":", label="slope 1"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=5)
        return svg_text(figure)


def _draw_distances(
    axes: Axes,
    records: Sequence[ClosenessRecord],
    batches: Batches,
    beta: float,
    scaled: bool,
    look: str,
    colour: str,
) -> None:
    """Draw the typical distances of one momentum, one line for each seed."""
    for seed in sorted({record.spec.sgd.seed for record in records}):
        points = sorted(
            (record.spec.sgd.learning_rate / (1 - beta if scaled else 1), distance)
            for record in records
            if record.spec.sgd.seed == seed
            and beta in record.spec.momenta
            and (distance := record.typical_distance(beta, batches))
        )
        face = "white" if batches == "independent" else colour
        if points:
            axes.plot(*zip(*points, strict=True), look, color=colour, mfc=face)


def _draw_way(axes: Axes, record: ClosenessRecord, beta: float, name: str, style: dict[str, Any]) -> None:
    """Draw one value of a cell's comparisons on common batches over effective time."""
    way = [c for c in record.comparisons if (c.momentum, c.batches) == (beta, "common")]
    # a log axis has no place for a zero; a time that was not measured has no value
    points = [(c.effective_time, y) for c in way if (y := getattr(c, name))]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _log_scale_of_drawn(axes: Axes, *which: Literal["x", "y"]) -> None:
    """Make axes logarithmic, where something is drawn on them."""
    if axes.lines:
        for each in which:
            log_scale(axes, each)


def _guide(axes: Axes) -> None:
    """Draw a line of slope 1 below the points that are drawn."""
    drawn = [(x, y) for line in axes.lines for x, y in np.asarray(line.get_xydata())]
    if drawn:
        left, right = min(x for x, _ in drawn), max(x for x, _ in drawn)
        low = min(y for _, y in drawn) * 0.7
        axes.plot([left, right], [low, low * right / left], color=FAINT, ls=":")


def _cells(planned: PlannedStudy) -> list[ClosenessSpec]:
    settings = planned.settings
    return closeness_cells(planned.specs, settings["momenta"], settings["n_times"], settings["n_dev"])


CLOSENESS = Study(
    name="closeness",
    presets=PRESETS,
    readers={"momenta": read_momenta},
    make_cells=_cells,
    run_cell=run_closeness_cell,
    record=ClosenessRecord,
    tables=closeness_tables,
    plot=plot,
    report=closeness_report,
)
