"""What the user asks for, checked, and the runs that follow from it."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from momentum_bench.harness.data.find_task import find_task, task_of
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.records.schema import Stored
from momentum_bench.tasks import SUITES, UnknownTaskError
from momentum_bench.tasks.types import AnyMethod

if TYPE_CHECKING:
    pass


def listed(value: Any) -> Any:
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


Words = Annotated[tuple[str, ...], BeforeValidator(listed)]
Rates = Annotated[tuple[float, ...], BeforeValidator(listed)]


class Sweep(Stored):
    """A checked request: tasks x seeds x learning rates x optimizers, and how each run goes.

    The fields are the command line's flags and the keys of a sweep file.
    """

    task_file: Path | None
    task: Words
    model: str = Field(min_length=1)
    method: AnyMethod
    k: int = Field(ge=0)
    seeds: Annotated[tuple[int, ...], BeforeValidator(listed)]
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
    decay_steps: Annotated[tuple[int, ...] | None, BeforeValidator(listed)]
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


def check_installed(name: str | None) -> str | None:
    """The name. Raises: ValueError, where the tracker's package is not installed."""
    if name is not None and find_spec(name) is None:
        raise ValueError(f"{name} is not installed: pip install {name}")
    return name
