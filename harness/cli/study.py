"""The command line of the studies: `momentum-bench study NAME`. Starts without torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.installed import check_can_run
from momentum_bench.harness.messages import note

if TYPE_CHECKING:
    from momentum_bench.harness.studies.study import Study

app = typer.Typer(
    no_args_is_help=True,
    help="Experiments next to the leaderboard: each writes records, tables and a plot under DIR/studies.",
)


def _option(help_text: str, *names: str, **limits: Any) -> Any:
    # without `escape`, a default in brackets would be read as a style
    return typer.Option(*names, help=escape(help_text), show_default=False, **limits)


WHAT_IS_TRAINED: dict[str, Any] = {
    "preset": Annotated[str, typer.Option(help="small (minutes on two CPU cores) or large (hours on a GPU)")],
    "task": Annotated[str | None, _option("[small: bbc_news, large: sst2]")],
    "task_file": Annotated[
        Path | None, _option("Python file that defines TASK, a task of your own (default for --task)")
    ],
    "model": Annotated[str | None, _option("Hub id, folder, or package:NAME of a pip package")],
    "method": Annotated[str | None, _option("prompt (masked LM) or head (classifier)")],
    "k": Annotated[int | None, _option("Examples of each class, in train and dev")],
    "seeds": Annotated[str | None, _option("e.g. 13,21", "--seeds", "--seed")],
}
"""Options of all studies; they come before a study's own options."""

HOW_IT_RUNS: dict[str, Any] = {
    "threads_per_run": Annotated[int | None, _option("CPU threads of each model [1]")],
    "data_dir": Annotated[Path | None, _option("Read the rows from DIR/TASK/")],
    "data_revision": Annotated[str | None, _option("Revision of the data set on the hub [the task's own]")],
    "tsv": Annotated[str | None, _option("Quotes in TSV files, raw or quoted [as the files say]")],
    "output_dir": Annotated[Path | None, _option("[results]")],
    "runs_at_a_time": Annotated[
        int | None,
        _option("Models that train at the same time; no effect on results [CPU: by cores; GPU: 1]", min=1),
    ],
}
"""Options of all studies; they come after a study's own options."""

BATCH_SIZE = Annotated[int | None, _option("Examples in a step")]
MOMENTUM = Annotated[float | None, _option("beta of SGDM [0.9]")]
N_EXAMPLES = Annotated[
    int | None, _option("Take the gradients of single examples for at most this many [64]", min=2)
]


def _study_command(
    name: str, **own: Any
) -> Callable[[Callable[[], Study[Any, Any]]], Callable[[], Study[Any, Any]]]:
    """Make a command of a function that returns a study; its docstring is the command's help.

    Args:
        own: the options that this study has next to those of all studies, by the setting's name.
    """
    options = WHAT_IS_TRAINED | own | HOW_IT_RUNS

    def register(find_study: Callable[[], Study[Any, Any]]) -> Callable[[], Study[Any, Any]]:
        def command(**values: Any) -> None:
            given = {name: value for name, value in values.items() if value is not None}
            preset = given.pop("preset")
            with plain_errors("finished cells are kept, type the same command to go on"):
                check_can_run()
                study = find_study()
                from momentum_bench.harness.studies.study import run_study

                outcome = run_study(study, study.settings(preset, given), note)
            print(*outcome.report, ", ".join(map(str, outcome.files)), sep="\n")

        # typer reads the options from the signature
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    option,
                    inspect.Parameter.KEYWORD_ONLY,
                    default="small" if option == "preset" else None,
                    annotation=annotation,
                )
                for option, annotation in options.items()
            ]
        )
        command.__doc__ = find_study.__doc__
        app.command(name)(command)
        return find_study

    return register


@_study_command(
    "closeness",
    learning_rates=Annotated[str | None, _option("Effective rates eta, three at least for a slope")],
    momenta=Annotated[str | None, _option("betas; 0 is the control [small: 0,0.5,0.9]")],
    steps=Annotated[
        int | None,
        _option("Steps at the largest rate; the other rates get as many as make eta x steps equal"),
    ],
    batch_size=BATCH_SIZE,
)
def closeness() -> Study[Any, Any]:
    """How far apart are SGD and SGDM, on the same batches, at equal effective rate?

    Both start from the same weights. Their distance, their cosine, and the disagreement and KL of their dev
    predictions are recorded at equal effective times, eta x steps, on common and on independent batches.
    Dropout and clipping are off and the rate is constant, so momentum is the only difference. A line gives
    the slope of log distance: at the noise that the batches have, coupled paths come closer about as eta.
    The theorem is about expectations and about noise that grows as eta^(-1/2).

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    from momentum_bench.harness.studies.closeness import CLOSENESS

    return CLOSENESS


@_study_command(
    "batch-size",
    learning_rates=Annotated[str | None, _option("Effective rates eta, one grid for both")],
    momentum=MOMENTUM,
    batch_sizes=Annotated[
        str | None, _option("full is the training set [small: 1,2,full, large: 1,2,4,...,64,full]")
    ],
    steps=Annotated[int | None, _option("At every batch size [small: 100, large: 1000]", min=1)],
    n_examples=N_EXAMPLES,
)
def batch_size() -> Study[Any, Any]:
    """From which batch size on does momentum pay?

    SGD and SGDM train on the same batches at equal effective rates, for the same number of steps, at batch
    sizes from 1 to the whole training set. Their final losses are compared at every rate and at the best
    rate of each, next to the simple noise scale (McCandlish et al. 2018) along the way.

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    from momentum_bench.harness.studies.batch_size import BATCH_SIZE

    return BATCH_SIZE


@_study_command(
    "noise",
    learning_rates=Annotated[str | None, _option("Effective rates eta [small, head: 0.03]")],
    momentum=MOMENTUM,
    steps=Annotated[int | None, _option("[small: 100, large: 1000]", min=1)],
    batch_size=BATCH_SIZE,
    n_examples=N_EXAMPLES,
)
def noise() -> Study[Any, Any]:
    """How noisy are search directions with momentum, and without?

    Along the paths of SGD and SGDM, measures the variance C^2 of the gradients of single examples, the norm
    of the full gradient, and how far each direction is from it. Next to these it shows the degrees of
    smoothing by Sato & Iiduka's formulas for SGD, heavy ball (SHB) and the averaging form (NSHB).

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    from momentum_bench.harness.studies.noise import NOISE

    return NOISE


@_study_command(
    "svag",
    learning_rates=Annotated[str | None, _option("Effective rate at l = 1 [small, head: 0.03]")],
    momentum=MOMENTUM,
    levels=Annotated[str | None, _option("l [small: 1,2,4, large: 1,2,4,8]")],
    steps=Annotated[int | None, _option("Steps at l = 1; level l makes l times as many", min=1)],
    batch_size=BATCH_SIZE,
    max_grad_norm=Annotated[str | None, _option("none: SVAG does not clip [none]")],
)
def svag() -> Study[Any, Any]:
    """Do SGD and SGDM come closer when curvature counts less?

    SVAG at level l draws two batches for each step and combines their losses: the mean gradient stays as it
    is, and its covariance is l times as large. It makes l times the steps at rate eta / l. Curves are against
    the effective step, step / l; at l = 1 it is the ordinary algorithm.

    Finished cells are not run again: type the same command to go on after an interruption.
    """
    from momentum_bench.harness.studies.svag import SVAG

    return SVAG
