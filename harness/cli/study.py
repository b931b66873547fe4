"""The command line of the studies: `momentum-bench study NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.errors import UserError

if TYPE_CHECKING:
    pass


app = typer.Typer(
    no_args_is_help=True,
    help="Experiments beside the leaderboard: each writes records, a CSV and a plot under DIR/studies.",
)


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
RunsAtATime = Annotated[
    int | None,
    _option("Models at a time; no effect on results [CPU: by cores; GPU: 1]"),
]
DataDir = Annotated[Path | None, _option("Read the rows from DIR/TASK/")]
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
    runs_at_a_time: RunsAtATime = None,
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
    from momentum_bench.harness.studies.closeness import CLOSENESS, run_closeness
    from momentum_bench.harness.studies.study import (
        planned_runs,
        read_momenta,
        settings_of,
        study_data,
        study_sweep,
    )

    with plain_errors(AGAIN):
        settings = settings_of(CLOSENESS, preset, given)
        betas = read_momenta(settings["momenta"])
        sweep = study_sweep(settings, settings["steps"])
        specs = planned_runs(sweep, study_data(sweep))
        run_closeness(sweep, specs, betas, settings["n_times"], settings["n_dev"])


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
    runs_at_a_time: RunsAtATime = None,
) -> None:
    """From which batch size on does momentum pay?

    SGD and SGDM train on the same batches at equal effective rates, at batch sizes from 1 to the whole
    training set, for the same number of steps. Compared are their final losses, at every rate and at the
    best of each, beside the simple noise scale (McCandlish et al. 2018) along the way.

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from momentum_bench.harness.studies.batch_size import BATCH_SIZE, run_batch_size
    from momentum_bench.harness.studies.study import (
        planned_runs,
        read_batch_sizes,
        settings_of,
        study_data,
        study_sweep,
    )

    with plain_errors(AGAIN):
        settings = settings_of(BATCH_SIZE, preset, given)
        sizes = read_batch_sizes(settings["batch_sizes"])
        # the size of the plan's runs is replaced by each of `sizes`
        sweep = study_sweep(settings | {"batch_size": 1}, settings["steps"])
        data = study_data(sweep)
        specs = planned_runs(sweep, data)
        n_train = len(draw_split(data, sweep.k, sweep.seeds[0], sweep.protocol).train)
        run_batch_size(sweep, specs, sizes, n_train, settings["n_times"], settings["n_examples"])


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
    runs_at_a_time: RunsAtATime = None,
) -> None:
    """How noisy are search directions with momentum, and without?

    Along the paths of SGD and SGDM, measures the variance C^2 of the gradients of single examples, the norm
    of the full gradient, and how far each direction is from it; beside these, the degrees of smoothing by
    Sato & Iiduka's formulas for SGD, heavy ball (SHB) and the averaging form (NSHB).

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from momentum_bench.harness.studies.noise import NOISE, run_noise
    from momentum_bench.harness.studies.study import planned_runs, settings_of, study_data, study_sweep

    with plain_errors(AGAIN):
        settings = settings_of(NOISE, preset, given)
        sweep = study_sweep(settings, settings["steps"])
        specs = planned_runs(sweep, study_data(sweep))
        run_noise(sweep, specs, settings["n_times"], settings["n_examples"])


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
    runs_at_a_time: RunsAtATime = None,
) -> None:
    """Do SGD and SGDM come closer when curvature counts less?

    SVAG at level l draws two batches a step, combines their losses so that the mean gradient stays and
    its covariance is l times as large, and makes l times the steps at rate eta / l. Curves are against
    the effective step, step / l; at l = 1 it is the ordinary algorithm.

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from momentum_bench.harness.studies.study import (
        planned_runs,
        read_levels,
        settings_of,
        study_data,
        study_sweep,
    )
    from momentum_bench.harness.studies.svag import SVAG, run_svag

    with plain_errors(AGAIN):
        if given.pop("max_grad_norm", "none") != "none":
            raise UserError(
                f"--max-grad-norm {max_grad_norm}: clipping the combined gradient changes its mean and "
                f"covariance, which SVAG exists to control. Leave it out"
            )
        settings = settings_of(SVAG, preset, given)
        chosen = read_levels(settings["levels"])
        sweep = study_sweep(settings, settings["steps"])
        specs = planned_runs(sweep, study_data(sweep))
        run_svag(sweep, specs, chosen, settings["n_times"])
