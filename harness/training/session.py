"""What a process keeps between runs: models, tokenizers, tokenised splits.

Nothing that a run's outcome depends on lives here: each run sets the model back to its pristine weights
and draws its new parts again, so a run is the same alone or after a hundred others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, TypeVar

from accelerate import Accelerator

from momentum_bench.harness.data import task_kinds
from momentum_bench.harness.data.examples import TaskData, content_hash
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.leakage import count_leaked
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split, select_test_rows
from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.encoding.sequences import TokenCounts
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models import files, pretrained
from momentum_bench.harness.models.distributed import is_joined, is_sharded, left_to_us, share_batches
from momentum_bench.harness.models.files import ModelSource
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.records.schema import NO_OPTIMIZER, RunSpec, Split
from momentum_bench.harness.training.image_setup import ImageSetup
from momentum_bench.harness.training.objectives import Objective
from momentum_bench.harness.training.run_parts import EncodedSplit, RunParts
from momentum_bench.harness.training.task_setup import ModelRecipe, TaskSetup
from momentum_bench.harness.training.text_setup import TextSetup
from momentum_bench.tasks.types import AnyTask, ImageTask, Task


@dataclass(frozen=True)
class _TestPart:
    """What the encoded test rows depend on, by the names that a spec has for it."""

    task: str
    method: str
    peft: str | None  # an adapter may take up positions of the model
    test_limit: int | None


@dataclass(frozen=True)
class _FewShotSplit(_TestPart):
    """What an encoded split depends on, by the names that a spec has for it."""

    protocol: str
    k: int
    seed: int


Settings = TypeVar("Settings", bound=_TestPart)


def _of(kind: type[Settings], source: RunSpec | _FewShotSplit) -> Settings:
    """Those fields of a spec that `kind` has: the key of what is made from them, and all that makes it."""
    return kind(**{field.name: getattr(source, field.name) for field in fields(kind)})


class Session:
    """One process's models and data, loaded when they are first needed."""

    def __init__(self, inputs: Inputs, accelerator: Accelerator):
        self.inputs = inputs
        self.accelerator = accelerator
        self._setups: dict[str, TaskSetup] = {}
        self._data: dict[str, TaskData] = {}
        self._tests: dict[_TestPart, tuple[list[int], Examples, TokenCounts | None]] = {}
        self._splits: dict[_FewShotSplit, EncodedSplit] = {}
        self._model: tuple[ModelRecipe, LoadedModel] | None = None

    @cached_property
    def model_source(self) -> ModelSource:
        """The sweep's model, found once. Raises: UserError, where it is not to be found."""
        return files.resolve_model(self.inputs.model, self.inputs.task_file)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer. Raises: UserError, where it does not load."""
        return pretrained.load_tokenizer(self.model_source)

    def task(self, spec: RunSpec) -> AnyTask:
        """The run's task: ours, a package's, or the user's file's."""
        return find_task(spec.task, self.inputs.task_file)

    def setup(self, spec: RunSpec) -> TaskSetup:
        """How the run's task is set up: the one place that tells text from images."""
        if spec.task not in self._setups:
            task = self.task(spec)
            if isinstance(task, ImageTask):
                self._setups[spec.task] = ImageSetup(task)
            else:
                self._setups[spec.task] = TextSetup(task, self.model_source, self.tokenizer)
        return self._setups[spec.task]

    def data(self, task: AnyTask) -> TaskData:
        """The task's checked rows."""
        if task.name not in self._data:
            self._data[task.name] = load_task_data(task, self.inputs.data_dir, reading=self.inputs.reading)
        return self._data[task.name]

    def check_inputs(self, spec: RunSpec) -> None:
        """Raises: UserError, when task, data or model are no longer those that the sweep was planned on."""
        here = {
            "task_version": self.task(spec).version_for(spec.method),
            "data_fingerprint": self.data(self.task(spec)).fingerprint,
            "model_revision": self.model_source.revision,
        }
        for name, value in here.items():
            if value != getattr(spec, name):
                raise UserError(
                    f"{name} is {value} here, but the sweep was planned on {getattr(spec, name)}: "
                    f"the files changed. Start the sweep again"
                )

    def parts(self, spec: RunSpec) -> RunParts:
        """All that the run is made of, with its model set back to the run's start.

        Ranks that share a run's batches call this together.

        Raises:
            UserError: one of the parts cannot be built.
        """
        return RunParts(
            task=self.task(spec),
            entry=None if spec.optimizer == NO_OPTIMIZER else self.optimizer(spec),
            split=self.split(spec),
            loaded=self.fresh_model(spec),
            objective=self.objective(spec),
            pad_id=self.pad_id(spec),
            accelerator=self.accelerator,
        )

    def optimizer(self, spec: RunSpec) -> OptimizerEntry:
        """Raises: UserError, when its file or package is no longer the one the sweep was planned on."""
        return find_optimizer(spec.optimizer, self.inputs.optimizer_file, spec.hyperparameters)[1]

    def split(self, spec: RunSpec) -> EncodedSplit:
        """The run's few-shot split, encoded for its model and method."""
        settings = _of(_FewShotSplit, spec)
        if settings not in self._splits:
            data, setup, load = self.data(self.task(spec)), self.setup(spec), partial(self.loaded, spec)
            self._splits[settings] = self._make_split(settings, data, setup, load)
        return self._splits[settings]

    def _make_split(
        self, settings: _FewShotSplit, data: TaskData, setup: TaskSetup, load: Callable[[], LoadedModel]
    ) -> EncodedSplit:
        few = draw_split(data, settings.k, settings.seed, settings.protocol)
        train, dev = [data.train[i] for i in few.train], [data.train[i] for i in few.dev]
        test_rows, test, of_test = self._test_part(_of(_TestPart, settings), data, setup, load)
        to_train = setup.encode(data, train, settings.method, load, to_train=True)
        to_score = setup.encode(data, dev, settings.method, load, to_train=False)
        names = task_kinds.stratum_names(data.task)
        scored = [data.test[i] for i in test_rows]
        leaked = count_leaked(data.task, train + dev, scored) if isinstance(data.task, Task) else None
        counts = of_test
        for part in (to_train, to_score):
            of_part = setup.counts(part)
            counts = counts + of_part if counts and of_part else None
        facts = Split(
            content_hash=content_hash([train, dev, scored]),
            n_train=len(train),
            n_dev=len(dev),
            n_test=len(test_rows),
            short_classes=tuple(names[c] for c in few.short_classes),
            n_truncated=sum(part.n_truncated for part in (to_train, to_score, test)),
            n_empty_texts=data.n_empty,
            n_unlabelled_dropped=data.n_unlabelled,
            origin=data.origin,
            n_leaked=leaked,
            n_tokens=counts.n_tokens if counts else None,
            n_unknown_tokens=counts.n_unknown if counts else None,
            n_without_words=counts.n_without_words if counts else None,
            n_sequences=counts.n_sequences if counts else None,
        )
        return EncodedSplit(to_train, to_score, test, test_rows, facts)

    def _test_part(
        self, settings: _TestPart, data: TaskData, setup: TaskSetup, load: Callable[[], LoadedModel]
    ) -> tuple[list[int], Examples, TokenCounts | None]:
        """Positions of the test rows that are scored, these rows encoded, and their tokens counted.

        All seeds share them.
        """
        if settings not in self._tests:
            rows = select_test_rows(len(data.test), settings.test_limit, setup.questions(data))
            examples = [data.test[i] for i in rows]
            encoded = setup.encode(data, examples, settings.method, load, to_train=False)
            self._tests[settings] = rows, encoded, setup.counts(encoded)
        return self._tests[settings]

    def objective(self, spec: RunSpec) -> Objective:
        """What the run's scores stand for."""
        return self.setup(spec).objective(spec.method)

    def metrics(self, spec: RunSpec) -> tuple[str, ...]:
        """Ids of all metrics that score the run's predictions."""
        task = self.task(spec)
        return (task.metric, *task.further_metrics)

    def pad_id(self, spec: RunSpec) -> int:
        """The token that fills up shorter sequences of a padded batch; it changes no score."""
        return self.setup(spec).pad_id

    def loaded(self, spec: RunSpec) -> LoadedModel:
        """The run's model, in the state in which the last run left it. One model is kept at a time."""
        setup = self.setup(spec)
        recipe = setup.model(spec)
        if self._model is None or self._model[0] != recipe:
            self._model = None  # frees the old one first
            with left_to_us():
                loaded = recipe.load()
            if not is_sharded(self.accelerator):  # whole, it may not fit the device
                loaded.model.to(self.accelerator.device)
            self._model = recipe, setup.with_packing(loaded, spec.method)
        return self._model[1]

    def fresh_model(self, spec: RunSpec) -> LoadedModel:
        """The model with its pre-trained weights, and the head and adapter that belong to the run's seed.

        Ranks that share a run's batches call this together, because wrapping the model waits for all.
        """
        setup, loaded = self.setup(spec), self.loaded(spec)
        if is_joined(self.accelerator) and loaded.shared is None:
            assert self._model is not None
            loaded = share_batches(loaded, self.accelerator)
            if loaded.sharded and loaded.packing:  # it was tried on the CPU; does it hold on this device too?
                loaded = setup.with_packing(loaded, spec.method)
            self._model = self._model[0], loaded
        setup.draw(loaded, spec.seed)
        loaded.model.zero_grad(set_to_none=True)
        return loaded
