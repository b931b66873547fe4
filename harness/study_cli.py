"""The command line of the studies: `momentum-bench study NAME`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from harness.errors import UserError
from harness.exits import note, plain_errors
from harness.sweep import Sweep, check_launcher, draw_split, image_tasks, make_sweep, plan
from harness.user_tasks import find_task

if TYPE_CHECKING:
    from harness.records import RunSpec
    from harness.sources import TaskData

app = typer.Typer(
    no_args_is_help=True,
    help="Experiments beside the leaderboard: each writes records, a CSV and a plot under DIR/studies.",
)

FIXED: dict[str, Any] = {
    "optimizers": ("sgd",),
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "dropout": 0.0,
    "precision": "fp32",
}
"""What a study couples differs in its optimizer alone; `harness/studies/closeness.py` says why. fp32,
for the rounding of bf16 would be part of every distance."""

# steps are those at the largest rate; rates are effective
CLOSENESS: dict[str, dict[str, Any]] = {
    # on bbc_news: 622 steps of 4 models, 100 of the control, at some 0.13 s of one core. To eta x steps = 1
    # the loss is still falling; on the one grid tried beyond that, no power fitted the distance.
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

# 100 effective steps are 700 steps of 2 models, most of them with two forward passes
SVAG: dict[str, dict[str, Any]] = {
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

# on bbc_news: 3 rates x 100 steps of 2 models at 1, 2 and all 5 examples, some 0.08 s of one core a step
# and 0.04 s an example
BATCH_SIZE: dict[str, dict[str, Any]] = {
    "small": {
        "k": 1,
        "seeds": (13,),
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

NOISE: dict[str, dict[str, Any]] = {
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


AGAIN = "finished cells are kept, type the same command to go on"


def _option(help_text: str, *names: str, **limits: Any) -> Any:
    # a default in brackets would be taken for a style
    return typer.Option(*names, help=escape(help_text), show_default=False, **limits)


Preset = Annotated[str, typer.Option(help="small (minutes on two CPU cores) or large (hours on a GPU)")]
Task = Annotated[str | None, _option("[small: bbc_news, large: sst2]")]
TaskFile = Annotated[
    Path | None, _option("Python file that defines TASK, a task of your own (default for --task)")
]
Model = Annotated[str | None, _option("Hub id, folder, or package:NAME of a pip package")]
Method = Annotated[str | None, _option("prompt (masked LM) or head (classifier)")]
K = Annotated[int | None, _option("Examples of each class, in train and dev")]
Seeds = Annotated[str | None, _option("e.g. 13,21", "--seeds", "--seed")]
BatchSize = Annotated[int | None, _option("Examples a step")]
Momentum = Annotated[float | None, _option("beta of SGDM [0.9]")]
NExamples = Annotated[int | None, _option("Examples whose own gradients are taken, at most [64]", min=2)]
Threads = Annotated[int | None, _option("CPU threads of each model [1]")]
Workers = Annotated[
    int | None,
    _option("Models at a time; no effect on results [CPU: by cores; GPU: 1]"),
]
DataDir = Annotated[Path | None, _option("Read DIR/TASK/{train,validation,test}.*")]
OutputDir = Annotated[Path | None, _option("[results]")]


@app.command()
def closeness(
    preset: Preset = "small",
    task: Task = None,
    task_file: TaskFile = None,
    model: Model = None,
    method: Method = None,
    k: K = None,
    seeds: Seeds = None,
    learning_rates: Annotated[str | None, _option("Effective rates eta, three at least for a slope")] = None,
    momenta: Annotated[str | None, _option("betas; 0 is the control [small: 0,0.5,0.9]")] = None,
    steps: Annotated[
        int | None,
        _option("At the largest rate; others have eta x steps equal"),
    ] = None,
    batch_size: BatchSize = None,
    threads_per_run: Threads = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    workers: Workers = None,
) -> None:
    """How far are SGD and SGDM apart, on the same batches, at equal effective rate?

    Both start from the same weights; distance, cosine, and disagreement and KL of dev predictions are
    recorded at equal effective times, eta x steps, on common and on independent batches. Dropout and
    clipping are off and the rate is constant, so that momentum is the only difference. Fitted is the
    slope of log distance: paths coupled at the batches' own noise come closer about as eta. The theorem
    speaks of expectations and of noise that grows as eta^(-1/2).

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    with plain_errors(AGAIN):
        settings = _settings(CLOSENESS, preset, given)
        betas = _momenta(settings["momenta"])
        sweep = _sweep(settings, settings["steps"])
        specs = _runs(sweep, _data(sweep))
        _run_closeness(sweep, specs, betas, settings["n_times"], settings["n_dev"])


def _run_closeness(
    sweep: Sweep, specs: list[RunSpec], betas: tuple[float, ...], n_times: int, n_dev: int
) -> None:
    from harness.studies import closeness as study
    from harness.studies.cells import finish_cells, write_results

    cells = study.closeness_cells(specs, betas, n_times, n_dev)
    records = finish_cells("closeness", cells, study.ClosenessRecord, study.closeness, sweep)
    slopes = study.fit_slopes(records)
    tables = {"": study.comparison_rows(records), "_slopes": [slope.__dict__ for slope in slopes]}
    paths = write_results("closeness", sweep, tables, study.plot(records))
    if (control := study.control_distance(records)) is not None:
        print(f"Control, beta = 0 on common batches: largest distance {control:g}, expected 0")
    print("Slope of log relative distance in the second half of the way, with a 95 % t interval:")
    for slope in slopes:
        print(f"  {slope}")
    print(study.EXPECTATION)
    print(paths)


@app.command("batch-size")
def batch_size(
    preset: Preset = "small",
    task: Task = None,
    task_file: TaskFile = None,
    model: Model = None,
    method: Method = None,
    k: K = None,
    seeds: Seeds = None,
    learning_rates: Annotated[str | None, _option("Effective rates eta, one grid for both")] = None,
    momentum: Momentum = None,
    batch_sizes: Annotated[
        str | None, _option("full is the training set [small: 1,2,full, large: 1,2,4,...,64,full]")
    ] = None,
    steps: Annotated[int | None, _option("At every batch size [small: 100, large: 1000]", min=1)] = None,
    n_examples: NExamples = None,
    threads_per_run: Threads = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    workers: Workers = None,
) -> None:
    """From which batch size on does momentum pay?

    SGD and SGDM train on the same batches at equal effective rates, at batch sizes from 1 to the whole
    training set, for the same number of steps. Compared are their final losses, at every rate and at the
    best of each, beside the simple noise scale (McCandlish et al. 2018) along the way.

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    with plain_errors(AGAIN):
        settings = _settings(BATCH_SIZE, preset, given)
        sizes = _batch_sizes(settings["batch_sizes"])
        # the size of the plan's runs is replaced by each of `sizes`
        sweep = _sweep(settings | {"batch_size": 1}, settings["steps"])
        data = _data(sweep)
        specs = _runs(sweep, data)
        n_train = len(draw_split(data, sweep.k, sweep.seeds[0], sweep.protocol).train)
        _run_batch_size(sweep, specs, sizes, n_train, settings["n_times"], settings["n_examples"])


def _run_batch_size(
    sweep: Sweep,
    specs: list[RunSpec],
    sizes: tuple[int | None, ...],
    n_train: int,
    n_times: int,
    n_examples: int,
) -> None:
    from harness.studies import batch_size as study
    from harness.studies.cells import finish_cells, write_results

    cells = study.batch_size_cells(specs, sizes, n_train, sweep.momentum, n_times, n_examples)
    records = finish_cells("batch_size", cells, study.BatchSizeRecord, study.batch_size, sweep)
    tables = {"": study.point_rows(records), "_gaps": study.gap_rows(records)}
    paths = write_results("batch_size", sweep, tables, study.plot(records))
    found = study.gaps(records)
    print(f"SGDM (beta {sweep.momentum:g}) minus SGD after {sweep.max_steps} steps, best rate of each:")
    print("\n".join(study.gap_table(found)))
    print(study.conclusion(study.mean_gaps(found)))
    print(study.EXPECTATION)
    print(paths)


@app.command()
def noise(
    preset: Preset = "small",
    task: Task = None,
    task_file: TaskFile = None,
    model: Model = None,
    method: Method = None,
    k: K = None,
    seeds: Seeds = None,
    learning_rates: Annotated[str | None, _option("Effective rates eta [small, head: 0.03]")] = None,
    momentum: Momentum = None,
    steps: Annotated[int | None, _option("[small: 100, large: 1000]", min=1)] = None,
    batch_size: BatchSize = None,
    n_examples: NExamples = None,
    threads_per_run: Threads = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    workers: Workers = None,
) -> None:
    """How noisy are search directions with momentum, and without?

    Along the paths of SGD and SGDM, measures the variance C^2 of the gradients of single examples, the norm
    of the full gradient, and how far each direction is from it; beside these, the degrees of smoothing by
    Sato & Iiduka's formulas for SGD, heavy ball (SHB) and the averaging form (NSHB).

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    with plain_errors(AGAIN):
        settings = _settings(NOISE, preset, given)
        sweep = _sweep(settings, settings["steps"])
        specs = _runs(sweep, _data(sweep))
        _run_noise(sweep, specs, settings["n_times"], settings["n_examples"])


def _run_noise(sweep: Sweep, specs: list[RunSpec], n_times: int, n_examples: int) -> None:
    from harness.studies import noise as study
    from harness.studies.cells import finish_cells, write_results

    cells = study.noise_cells(specs, sweep.momentum, n_times, n_examples)
    records = finish_cells("noise", cells, study.NoiseRecord, study.noise, sweep)
    tables = {"": study.point_rows(records), "_degrees": study.degree_rows(records)}
    paths = write_results("noise", sweep, tables, study.plot(records))
    print("Degrees of smoothing by the formulas, beside the measured level, rate x ||omega||:")
    print("\n".join(study.degree_table(records)))
    print(study.conclusion(records))
    print(study.EXPECTATION)
    print(paths)


@app.command()
def svag(
    preset: Preset = "small",
    task: Task = None,
    task_file: TaskFile = None,
    model: Model = None,
    method: Method = None,
    k: K = None,
    seeds: Seeds = None,
    learning_rates: Annotated[str | None, _option("Effective rate at l = 1 [small, head: 0.03]")] = None,
    momentum: Momentum = None,
    levels: Annotated[str | None, _option("l [small: 1,2,4, large: 1,2,4,8]")] = None,
    steps: Annotated[int | None, _option("At l = 1; l times as many at l", min=1)] = None,
    batch_size: BatchSize = None,
    max_grad_norm: Annotated[str | None, _option("none: SVAG does not clip [none]")] = None,
    threads_per_run: Threads = None,
    data_dir: DataDir = None,
    output_dir: OutputDir = None,
    workers: Workers = None,
) -> None:
    """Do SGD and SGDM come closer when curvature counts less?

    SVAG at level l draws two batches a step, combines their losses so that the mean gradient stays and
    its covariance is l times as large, and makes l times the steps at rate eta / l. Curves are against
    the effective step, step / l; at l = 1 it is the ordinary algorithm.

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    with plain_errors(AGAIN):
        if given.pop("max_grad_norm", "none") != "none":
            raise UserError(
                f"--max-grad-norm {max_grad_norm}: clipping the combined gradient changes its mean and "
                f"covariance, which SVAG exists to control. Leave it out"
            )
        settings = _settings(SVAG, preset, given)
        chosen = _levels(settings["levels"])
        sweep = _sweep(settings, settings["steps"])
        specs = _runs(sweep, _data(sweep))
        _run_svag(sweep, specs, chosen, settings["n_times"])


def _run_svag(sweep: Sweep, specs: list[RunSpec], levels: tuple[int, ...], n_times: int) -> None:
    from harness.studies import svag as study
    from harness.studies.cells import finish_cells, write_results

    cells = study.svag_cells(specs, sweep.momentum, levels, n_times)
    records = finish_cells("svag", cells, study.SvagRecord, study.svag, sweep)
    paths = write_results("svag", sweep, {"": study.point_rows(records)}, study.plot(records))
    print("||x_sgd - x_sgdm|| / ||x_sgdm - x_0|| after the last effective step:")
    for record in records:
        last = record.points[-1].relative_distance if record.status == "done" else None
        run = record.spec.sgd
        name = f"seed {run.seed}, eta {run.learning_rate:g}, l = {record.spec.level}"
        print(f"  {name}: {record.status if last is None else f'{last:.4f}'}")
    print(study.EXPECTATION)
    print(paths)


def _settings(presets: Mapping[str, dict[str, Any]], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with what was given in its place; a task of one's own stands for the preset's task."""
    if name not in presets:
        raise UserError(f"--preset {name}: expected {' or '.join(presets)}")
    kept = {key: value for key, value in presets[name].items() if key != "task" or "task_file" not in given}
    return kept | dict(given)


def _momenta(values: str | Sequence[float]) -> tuple[float, ...]:
    """Raises: UserError, when one is no number from 0 to below 1, is there twice, or all are 0."""
    words = values.split(",") if isinstance(values, str) else values
    try:
        betas = tuple(float(word) for word in words)
    except ValueError:
        betas = (math.nan,)
    if not all(0 <= beta < 1 for beta in betas) or len(set(betas)) < len(betas) or not any(betas):
        raise UserError(
            f"--momenta {values}: expected different numbers from 0 to below 1, one above 0 at least, "
            f"e.g. 0,0.5,0.9"
        )
    return betas


def _levels(values: str | Sequence[int]) -> tuple[int, ...]:
    """Raises: UserError, when one is no whole number from 1, or is there twice."""
    words = values.split(",") if isinstance(values, str) else values
    try:
        levels = tuple(int(word) for word in words)
    except ValueError:
        levels = (0,)
    if min(levels) < 1 or len(set(levels)) < len(levels):
        raise UserError(f"--levels {values}: expected different whole numbers from 1, e.g. 1,2,4,8")
    return levels


def _batch_sizes(values: str | Sequence[int | None]) -> tuple[int | None, ...]:
    """Raises: UserError, when one is neither a whole number from 1 nor full, or is there twice."""
    words = values.split(",") if isinstance(values, str) else values
    try:
        sizes = tuple(None if word in (None, "full") else int(word) for word in words)
    except ValueError:
        sizes = (0,)
    if any(size is not None and size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
        raise UserError(
            f"--batch-sizes {values}: expected different whole numbers from 1, or full for the whole "
            f"training set, e.g. 1,4,full"
        )
    return sizes


def _sweep(settings: Mapping[str, Any], steps: int) -> Sweep:
    """The runs of plain SGD that a study couples others to, as a sweep.

    Raises:
        UserError: a setting that no sweep accepts, several tasks, or several ranks.
    """
    flags = {name: value for name, value in settings.items() if name in Sweep.model_fields} | FIXED
    flags |= {"max_steps": steps, "eval_every": 1}
    if images := image_tasks(settings):
        raise UserError(f"--task {images[0].name}: studies are of text tasks, and this one is of images")
    method = make_sweep(flags, None).method
    if method not in settings["rates"]:
        raise UserError(
            f"--method {method}: a study's models are trained by {' or '.join(settings['rates'])}"
        )
    sweep = make_sweep({"learning_rates": settings["rates"][method]} | flags, None)
    if len(sweep.task) > 1:
        raise UserError(f"--task {','.join(sweep.task)}: a study takes one task at a time")
    check_launcher(sweep)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a study couples its models in one process: start it without a launcher")
    return sweep


def _data(sweep: Sweep) -> TaskData:
    from harness.sources import load_task_data

    data = load_task_data(find_task(sweep.task[0], sweep.task_file), sweep.data_dir)
    note(f"{data.task.name}: {len(data.train)} train rows, {data.origin}")
    return data


def _runs(sweep: Sweep, data: TaskData) -> list[RunSpec]:
    from harness.models import resolve_model

    source = resolve_model(sweep.model)
    note(f"{source.name}: revision {source.revision}")
    return plan(sweep, [data], source.name, source.revision)
