"""What the user asks for, each setting declared once. No torch here."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from momentum_bench.harness.data.find_task import find_task, task_of
from momentum_bench.harness.inputs import Quotes, Reading
from momentum_bench.harness.optimizers.arms import parse_arm, parse_axis
from momentum_bench.harness.optimizers.entry import DEFAULT_RATES
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.records.schema import (
    AdapterName,
    Axis,
    FrozenPart,
    HeadName,
    PrecisionName,
    Schedule,
    Stored,
)
from momentum_bench.harness.sweeps.settings import (
    FILES,
    GRID,
    HARDWARE,
    METHOD,
    TRAINING,
    VERDICT,
    WHAT,
    About,
    settings_of,
)
from momentum_bench.harness.verdicts.looks import DEFAULT_LOOKS, check_looks
from momentum_bench.harness.verdicts.paired import FEWEST_PAIRS, MARGIN
from momentum_bench.tasks import SUITES, UnknownTaskError
from momentum_bench.tasks.types import AnyMethod

EMBEDDED_TASK = "bbc_news"
"""The task of the quick start, which a pip package carries."""

N_TUNE_SEEDS = 3
"""Of the sweep's seeds, those that choose the rate where fresh seeds confirm it."""


def listed(value: Any) -> Any:
    """`"13,21"` as a list of words; a single value as a list of one."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")]
    return value if isinstance(value, list | tuple) or value is None else [value]


def _one_or_listed(value: Any) -> Any:
    values = listed(value)
    return values[0] if isinstance(values, list | tuple) and len(values) == 1 else values


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _or_none(value: Any) -> Any:
    return None if value == "none" else value


def _true_or_none(value: Any) -> Any:
    return value or None


def _without_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} is given more than once")
    if not values:
        raise ValueError("the list is empty")
    return values


def check_installed(name: str | None) -> str | None:
    """The name. Raises: ValueError, where the tracker's package is not installed."""
    if name is not None and find_spec(name) is None:
        raise ValueError(f"{name} is not installed: pip install {name}")
    return name


def _both(value: Any) -> dict[str, Any]:
    """The same default in both protocols of text tasks."""
    return {"mezo": value, "lm-bff": value}


def _grid_text() -> str:
    """The default grids of optimizers on SGD's scale, in words."""
    grids = {method: f"{min(rates):g} .. {max(rates):g}" for method, rates in DEFAULT_RATES.items()}
    methods = {text: [method for method in grids if grids[method] == text] for text in grids.values()}
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in methods.items())


Words = Annotated[tuple[str, ...], BeforeValidator(listed)]
Rates = Annotated[tuple[float, ...], BeforeValidator(listed)]
ONE_OR_MORE = (
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
    BeforeValidator(lambda value: _one_or_listed(value)),
)
"""Reads a list of one value as that value. What is wrong with a value is then said once."""

Momentum = Annotated[float, Field(ge=0, lt=1)]
BatchSize = Annotated[int, Field(ge=1)]
WeightDecay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
OrNone = BeforeValidator(_or_none)  # after Field, or its limits would meet None


class Sweep(Stored):
    """A checked request: tasks x seeds x learning rates x optimizers, and how each run goes.

    Each field is declared once: the option of `run`, its help and its default, and the key of a sweep
    file are made from it. A field without a default here has one in each protocol.
    """

    task_file: Annotated[
        Path | None,
        About(
            "Python file that defines TASK, a task of your own; it is then the default of --task",
            FILES,
            metavar="FILE",
        ),
    ] = None
    task: Annotated[
        Words,
        About("Tasks or suites (see `tasks list`), for example sst2,trec or glue", WHAT, metavar="NAMES"),
    ] = (EMBEDDED_TASK,)
    optimizer_file: Annotated[
        tuple[Path, ...] | None,
        BeforeValidator(listed),
        About(
            "Python file that defines OPTIMIZER; its name is the file's name without .py. It may be given "
            "several times; without --optimizers, these are the optimizers",
            FILES,
            metavar="FILE",
            repeatable=True,
        ),
    ] = None
    optimizers: Annotated[
        Words,
        About(
            "Optimizers (see `optimizers list`) or classes by their paths, with settings if you like, "
            "for example sgd,sgdm:momentum=0.99,torch.optim.NAdam",
            WHAT,
            default_text="sgd,sgdm",
            metavar="NAMES",
        ),
    ] = ("sgd", "sgdm")
    momentum: Annotated[
        Annotated[Momentum, Tag("one")] | Annotated[tuple[Momentum, ...], Tag("several")],
        *ONE_OR_MORE,
        About(
            "beta of all optimizers that have momentum; of several values, dev chooses", WHAT, metavar="LIST"
        ),
    ] = 0.9
    tune: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_texts),
        About(
            "Values of an optimizer's own setting, of which dev chooses, for example adamw:beta1=0,0.9; it "
            "may be given several times",
            WHAT,
            metavar="SETTING",
            repeatable=True,
        ),
    ] = None
    k: Annotated[
        int, Field(ge=0), About("Examples of each class, in train and again in dev", WHAT, metavar="N")
    ] = 16
    seeds: Annotated[
        tuple[int, ...],
        BeforeValidator(listed),
        About(
            "Seeds of the split, the new head, the batch order and dropout; the whole grid runs on each",
            WHAT,
            metavar="LIST",
        ),
    ] = (13, 21, 42, 87, 100)
    test_limit: Annotated[
        int | None,
        Field(ge=1),
        OrNone,
        About(
            "Largest number of test rows, or none",
            WHAT,
            by_protocol={"mezo": 1000, "lm-bff": None},
            metavar="N",
        ),
    ]

    model: Annotated[
        str,
        Field(min_length=1),
        About(
            "Hub id (or ID@REVISION), folder, or package:NAME for a model in a pip package",
            METHOD,
            metavar="MODEL",
        ),
    ] = "FacebookAI/roberta-large"
    method: Annotated[
        AnyMethod,
        About(
            "prompt (masked LM), head (new classifier), causal (decoder) or scratch (image tasks only)",
            METHOD,
            metavar="NAME",
        ),
    ] = "prompt"
    head: Annotated[
        HeadName | None,
        OrNone,
        About(
            "With --method head: kept starts from the classifier that the model has", METHOD, metavar="NAME"
        ),
    ] = None
    peft: Annotated[
        AdapterName | None,
        OrNone,
        About("Train an adapter in place of the model: lora, prefix, prompt or ia3", METHOD, metavar="NAME"),
    ] = None
    freeze: Annotated[
        FrozenPart | None,
        OrNone,
        About("Part that is not trained: embeddings, or encoder (all but the head)", METHOD, metavar="PART"),
    ] = None
    dropout: Annotated[
        float | None,
        Field(ge=0, lt=1),
        About("Dropout probability in the whole model", METHOD, default_text="the model's own", metavar="P"),
    ] = None

    allow_unknown_tokens: Annotated[
        Literal[True] | None,
        BeforeValidator(_true_or_none),
        About("Run even if the vocabulary knows little of the texts", METHOD),
    ] = None

    learning_rates: Annotated[
        Rates | None,
        About("Grid of effective learning rates", GRID, default_text=_grid_text(), metavar="LIST"),
    ] = None
    learning_rate_axis: Annotated[
        Literal["effective", "torch"],
        About("What --learning-rates means: effective rates, or torch's own", GRID, metavar="NAME"),
    ] = "effective"
    trials: Annotated[
        int | None,
        Field(ge=1),
        OrNone,
        About(
            "With lists of --momentum, --batch-size or --weight-decay: points of each optimizer's grid that "
            "are drawn in place of all of it, the same number for each; or none",
            GRID,
            metavar="N",
        ),
    ] = None
    extend_grid: Annotated[
        int,
        Field(ge=0),
        About(
            "How many times a grid may grow by one rate where its best rate is on its edge",
            GRID,
            metavar="N",
        ),
    ] = 0

    tune_seeds: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(listed),
        About(
            "With confirming seeds: seeds that choose the learning rate; the whole grid runs on them alone",
            VERDICT,
            default_text="the first 3 of --seeds",
            metavar="LIST",
        ),
    ] = None
    confirm_seeds: Annotated[
        int | None,
        Field(ge=FEWEST_PAIRS),
        OrNone,
        About(
            "Fresh seeds that run at the chosen rate alone: choose once, then confirm; or none",
            VERDICT,
            metavar="N",
        ),
    ] = None
    confirm: Annotated[
        Literal["matched", "own"],
        About(
            "Rates of the confirming seeds: matched, one effective rate for all optimizers, or own, each "
            "optimizer's own rate too",
            VERDICT,
            metavar="NAME",
        ),
    ] = "matched"
    until_decided: Annotated[
        Literal[True] | None,
        BeforeValidator(_true_or_none),
        About("Add confirming seeds from look to look until every comparison is decided", VERDICT),
    ] = None
    looks: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(listed),
        About(
            "With --until-decided: numbers of confirming seeds at which the results are tested; the last is "
            "the maximum",
            VERDICT,
            default_text=",".join(map(str, DEFAULT_LOOKS)),
            metavar="LIST",
        ),
    ] = None
    pairs: Annotated[
        Literal["first", "all"],
        About(
            "Pairs of optimizers that get a verdict: the first optimizer against each other one, or all",
            VERDICT,
            metavar="NAME",
        ),
    ] = "first"
    margin: Annotated[
        float,
        Field(gt=0, lt=1),
        About("A smaller difference of test scores does not matter; 0.01 is one point", VERDICT, metavar="X"),
    ] = MARGIN

    protocol: Annotated[
        Literal["mezo", "lm-bff", "from-scratch"],
        About(
            "Set of defaults: mezo, lm-bff, or from-scratch, which image tasks have anyway",
            TRAINING,
            metavar="NAME",
        ),
    ] = "mezo"
    batch_size: Annotated[
        Annotated[BatchSize, Tag("one")] | Annotated[tuple[BatchSize, ...], Tag("several")],
        *ONE_OR_MORE,
        About(
            "Examples of one step, on all hardware together; of several values, dev chooses",
            TRAINING,
            by_protocol=_both(8),
            metavar="LIST",
        ),
    ]
    batch_size_keeps: Annotated[
        Literal["steps", "examples"],
        About(
            "With several batch sizes: what all of them have in common, the number of steps, or of examples; "
            "then --max-steps and other numbers of steps are those of the smallest batch",
            TRAINING,
            metavar="NAME",
        ),
    ] = "steps"
    gradient_accumulation_steps: Annotated[
        int, Field(ge=1), About("Micro-batches of one batch", TRAINING, metavar="N")
    ] = 1
    max_steps: Annotated[
        int,
        Field(ge=0),
        About(
            "Optimizer steps of a run; 0 scores without training",
            TRAINING,
            by_protocol=_both(1000),
            metavar="N",
        ),
    ]
    eval_every: Annotated[
        int,
        Field(ge=1),
        About("Steps from one scoring of dev to the next", TRAINING, by_protocol=_both(100), metavar="N"),
    ]
    lr_schedule: Annotated[
        Schedule,
        About("linear, constant, cosine or step", TRAINING, by_protocol=_both("linear"), metavar="NAME"),
    ]
    decay_steps: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(listed),
        About(
            "With --lr-schedule step: after each of these steps the rate is a tenth, for example 500,750",
            TRAINING,
            metavar="LIST",
        ),
    ] = None
    warmup_steps: Annotated[
        int, Field(ge=0), About("Steps of linear warm-up", TRAINING, by_protocol=_both(0), metavar="N")
    ]
    weight_decay: Annotated[
        Annotated[WeightDecay, Tag("one")] | Annotated[tuple[WeightDecay, ...], Tag("several")],
        *ONE_OR_MORE,
        About(
            "Weight decay of matrices; adamw and signsgd keep it out of the gradient; of several values, dev "
            "chooses",
            TRAINING,
            by_protocol=_both(0.0),
            metavar="LIST",
        ),
    ]
    max_grad_norm: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False),
        OrNone,
        About("Largest gradient norm; a larger one is clipped; or none", TRAINING, _both(1.0), metavar="X"),
    ]

    precision: Annotated[
        PrecisionName,
        About(
            "fp32, bf16 (autocast), medium (CPU) or tf32 (GPU); weights stay fp32", HARDWARE, metavar="NAME"
        ),
    ] = "fp32"
    device: Annotated[
        Literal["cpu", "cuda", "mps"] | None,
        About(
            "Type of device that does the runs: cpu, cuda or mps",
            HARDWARE,
            default_text="the best that is there",
            metavar="NAME",
        ),
    ] = None
    threads_per_run: Annotated[int, Field(ge=1), About("CPU threads of a run", HARDWARE, metavar="N")] = 1
    runs_at_a_time: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"] | None,
        About(
            "Runs at a time in each process, and so on its GPU (Ray: on each GPU), or auto: as many as "
            "its memory holds; results do not depend on it",
            HARDWARE,
            default_text="by cores and memory; 1 on a GPU and under a launcher",
            metavar="N|auto",
        ),
    ] = None
    data_parallel_ranks: Annotated[
        int | None,
        Field(ge=1),
        About("All ranks of a launch share each batch of one run", HARDWARE, flag="--data-parallel"),
    ] = None
    executor: Annotated[
        Literal["local", "ray"],
        About("local, or ray: Ray places the runs on a cluster", HARDWARE, metavar="NAME"),
    ] = "local"
    ray_address: Annotated[
        str | None,
        Field(min_length=1),
        About(
            "auto, or HOST:PORT of `ray start --head`",
            HARDWARE,
            default_text="a new cluster of this machine",
            metavar="ADDRESS",
        ),
    ] = None
    deterministic: Annotated[
        Literal[True] | None,
        BeforeValidator(_true_or_none),
        About("Only algorithms that give the same bits each time, also on a GPU", HARDWARE),
    ] = None
    cuda_graphs: Annotated[
        Literal[True] | None,
        BeforeValidator(_true_or_none),
        About("On a GPU: record a training step once and replay it (sgd and sgdm)", HARDWARE),
    ] = None
    checkpoint_activations: Annotated[
        Literal[True] | None,
        BeforeValidator(_true_or_none),
        About("Compute activations again in the backward pass: less memory, more time", HARDWARE),
    ] = None

    data_dir: Annotated[
        Path | None,
        About(
            "Read the rows from DIR/TASK/, files train, validation and test: .jsonl, .jsonl.gz, .csv, .tsv "
            "or .parquet",
            FILES,
            metavar="DIR",
        ),
    ] = None
    tsv: Annotated[
        Quotes | None,
        OrNone,
        About(
            "Quotes in TSV files of --data-dir: raw, they belong to the text, or quoted, as CSV has them",
            FILES,
            default_text="as the files say",
            metavar="NAME",
        ),
    ] = None
    splits: Annotated[
        Literal["given"] | None,
        OrNone,
        About(
            "given: take train and dev from files of --data-dir, DIR/TASK/K-SEED/ or DIR/TASK/",
            FILES,
            default_text="drawn from the training rows",
            metavar="NAME",
        ),
    ] = None
    data_revision: Annotated[
        str | None,
        Field(min_length=1),
        OrNone,
        About(
            "Commit, branch or tag of the data set on the hub",
            FILES,
            default_text="the task's own",
            metavar="REVISION",
        ),
    ] = None
    output_dir: Annotated[Path, About("Folder of records, tables and the page", FILES, metavar="DIR")] = Path(
        "results"
    )
    checkpoint_every: Annotated[
        int | None,
        Field(ge=1),
        About(
            "Steps after which a run is saved, so that it can go on; results do not depend on it",
            FILES,
            metavar="N",
        ),
    ] = None
    log_with: Annotated[
        Literal["tensorboard", "wandb", "trackio", "mlflow"] | None,
        AfterValidator(check_installed),
        About("Also show finished runs in tensorboard, wandb, trackio or mlflow", FILES, metavar="NAME"),
    ] = None

    @field_validator("task")
    @classmethod
    def _known_tasks(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        file = info.data.get("task_file")
        own = task_of(file).name if file else None
        for name in names:
            try:
                _ = (name in SUITES and name != own) or find_task(name, file)
            except UnknownTaskError as error:
                raise ValueError(str(error)) from None
        if own and own not in names:
            raise ValueError(
                f"{','.join(names)} leaves out {own}, the task of --task-file {file}: "
                f"add it, or leave out --task"
            )
        return _without_repeats(names)

    @field_validator("optimizers")
    @classmethod
    def _full_names(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        files = info.data.get("optimizer_file")
        full = _without_repeats(tuple(find_optimizer(name, files)[0] for name in names))
        for file in files or ():
            if file.stem not in {parse_arm(name).optimizer for name in full}:
                raise ValueError(
                    f"{', '.join(names)} leaves out {file.stem}, the optimizer of --optimizer-file {file}: "
                    f"add it"
                )
        return full

    @field_validator("tune")
    @classmethod
    def _lists_of_values(cls, texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        axes = [parse_axis(text) for text in texts or ()]
        names = [f"{axis.optimizer}:{axis.setting}" for axis in axes]
        return texts if texts is None or _without_repeats(tuple(names)) else None

    @field_validator("seeds", "tune_seeds")
    @classmethod
    def _legacy_seeds(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is None:
            return None
        if any(not 0 <= seed < 2**32 for seed in seeds):
            raise ValueError("a seed is a whole number from 0 to 4294967295 (numpy's legacy seeds)")
        return _without_repeats(seeds)

    @field_validator("learning_rates")
    @classmethod
    def _positive_rates(cls, rates: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if rates is None:
            return None
        if bad := [rate for rate in rates if not (math.isfinite(rate) and rate > 0)]:
            raise ValueError(f"a learning rate is a finite number above 0, found {bad[0]}")
        return _without_repeats(rates)

    @field_validator("momentum", "batch_size", "weight_decay")
    @classmethod
    def _ascending_axis(cls, values: Any) -> Any:
        return tuple(sorted(_without_repeats(values))) if isinstance(values, tuple) else values

    @field_validator("looks")
    @classmethod
    def _ascending_looks(cls, looks: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if looks is not None:
            check_looks(looks)
        return looks

    @property
    def reading(self) -> Reading:
        """What is chosen about how the rows are read."""
        return Reading(self.tsv, self.data_revision, self.protocol, self.k if self.splits else None)

    @property
    def axes(self) -> dict[Axis, tuple[float, ...]]:
        """The values of the axes that options give to all optimizers, ascending, by name.

        They are tuned next to the learning rate. `sweeps.grids.axes` adds those of one optimizer.
        """
        found: dict[Axis, Any] = {
            "batch_size": self.batch_size,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
        }
        return {name: values for name, values in found.items() if isinstance(values, tuple)}

    @property
    def tunes(self) -> bool:
        """Whether anything is tuned next to the learning rate."""
        return bool(self.axes or self.tune)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """All batch sizes, ascending. The numbers of steps are those of the first."""
        return self.batch_size if isinstance(self.batch_size, tuple) else (self.batch_size,)

    @property
    def confirms(self) -> bool:
        """Whether fresh seeds confirm what a few seeds have chosen."""
        return self.until_decided is not None or self.confirm_seeds is not None

    @property
    def grid_seeds(self) -> tuple[int, ...]:
        """The seeds on which the whole grid runs."""
        return (self.tune_seeds or self.seeds[:N_TUNE_SEEDS]) if self.confirms else self.seeds

    @property
    def all_looks(self) -> tuple[int, ...]:
        """The numbers of confirming seeds at which the results are tested; the last is the maximum."""
        if not self.confirms:
            return ()
        looks = (self.looks or DEFAULT_LOOKS) if self.until_decided else ()
        most = self.confirm_seeds or looks[-1]
        return (*(look for look in looks if look < most), most)


SETTINGS = settings_of(Sweep)
"""All settings of `run`, by name, in the order of its help."""


def flag_of(name: str) -> str:
    """How a setting is typed on the command line; of a name that is no setting, as one would type it."""
    return SETTINGS[name].flag if name in SETTINGS else "--" + name.replace("_", "-")


RENAMED = dict.fromkeys(("workers", "runs_per_gpu", "gpus_per_run"), "runs_at_a_time")
"""Names of earlier versions, and those of today."""


ELSEWHERE = {
    "lr": "learning_rates",
    "learning_rate": "learning_rates",
    "lrs": "learning_rates",
    "seed": "seeds",
    "model_name": "model",
    "model_name_or_path": "model",
    "task_name": "task",
    "tasks": "task",
    "dataset_name": "task",
    "optimizer": "optimizers",
    "mixed_precision": "precision",
    "output_path": "output_dir",
    "out": "output_dir",
    "max_train_steps": "max_steps",
    "num_train_steps": "max_steps",
    "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "lr_scheduler_type": "lr_schedule",
    "num_warmup_steps": "warmup_steps",
}
"""Names that other programs of the field give to a setting, and ours."""


def called_elsewhere(name: str) -> str | None:
    """What to say to another program's name of a setting, as it is typed; None: it is no such name."""
    if name not in ELSEWHERE or name in SETTINGS:
        return None
    setting = SETTINGS[ELSEWHERE[name]]
    return f"there is no {flag_of(name)}: here it is {setting.flag} ({setting.about.help})"


def renamed(name: str, as_typed: bool = False) -> str | None:
    """What to say to a name of an earlier version; None: it is no such name.

    Args:
        as_typed: spell the names as on the command line, not as in a sweep file.
    """
    if name not in RENAMED:
        return None
    old, new = (flag_of(each) if as_typed else each for each in (name, RENAMED[name]))
    example = ": 2 in place of 0.5, because two runs share a GPU" if name == "gpus_per_run" else ""
    return f"{old} is now {new}{example}"
