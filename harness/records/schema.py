"""What is stored: the specification of a run, and the record of its result. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

NO_OPTIMIZER = "none"
"""The optimizer of runs that train nothing, which have 0 steps."""

NETWORK = "task:"
"""A model name that starts like this, `task:NAME`, is the untrained network of that image task."""

Schedule = Literal["linear", "constant", "cosine", "step"]
PrecisionName = Literal["fp32", "bf16", "medium", "tf32"]
AdapterName = Literal["lora", "prefix", "prompt", "ia3"]
HeadName = Literal["kept"]
FrozenPart = Literal["embeddings", "encoder"]
RUN_AXES = ("batch_size", "weight_decay")
"""The settings of a run that a sweep may tune next to the learning rate. All its optimizers have them."""

Axis = str
"""What a sweep may tune next to the learning rate: one of `RUN_AXES`, or a hyperparameter of an optimizer."""

IN_STEPS = ("max_steps", "eval_every", "warmup_steps", "decay_steps")
"""The settings of a run that are numbers of steps."""

RUN_ID = re.compile("[0-9a-f]{16}")
"""What a `content_id` looks like: the name of a run's folder, and of a plan's file. Others are not ours."""

PROTOCOL_VERSION = 1
"""A larger number whenever the same `RunSpec` would give another result; no directory mixes versions."""


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Stored(BaseModel):
    """Base of all types that are written to disk: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def setting(value: Any) -> Any:
    """A setting of an optimizer as it is stored: a finite number, a truth value, a text, None, or a tuple.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, list | tuple):
        return tuple(map(setting, value))
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError(
        f"expected a finite number, true, false, a text, none or a list of these, found {value!r}"
    )


StoredSetting = Annotated[Any, BeforeValidator(setting)]
"""A value that an optimizer's constructor takes."""


def setting_text(value: Any, digits: int | None = None) -> str:
    """A setting's value as it is typed, with `/` between the values of a list.

    Args:
        digits: the most that a number has; None: all, so that the text means the same value.
    """
    if isinstance(value, list | tuple):
        return "/".join(setting_text(each, digits) for each in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.{digits}g}" if isinstance(value, float) and digits else str(value)


def on_axis(axis: Axis, value: Any) -> Any:
    """A value of an axis as it is stored. Axes that always are numbers have them as floats, one id for each.

    Raises:
        ValueError: it is no setting.
    """
    return float(value) if axis in (*RUN_AXES, "momentum") else setting(value)


def _stored_pair(pair: Any) -> Any:
    axis, value = pair
    return axis, on_axis(axis, value)


SHOWN_DIGITS = 10
"""Of a number in a table or a sentence."""

Settings = tuple[Annotated[tuple[Axis, Any], BeforeValidator(_stored_pair)], ...]
"""Axes with their values, sorted by name."""


def settings_text(settings: Settings) -> str:
    """Axes with their values, such as `batch_size=8 momentum=0.9`."""
    return " ".join(f"{name}={setting_text(value, SHOWN_DIGITS)}" for name, value in settings)


def content_id(value: Stored) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON.

    Fields that are None are left out. So a field that is added later, and is None where it does not apply,
    leaves the ids of older values as they are.
    """
    canonical = canonical_json(value.model_dump(mode="json", exclude_none=True))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def drawn(k: int) -> str:
    """The number of a run's training rows, in words."""
    return f"k = {k}" if k else "all training rows"


class Point(NamedTuple):
    """A point of an arm's grid: an effective learning rate, and a value on each further axis.

    Points sort by the rate, and then by the values of the axes, in the order of the axes' names.

    Attributes:
        settings: the further axes with their values, sorted by name; empty where the rate alone is tuned.
    """

    learning_rate: float
    settings: Settings = ()

    @property
    def settings_text(self) -> str:
        """The values of the further axes, such as `batch_size=8 momentum=0.9`; empty without them."""
        return settings_text(self.settings)

    @property
    def shared(self) -> Point:
        """The rate with the values of those axes that all arms have."""
        return Point(self.learning_rate, tuple(each for each in self.settings if each[0] in RUN_AXES))

    @property
    def own(self) -> Settings:
        """The values of the axes that are hyperparameters of the arm."""
        return tuple(each for each in self.settings if each[0] not in RUN_AXES)


class RunSpec(Stored):
    """Everything that determines one run's outcome, and nothing else.

    The same spec gives the same run, alone or inside any sweep, bit for bit on one type of machine.
    The places of inputs (a data folder, a model folder) are not part of it, but their content is:
    `data_fingerprint` and `model_revision` are digests.

    Attributes:
        learning_rate: the peak *effective* rate, eta. torch's own rate follows from the optimizer
            (for heavy-ball SGDM: eta * (1 - beta)), and the record has both. If the optimizer has no
            effective rate, this is its own rate.
        optimizer: its name; an optimizer of the user or of a package has a version too, `NAME@VERSION`.
            A class that is named by its path is `PATH@VERSION`, with the version of its package.
        hyperparameters: all those that the optimizer uses, with its constants, and no others. Those of our
            optimizers are numbers. Those of a class that is named by its path are the arguments that were
            given; its version says what the others are.
        max_steps: optimizer steps; 0 is zero-shot: the pre-trained model is scored without training.
        max_grad_norm: clip the global gradient norm to this; None: do not clip.
        dropout: probability set in the whole model; None: the model's own.
        test_limit: at most that many test rows, drawn with seed 42; None: all.
        gradient_accumulation_steps: micro-batches in one step; `batch_size` is still the global batch.
        data_parallel_ranks: number of processes that share each batch (another number gives other
            dropout masks); None: one process does the run.
        deterministic: only algorithms that give the same bits every time; None: torch chooses.
        cuda_graphs: training steps are recorded and replayed, on batches that are filled up to fixed
            sizes (with dropout this gives other masks); None: each step is launched by itself.
        peft: the adapter that is trained instead of the model, with the constants of
            `harness.models.adapters`; None: no adapter.
        freeze: the part of the model that is not trained; None: no part.
        head: `kept`: under the method `head`, training starts from the classifier that the model has; None:
            from a new one.
        checkpoint_activations: the layers' activations are computed again in the backward pass and not kept;
            None: they are kept. The numbers are the same.
        splits: `given`: train and dev are files that others have drawn; None: they are drawn from the
            training rows.
        decay_steps: the steps after which the schedule `step` decays; None: another schedule.
        k: examples of each class in train, and again in dev; 0: all training rows, and the task holds
            out a share of them as dev.
        tuned: the further axes that the sweep tunes for this optimizer, sorted by name; None: it tunes the
            learning rate alone. Runs that differ in these fields are points of one grid, and not arms.
        examples: where batch sizes are tuned: the number of examples that a run of each batch size sees, so
            that the numbers of steps follow from the batch size; None: each has as many steps.
    """

    protocol_version: int = PROTOCOL_VERSION
    protocol: str
    task: str
    task_version: str
    data_fingerprint: str
    model: str
    model_revision: str
    method: Literal["prompt", "head", "causal", "scratch"]
    k: int
    seed: int
    optimizer: str
    hyperparameters: dict[str, StoredSetting]
    learning_rate: float
    lr_schedule: Schedule
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float | None
    batch_size: int
    gradient_accumulation_steps: int
    max_steps: int
    eval_every: int
    test_limit: int | None
    dropout: float | None
    precision: PrecisionName
    threads_per_run: int
    data_parallel_ranks: int | None = None
    deterministic: Literal[True] | None = None
    cuda_graphs: Literal[True] | None = None
    peft: AdapterName | None = None
    freeze: FrozenPart | None = None
    decay_steps: tuple[int, ...] | None = None
    head: HeadName | None = None
    checkpoint_activations: Literal[True] | None = None
    splits: Literal["given"] | None = None
    tuned: tuple[Axis, ...] | None = None
    examples: int | None = None

    @field_validator("tuned")
    @classmethod
    def _axes(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if names is None:
            return None
        if not names or list(names) != sorted(set(names)):
            raise ValueError(f"expected names in order, each once, found {list(names)}")
        has = (*RUN_AXES, *info.data.get("hyperparameters", {}))
        if missing := [name for name in names if name not in has]:
            raise ValueError(f"{missing[0]} is tuned, and the optimizer has none")
        return names

    @field_validator("examples")
    @classmethod
    def _follows(cls, examples: int | None, info: ValidationInfo) -> int | None:
        fields = info.data
        if examples is not None and (
            "batch_size" not in (fields.get("tuned") or ())
            or examples != fields.get("max_steps", 0) * fields.get("batch_size", 0)
        ):
            raise ValueError("expected the product of steps and a batch size that is tuned")
        return examples

    @field_validator("hyperparameters")
    @classmethod
    def _numbers(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "." in str(info.data.get("optimizer", "")).partition("@")[0]:
            return values
        # as floats, whose text is in the run's id: 1 and 1.0 are one setting
        if wrong := [
            name for name, v in values.items() if isinstance(v, bool) or not isinstance(v, int | float)
        ]:
            raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r}, expected a number")
        return {name: float(value) for name, value in values.items()}

    @property
    def run_id(self) -> str:
        """The name of the run's folder, a digest of every field."""
        return content_id(self)

    @property
    def point(self) -> Point:
        """Where the run stands in the grid of its arm."""
        values = self.hyperparameters | {name: getattr(self, name) for name in RUN_AXES}
        return Point(self.learning_rate, tuple((name, values[name]) for name in self.tuned or ()))

    @property
    def label(self) -> str:
        """The run in a few words, for progress lines and messages."""
        if not self.max_steps:
            return f"{self.task} zero-shot seed {self.seed}"
        words = [f"{self.task} {self.optimizer} lr {self.learning_rate:g}", self.point.settings_text]
        return " ".join([*filter(None, words), f"seed {self.seed}"])


class Evaluation(Stored):
    """One scoring of the dev split; losses are means, in nats or squared errors, and `step` counts from 1.

    A run without training has one evaluation, with step 0 and without a training loss.
    """

    step: int
    learning_rate: float
    train_loss: float | None
    dev_metric: float
    dev_loss: float


def by_rank(evaluation: Evaluation) -> tuple[float, float, int]:
    """Sort key of checkpoints, best first: higher dev metric, then lower dev loss, then earlier step."""
    return -evaluation.dev_metric, evaluation.dev_loss, evaluation.step


def is_better(a: Evaluation, b: Evaluation) -> bool:
    """Whether checkpoint `a` is chosen over `b`."""
    return by_rank(a) < by_rank(b)


class Split(Stored):
    """Facts about the few-shot split; numbers count examples."""

    content_hash: str
    n_train: int
    n_dev: int
    n_test: int
    short_classes: tuple[str, ...] = Field(description="classes with fewer than k rows in a part")
    n_truncated: int
    n_empty_texts: int
    n_unlabelled_dropped: int
    origin: str = Field(description="where the rows came from, without a path")
    n_leaked: int | None = Field(None, description="scored test rows that are train or dev rows too")
    n_tokens: int | None = Field(None, description="of all texts as they are read, without special tokens")
    n_unknown_tokens: int | None = Field(None, description="those that the vocabulary does not have")
    n_without_words: int | None = Field(None, description="sequences that are special tokens alone")
    n_sequences: int | None = Field(None, description="all sequences, of which a candidate is one")

    @property
    def unknown_share(self) -> float | None:
        """The share of tokens that are unknown; None: they were not counted."""
        if self.n_tokens is None or self.n_unknown_tokens is None:
            return None
        return self.n_unknown_tokens / max(self.n_tokens, 1)

    @property
    def wordless_share(self) -> float | None:
        """The share of sequences that are special tokens alone; None: they were not counted."""
        if self.n_sequences is None or self.n_without_words is None:
            return None
        return self.n_without_words / max(self.n_sequences, 1)


class ReadBack(Stored):
    """What really ran: read from the live objects after the first step, not from the request.

    `param_groups` holds the optimizer's own settings, and `state_tensors` the names of the tensors that it
    keeps for a parameter (`momentum_buffer` for SGDM, none for SGD).
    """

    optimizer_class: str
    torch_learning_rate: float = Field(description="torch's own peak rate, as the optimizer was built")
    param_groups: tuple[dict[str, float | bool | str | tuple[float, ...] | None], ...]
    state_tensors: tuple[str, ...]
    optimizer_state_bytes: int
    n_trainable_parameters: int
    new_parameters: tuple[str, ...] = Field(description="drawn from the seed, not pre-trained")
    parameter_dtype: str
    autocast_dtype: str | None
    matmul_precision: str | None = Field(None, description="torch's float32_matmul_precision")
    convolution_precision: str | None = Field(
        None, description="of cuDNN's fp32 convolutions: `ieee` or `tf32`; None: no CUDA device"
    )
    dropout_probabilities: tuple[float, ...]
    model_class: str
    attention: str
    device: str
    threads: int
    layout: dict[str, int | str]
    deterministic: bool = False
    trained: tuple[str, ...] | None = Field(
        default=None, description="parameters, numbers of layers as `*`; None: all"
    )
    adapter: dict[str, float | str | tuple[str, ...]] | None = Field(
        default=None, description="of the `peft` library, as it was configured"
    )
    optimizer_package: str | None = Field(
        default=None, description="name and version; None: the optimizer is described here"
    )
    optimizer_arguments: dict[str, StoredSetting] | None = Field(
        default=None, description="all arguments of its class, those left at their defaults too"
    )
    parameter_groups: tuple[tuple[str, ...], ...] | None = Field(
        default=None,
        description="names of the parameters of each of `param_groups`, numbers of layers as `*`",
    )
    final_state_bytes: int | None = Field(
        default=None, description="of the optimizer's state after the last step, which may have grown"
    )


class FinalScore(Stored):
    """The only scoring of the test split, by the checkpoint with the best dev score; rows by position.

    `further` holds the scores by the task's other metrics, by id; they choose nothing. `loss` is None if it
    overflowed, because test never ends a run. Labels and predictions are classes, numbers or texts; a label
    of texts lists all that are right. `questions` numbers the question that each row answers, if several
    rows answer one question.
    """

    metric: float
    further: dict[str, float] = {}
    loss: float | None
    rows: tuple[int, ...]
    labels: tuple[int | float | tuple[str, ...], ...]
    predictions: tuple[int | float | str, ...]
    questions: tuple[int, ...] | None = None


class DevPredictions(Stored):
    """What the chosen checkpoint predicted on the dev split; rows in the order of the split.

    They are those of the evaluation at `best_step`, whose dev metric they give. A choice of the learning rate
    can so be made again on other draws of the same dev rows. The fields are as in `FinalScore`.
    """

    labels: tuple[int | float | tuple[str, ...], ...]
    predictions: tuple[int | float | str, ...]
    questions: tuple[int, ...] | None = None


class Costs(Stored):
    """Wall-clock seconds by phase, and peak memory in bytes (of the GPU, or else of the process)."""

    train_seconds: float
    dev_seconds: float
    test_seconds: float
    peak_memory_bytes: int
    forward_backward_passes: int | None = Field(
        default=None, description="of whole batches, where they are not one for each step"
    )


RESULTS = ("done", "diverged")
"""The states of a run that has a result. A failed run has none."""


class RunRecord(Stored):
    """A finished run. `diverged` and `failed` are results too; they have no test score.

    Attributes:
        metric: id of the `evaluate` metric that dev and test scores equal.
        best_step: step of the chosen checkpoint: best dev metric, then lower dev loss, then earlier.
        parameters_hash: xxh3-128 of the trained parameters at that checkpoint, by name.
        clipped_fraction: share of steps with a gradient norm above `max_grad_norm`.
        dev: the dev predictions of the chosen checkpoint; None in records that older versions wrote.
        failure: the reason for `diverged` or `failed`.
    """

    spec: RunSpec
    metric: str
    status: Literal["done", "diverged", "failed"]
    failure: str | None = None
    evaluations: tuple[Evaluation, ...] = ()
    best_step: int | None = None
    parameters_hash: str | None = None
    clipped_fraction: float | None = None
    split: Split | None = None
    read_back: ReadBack | None = None
    dev: DevPredictions | None = None
    test: FinalScore | None = None
    costs: Costs | None = None
    environment: dict[str, str] = {}

    @property
    def best(self) -> Evaluation | None:
        """The evaluation of the chosen checkpoint."""
        return next((e for e in self.evaluations if e.step == self.best_step), None)


class Plan(Stored):
    """The runs of one sweep, and the relative amount of work of each (`sweeps.plan.work`)."""

    specs: tuple[RunSpec, ...]
    work: tuple[float, ...]
