"""What the user asks for, checked, and the runs that follow from it."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from momentum_bench.harness.data.find_task import find_task, task_of
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.records.schema import Stored
from momentum_bench.tasks import SUITES, UnknownTaskError
from momentum_bench.tasks.image_task import AnyMethod


def flag_of(name: str) -> str:
    """How a setting is typed on the command line."""
    return "--data-parallel" if name == "data_parallel_ranks" else "--" + name.replace("_", "-")


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


def check_installed(name: str | None) -> str | None:
    """The name. Raises: ValueError, where the tracker's package is not installed."""
    if name is not None and find_spec(name) is None:
        raise ValueError(f"{name} is not installed: pip install {name}")
    return name
