"""Batch size: from which size on does momentum pay?

SGD and SGDM train at equal effective rate, on the same batches, for the same number of steps. The study
does this at batch sizes from 1 to the whole training set (gradient descent without noise), over a grid of
rates. All batch sizes have the same steps and so the same effective time, eta x steps. A larger batch then
removes noise and nothing else. (At equal numbers of examples it would remove steps as well.)

Wang et al. 2024 expect momentum to help only where curvature, and not noise, limits the best rate: at large
batches. The simple noise scale along SGD's path says how large a batch is (McCandlish et al. 2018,
`gradient_noise`): below it a step is mostly noise, above it mostly gradient.

The gap is SGDM's loss at the end minus SGD's: momentum pays where it is below 0. The study takes the gap at
*matched* rates, and between the *best* rate of each on the common grid. The best rate has the lowest loss on
the training set, because both arms minimise this loss and it is computed on every example. The dev loss at
these rates is shown next to it and chooses nothing. An arm whose loss was not finite has no end.

Dropout, clipping and schedule are off, as in `closeness`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.intervals import t_quantile
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.records.schema import RunSpec, Stored
from momentum_bench.harness.reporting import COLOURS, FAINT, INK, svg_text
from momentum_bench.harness.seeds import batch_indices
from momentum_bench.harness.studies.arms import Arm, check_horizon, cross_entropy, make_pair, side_by_side
from momentum_bench.harness.studies.cells import CellRecord, CellSpec, even_steps, outcome
from momentum_bench.harness.studies.gradient_noise import GradientNoise, drawn_examples, measure
from momentum_bench.harness.studies.outputs import SETTING_COLUMNS, log_scale, panels, setting_columns
from momentum_bench.harness.studies.study import PlannedStudy, Study, Table, Tables
from momentum_bench.harness.sweeps.request import listed
from momentum_bench.harness.training.session import Session

PRESETS: dict[str, dict[str, Any]] = {
    # On bbc_news: 3 rates x 100 steps of 2 models at 1, 2 and all 5 examples; about 0.08 s of one core for a
    # step and 0.04 s for an example.
    "small": {
        "k": 1,
        "seeds": (13,),
        "batch_size": 1,
        "batch_sizes": (1, 2, None),
        "steps": 100,
        "momentum": 0.9,
        "n_times": 2,
        "n_examples": 64,
        "rates": {"head": (0.03, 0.1, 0.3), "prompt": (0.003, 0.01, 0.03)},
    },
    "large": {
        "task": ("sst2",),
        "k": 64,
        "seeds": (13, 21, 42, 87, 100),
        "batch_size": 1,
        "batch_sizes": (1, 2, 4, 8, 16, 32, 64, None),
        "steps": 1000,
        "momentum": 0.9,
        "n_times": 10,
        "n_examples": 64,
        "rates": {
            "head": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
            "prompt": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
        },
    },
}
"""`batch_size` is the size of the planned runs; in the cells, each of `batch_sizes` replaces it. None among
these is the whole training set."""

SEEDS_FOR_AN_INTERVAL = 3
"""With fewer seeds there is no interval, and the study does not say where momentum begins to pay."""

EXPECTATION = """\
What theory expects: no gap at small batches, where it says that noise limits the rate of both. If there is
a gap, it begins at batch sizes near the noise scale. A model soon fits few examples: near 0 nats a gap says
nothing."""

ArmName = Literal["sgd", "sgdm"]
ARMS: tuple[ArmName, ...] = ("sgd", "sgdm")
LOOKS = ({"ls": "-", "marker": "o"}, {"ls": "--", "marker": "s"})


class BatchSizeSpec(CellSpec):
    """One cell: SGD and SGDM at one batch size, rate and seed.

    Attributes:
        sgd: the SGD arm, as a run.
        momentum: beta of the SGDM arm.
        n_times: how many times the arms are measured, evenly spaced, the last at the end.
        n_examples: the noise is measured from the single gradients of at most this many training examples.
    """

    study: Literal["batch-size"] = "batch-size"
    momentum: float
    n_times: int
    n_examples: int

    @property
    def label(self) -> str:
        return f"{self.sgd.label}, batch {self.sgd.batch_size}"

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps (from 1) after which the arms are measured."""
        return even_steps(self.sgd.max_steps, self.n_times)


class BatchSizePoint(Stored):
    """One arm after `step` steps: train loss and gradient noise, dev loss in nats, and dev metric."""

    arm: ArmName
    step: int
    gradient: GradientNoise
    dev_loss: float
    dev_metric: float


class BatchSizeRecord(CellRecord):
    """A finished cell. `diverged`: a loss was not finite, and the points of its arm end before that step."""

    spec: BatchSizeSpec
    metric: str
    points: tuple[BatchSizePoint, ...]

    def path(self, arm: ArmName) -> list[BatchSizePoint]:
        """The points of one arm, in the order of the steps."""
        return [point for point in self.points if point.arm == arm]

    def end(self, arm: ArmName) -> BatchSizePoint | None:
        """The point of one arm after the last step; None where it diverged."""
        return next((p for p in self.path(arm) if p.step == self.spec.sgd.max_steps), None)


def read_batch_sizes(values: str | Sequence[int | None]) -> tuple[int | None, ...]:
    """Raises: UserError, when a value is not a whole number from 1 and not full, or is there twice."""
    try:
        sizes = tuple(None if word in (None, "full") else int(word) for word in listed(values))
    except ValueError:
        sizes = (0,)
    if any(size is not None and size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
        raise UserError(
            f"--batch-sizes {values}: expected different whole numbers from 1, or full for the whole "
            f"training set, e.g. 1,4,full"
        )
    return sizes


def batch_size_cells(
    specs: Sequence[RunSpec],
    batch_sizes: Sequence[int | None],
    n_train: int,
    momentum: float,
    n_times: int,
    n_examples: int,
) -> list[BatchSizeSpec]:
    """The cells that belong to runs of plain SGD: every batch size at every rate and seed.

    Args:
        batch_sizes: None is the whole training set.
        n_train: size of the training set.

    Raises:
        UserError: too few steps for the momentum, or a batch larger than the training set, because an
            example would then be twice in one step.
    """
    check_horizon(specs[0].max_steps, momentum)
    sizes = sorted({n_train if size is None else size for size in batch_sizes})
    if sizes[-1] > n_train:
        raise UserError(
            f"--batch-sizes {sizes[-1]}: the training set has {n_train} examples. Use at most {n_train}, "
            f"or full for all, or a larger --k"
        )
    return [
        BatchSizeSpec(
            sgd=spec.model_copy(update={"batch_size": size}),
            momentum=momentum,
            n_times=min(n_times, spec.max_steps),
            n_examples=n_examples,
        )
        for size in sizes
        for spec in specs
    ]


def run_batch_size_cell(spec: BatchSizeSpec, session: Session, models_at_a_time: int) -> BatchSizeRecord:
    """Run one cell: SGD and SGDM at its batch size.

    Args:
        models_at_a_time: arms that compute at the same time, 2 at most; it has no effect on results.

    Raises:
        UserError: the split, the prompt or the model cannot be built.
    """
    run = spec.sgd
    session.check_inputs(run)
    split = session.split(run)
    arms = make_pair(run, spec.momentum, session)
    metric, n, right = session.task(run).metric, len(split.train.labels), split.dev.references

    def path(arm: Arm, name: ArmName) -> tuple[list[BatchSizePoint], str | None]:
        points: list[BatchSizePoint] = []
        for step in range(run.max_steps):
            rows = batch_indices(arm.order_seed, step, n, run.batch_size)
            loss = arm.descend([arm.batch(split.train, rows)])
            if not math.isfinite(loss):
                return points, f"training loss of {name} not finite at step {step + 1}"
            if step + 1 in spec.steps:
                examples = drawn_examples(run.seed, step, n, spec.n_examples)
                found = measure(arm, split.train, examples).noise
                scores = arm.scores(split.dev)
                predictions = scores.argmax(dim=1).tolist()
                if not math.isfinite(found.train_loss):
                    return points, f"training loss of {name} not finite after step {step + 1}"
                points.append(
                    BatchSizePoint(
                        arm=name,
                        step=step + 1,
                        gradient=found,
                        dev_loss=cross_entropy(scores, split.dev.labels),
                        dev_metric=compute(metric, right.answers, predictions, right.questions),
                    )
                )
        return points, None

    started = time.perf_counter()
    with side_by_side(models_at_a_time, run.threads_per_run) as pool:
        paths = list(pool.map(path, arms, ARMS))
    return BatchSizeRecord(
        spec=spec,
        metric=metric,
        points=tuple(point for points, _ in paths for point in points),
        **outcome(arms, split, [failure for _, failure in paths if failure], started),
    )


@dataclass(frozen=True)
class Gap:
    """SGDM minus SGD at the end, at one batch size and seed, each at its best rate of the grid.

    Attributes:
        eta_sgd, eta_sgdm: the rate with the lowest train loss; None where all diverged.
        edge: whether one of these is the smallest or the largest of several rates.
        train_loss_sgd, train_loss_sgdm, dev_loss_sgd, dev_loss_sgdm: at these rates, in nats.
        noise_scale_first, noise_scale_last: of SGD at its best rate, at the first and last measurement.
    """

    batch_size: int
    seed: int
    eta_sgd: float | None
    eta_sgdm: float | None
    edge: bool
    train_loss_sgd: float | None
    train_loss_sgdm: float | None
    dev_loss_sgd: float | None
    dev_loss_sgdm: float | None
    noise_scale_first: float | None
    noise_scale_last: float | None

    @property
    def train(self) -> float | None:
        """The gap in train loss, nats."""
        return _minus(self.train_loss_sgdm, self.train_loss_sgd)

    @property
    def dev(self) -> float | None:
        """The gap in dev loss, nats."""
        return _minus(self.dev_loss_sgdm, self.dev_loss_sgd)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def gaps(records: Sequence[BatchSizeRecord]) -> list[Gap]:
    """The gap between best rates for each batch size and seed, sorted by both."""
    found = []
    keys = sorted({(r.spec.sgd.batch_size, r.spec.sgd.seed) for r in records})
    for size, seed in keys:
        cells = [r for r in records if (r.spec.sgd.batch_size, r.spec.sgd.seed) == (size, seed)]
        rates = sorted({r.spec.sgd.learning_rate for r in cells})
        sgd, sgdm = _best(cells, "sgd"), _best(cells, "sgdm")
        etas = [best.eta if best else None for best in (sgd, sgdm)]
        found.append(
            Gap(
                batch_size=size,
                seed=seed,
                eta_sgd=etas[0],
                eta_sgdm=etas[1],
                edge=len(rates) > 1 and any(eta in (rates[0], rates[-1]) for eta in etas),
                train_loss_sgd=sgd.train_loss if sgd else None,
                train_loss_sgdm=sgdm.train_loss if sgdm else None,
                dev_loss_sgd=sgd.dev_loss if sgd else None,
                dev_loss_sgdm=sgdm.dev_loss if sgdm else None,
                noise_scale_first=sgd.noise_scales[0] if sgd else None,
                noise_scale_last=sgd.noise_scales[1] if sgd else None,
            )
        )
    return found


@dataclass(frozen=True)
class _Best:
    eta: float
    train_loss: float
    dev_loss: float
    noise_scales: tuple[float | None, float | None]


def _best(cells: Sequence[BatchSizeRecord], arm: ArmName) -> _Best | None:
    """How the arm ends at the rate with the lowest train loss, or at the smallest of several such rates."""
    ends = []
    for record in cells:
        if (end := record.end(arm)) is not None:
            scales = record.path(arm)[0].gradient.noise_scale, end.gradient.noise_scale
            rate = record.spec.sgd.learning_rate
            ends.append(_Best(rate, end.gradient.train_loss, end.dev_loss, scales))
    return min(ends, key=lambda end: (end.train_loss, end.eta)) if ends else None


@dataclass(frozen=True)
class MeanGap:
    """A gap over seeds: its mean and the ends of a paired 95 % t interval (None: too few seeds)."""

    batch_size: int
    n: int
    mean: float
    low: float | None
    high: float | None


def mean_gaps(found: Sequence[Gap]) -> list[MeanGap]:
    """The gap in train loss between best rates, over seeds, for each batch size that has one."""
    means = []
    for size in sorted({gap.batch_size for gap in found}):
        values = [gap.train for gap in found if gap.batch_size == size and gap.train is not None]
        if not values:
            continue
        n, mean = len(values), sum(values) / len(values)
        half = None
        if n >= SEEDS_FOR_AN_INTERVAL:
            variance = sum((value - mean) ** 2 for value in values) / (n - 1)
            half = t_quantile(n - 1) * math.sqrt(variance / n)
        ends = (None, None) if half is None else (mean - half, mean + half)
        means.append(MeanGap(size, n, mean, *ends))
    return means


def conclusion(means: Sequence[MeanGap]) -> str:
    """What the intervals show of the batch size from which momentum pays, at the best rate of each arm."""
    if not means:
        return "No batch size has both SGD and SGDM at the last step: nothing can be compared."
    if all(m.low is None for m in means):
        least = min(means, key=lambda m: m.mean)
        return (
            f"Too few seeds for an interval ({means[0].n}; {SEEDS_FOR_AN_INTERVAL} are needed): single paths "
            f"show nothing about momentum.\nThe gap favours momentum most at batch size "
            f"{least.batch_size} ({least.mean:+.4f} nats)."
        )
    paying = [m.high is not None and m.high < 0 for m in means]
    first = next((i for i in range(len(means)) if all(paying[i:])), None)
    if first is None:
        some = [str(m.batch_size) for m, pays in zip(means, paying, strict=True) if pays]
        rest = f" It pays at {', '.join(some)}, but not at every larger size." if some else ""
        return f"No batch size is shown from which momentum pays up to the largest one.{rest}"
    return (
        f"From batch size {means[first].batch_size} on, momentum pays: the 95 % intervals of the gap are "
        f"below 0 ({means[first].n} paired seeds, one interval for each batch size, without correction)."
    )


def gap_table(found: Sequence[Gap]) -> list[str]:
    """The lines of a table for a terminal: one line for each batch size, with means over seeds."""
    lines = [
        "            noise scale       best eta        train loss, nats       gap, nats",
        " batch    first     last      SGD     SGDM       SGD      SGDM     train       dev  95 % of train",
    ]
    intervals = {m.batch_size: m for m in mean_gaps(found)}
    for size in sorted({gap.batch_size for gap in found}):
        group = [gap for gap in found if gap.batch_size == size]
        cells = [f"{size:>6}"]
        cells += [_mean_cell(group, name, 8, ".1f") for name in ("noise_scale_first", "noise_scale_last")]
        cells += [_rates_cell(group, name) for name in ("eta_sgd", "eta_sgdm")]
        cells += [_mean_cell(group, name, 9, ".4f") for name in ("train_loss_sgd", "train_loss_sgdm")]
        cells += [_mean_cell(group, name, 9, "+.4f") for name in ("train", "dev")]
        mean = intervals.get(size)
        known = mean is not None and mean.low is not None
        cells.append(f"{mean.low:+.4f} to {mean.high:+.4f}" if mean and known else "none")
        mark = " *" if any(gap.edge for gap in group) else ""
        lines.append(" ".join(cells) + mark)
    if any(gap.edge for gap in found):
        lines.append(
            "* a best rate is at the edge of the grid: widen --learning-rates before you believe the gap"
        )
    return lines


def _mean_cell(group: Sequence[Gap], name: str, width: int, form: str) -> str:
    values = [value for gap in group if (value := getattr(gap, name)) is not None]
    return f"{format(sum(values) / len(values), form):>{width}}" if values else f"{'none':>{width}}"


def _rates_cell(group: Sequence[Gap], name: str) -> str:
    """The chosen rates: one rate, or the smallest and the largest over seeds."""
    rates = sorted({rate for gap in group if (rate := getattr(gap, name)) is not None})
    return f"{'-'.join(f'{rate:g}' for rate in dict.fromkeys((rates[0], rates[-1]))) if rates else 'none':>8}"


POINT_COLUMNS = (
    *(*SETTING_COLUMNS, "status", "momentum", "arm", "torch_learning_rate", "step"),
    *(*GradientNoise.model_fields, "noise_scale", "dev_loss", "dev_metric"),
)
"""The columns of batch_size.csv."""

GAP_COLUMNS = (*(field.name for field in fields(Gap)), "train_gap", "dev_gap")
"""The columns of batch_size_gaps.csv."""


def point_rows(records: Sequence[BatchSizeRecord]) -> list[dict[str, Any]]:
    """The rows of batch_size.csv, sorted by seed, batch size, rate, arm and step."""
    rows = []
    for record in records:
        setting = setting_columns(record.spec.sgd) | {"status": record.status}
        setting["momentum"] = record.spec.momentum
        rates = {arm.name: arm.torch_learning_rate for arm in record.arms}
        for point in record.points:
            own = {"arm": point.arm, "torch_learning_rate": rates[point.arm], "step": point.step}
            own |= point.gradient.model_dump() | {"noise_scale": point.gradient.noise_scale}
            rows.append(setting | own | {"dev_loss": point.dev_loss, "dev_metric": point.dev_metric})
    names = ("seed", "batch_size", "learning_rate", "arm", "step")
    return sorted(rows, key=lambda r: tuple(r[name] for name in names))


def gap_rows(records: Sequence[BatchSizeRecord]) -> list[dict[str, Any]]:
    """The rows of batch_size_gaps.csv, sorted by batch size and seed."""
    return [gap.__dict__ | {"train_gap": gap.train, "dev_gap": gap.dev} for gap in gaps(records)]


def plot(records: Sequence[BatchSizeRecord]) -> str:
    """SVG: final train loss at every rate, best losses and noise scale, each against batch size.

    Each value is a mean over the seeds that have an end.
    """
    run = records[0].spec.sgd
    rates = sorted({record.spec.sgd.learning_rate for record in records})
    sizes = sorted({record.spec.sgd.batch_size for record in records})
    colour = {rate: COLOURS[i % len(COLOURS)] for i, rate in enumerate(rates)}
    found = gaps(records)
    title = f"SGD and SGDM (beta {records[0].spec.momentum:g}) over batch size, {run.max_steps} steps: "
    with panels(2, 2, title + f"{run.task}, {run.model}, {run.method}") as (
        figure,
        (matched, best, dev, scale),
    ):
        for rate in rates:
            cells = [record for record in records if record.spec.sgd.learning_rate == rate]
            for arm, look in zip(ARMS, LOOKS, strict=True):
                losses = [
                    (record.spec.sgd.batch_size, end.gradient.train_loss)
                    for record in cells
                    if (end := record.end(arm)) is not None
                ]
                _draw(matched, losses, {"color": colour[rate], **look})
            for i, look in ((0, {"ls": ":", "marker": "^"}), (-1, {"ls": "-", "marker": "."})):
                paths = [(r.spec.sgd.batch_size, r.path("sgd")) for r in cells]
                scales = [(size, path[i].gradient.noise_scale) for size, path in paths if path]
                _draw(scale, scales, {"color": colour[rate], **look})
        for arm, look in zip(ARMS, LOOKS, strict=True):
            for axes, name in ((best, "train_loss"), (dev, "dev_loss")):
                values = [(gap.batch_size, getattr(gap, f"{name}_{arm}")) for gap in found]
                _draw(axes, values, {"color": INK, **look})
        scale.plot(sizes, sizes, color=FAINT, ls="-.")
        matched.set(title="Train loss at the end, matched rates", ylabel="nats")
        best.set(title="Train loss at the end, best rate of each", ylabel="nats")
        dev.set(title="Dev loss at the same rates", ylabel="nats")
        scale.set(title="Simple noise scale along SGD's path", ylabel="examples")
        for axes in (matched, best, dev, scale):
            axes.set_xlabel("batch size")
            if axes.lines:
                log_scale(axes, "x")
                axes.set_xticks(sizes)
        for axes in (matched, best, scale):
            if axes.lines:
                log_scale(axes, "y")
        handles = [Line2D([], [], color=colour[rate], label=f"eta {rate:g}") for rate in rates]
        handles += [
            Line2D([], [], color=INK, ls="-", marker="o", label="SGD"),
            Line2D([], [], color=INK, ls="--", marker="s", label="SGDM"),
            Line2D([], [], color=INK, ls=":", marker="^", label="noise scale, first measurement"),
            Line2D([], [], color=INK, ls="-", marker=".", label="noise scale, last"),
            Line2D([], [], color=FAINT, ls="-.", label="noise scale = batch size"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return svg_text(figure)


def _draw(axes: Axes, points: Sequence[tuple[int, float | None]], style: dict[str, Any]) -> None:
    """Draw the mean of the values that each batch size has, joined by a line."""
    groups: dict[int, list[float]] = {}
    for size, value in points:
        if value is not None:
            groups.setdefault(size, []).append(value)
    if groups:
        line = [(size, sum(values) / len(values)) for size, values in sorted(groups.items())]
        axes.plot(*zip(*line, strict=True), **style)


def batch_size_tables(records: Sequence[BatchSizeRecord]) -> Tables:
    """The rows of batch_size.csv and batch_size_gaps.csv."""
    return {"": Table(POINT_COLUMNS, point_rows(records)), "_gaps": Table(GAP_COLUMNS, gap_rows(records))}


def batch_size_report(records: Sequence[BatchSizeRecord]) -> list[str]:
    """The table of gaps, what they show, and what theory expects."""
    spec, found = records[0].spec, gaps(records)
    return [
        f"SGDM (beta {spec.momentum:g}) minus SGD after {spec.sgd.max_steps} steps, best rate of each:",
        *gap_table(found),
        conclusion(mean_gaps(found)),
        EXPECTATION,
    ]


def _cells(planned: PlannedStudy) -> list[BatchSizeSpec]:
    settings, sweep = planned.settings, planned.sweep
    n_train = len(draw_split(planned.data, sweep.k, sweep.seeds[0], sweep.protocol).train)
    counts = {name: settings[name] for name in ("n_times", "n_examples")}
    return batch_size_cells(planned.specs, settings["batch_sizes"], n_train, planned.momentum, **counts)


BATCH_SIZE = Study(
    name="batch_size",
    presets=PRESETS,
    readers={"batch_sizes": read_batch_sizes},
    make_cells=_cells,
    run_cell=run_batch_size_cell,
    record=BatchSizeRecord,
    tables=batch_size_tables,
    plot=plot,
    report=batch_size_report,
)
