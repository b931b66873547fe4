"""What a process keeps between runs: models, tokenizers, tokenised splits.

Nothing that a run's outcome depends on lives here: a model is reset to its pristine weights and its
head is drawn anew for every run, so a run is the same alone or after a hundred others.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator

from momentum_bench.harness.data import task_kinds
from momentum_bench.harness.data.examples import Example, TaskData, content_hash
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split, select_test_rows
from momentum_bench.harness.encoding.images import Examples, ImageSet
from momentum_bench.harness.encoding.label_words import label_word_ids
from momentum_bench.harness.encoding.texts import (
    CAUSAL_LENGTH,
    encode_candidates,
    encode_plain,
    encode_prompts,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.launcher import turned_on
from momentum_bench.harness.models import files, pretrained
from momentum_bench.harness.models.distributed import share_batches
from momentum_bench.harness.models.files import ModelSource
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.networks import draw_network, load_network
from momentum_bench.harness.models.packing import with_packing
from momentum_bench.harness.models.trainable import choose_trainable
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.records.schema import NO_OPTIMIZER, RunSpec, Split
from momentum_bench.harness.seeds import derived_seed
from momentum_bench.harness.sharded_tensors import local
from momentum_bench.harness.training.objectives import Objective, objective_of
from momentum_bench.harness.training.run_parts import EncodedSplit, RunParts
from momentum_bench.tasks.image_task import AnyTask, ImageTask


class Session:
    """One process's models and data, loaded when first needed."""

    def __init__(self, inputs: Inputs, accelerator: Accelerator):
        self.inputs = inputs
        self.accelerator = accelerator
        self._data: dict[str, TaskData] = {}
        self._tests: dict[tuple, tuple[list[int], Examples]] = {}
        self._splits: dict[tuple, EncodedSplit] = {}
        self._model: tuple[tuple, LoadedModel] | None = None

    @cached_property
    def model_source(self) -> ModelSource:
        """The sweep's model, found once."""
        return files.resolve_model(self.inputs.model)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return pretrained.load_tokenizer(self.model_source)

    def task(self, spec: RunSpec) -> AnyTask:
        """The run's task: ours, a package's, or the user's file's."""
        return find_task(spec.task, self.inputs.task_file)

    def data(self, task: AnyTask) -> TaskData:
        """The task's checked rows."""
        if task.name not in self._data:
            self._data[task.name] = load_task_data(task, self.inputs.data_dir)
        return self._data[task.name]

    def check_inputs(self, spec: RunSpec) -> None:
        """Raises: UserError, when task, data or model are no longer those that the sweep was planned on."""
        found = {
            "task_version": self.task(spec).version_for(spec.method),
            "data_fingerprint": self.data(self.task(spec)).fingerprint,
            "model_revision": self.model_source.revision,
        }
        for name, value in found.items():
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
        return find_optimizer(spec.optimizer, self.inputs.optimizer_file)[1]

    def split(self, spec: RunSpec) -> EncodedSplit:
        """The run's few-shot split, tokenised for its model and method."""
        key = (spec.protocol, spec.task, spec.method, spec.k, spec.seed, spec.test_limit, spec.peft)
        if key not in self._splits:
            self._splits[key] = self._make_split(spec)
        return self._splits[key]

    def _make_split(self, spec: RunSpec) -> EncodedSplit:
        data = self.data(self.task(spec))
        few = draw_split(data, spec.k, spec.seed, spec.protocol)
        train, dev = [data.train[i] for i in few.train], [data.train[i] for i in few.dev]
        key = (spec.task, spec.method, spec.test_limit, spec.peft)
        if key not in self._tests:
            questions = (
                None if isinstance(data.task, ImageTask) else task_kinds.questions(data.task, data.test)
            )
            rows = select_test_rows(len(data.test), spec.test_limit, questions)
            self._tests[key] = rows, self._encode(spec, data, [data.test[i] for i in rows])
        test_rows, test = self._tests[key]
        encoded = [self._encode(spec, data, train, to_train=True), self._encode(spec, data, dev), test]
        names = ["passages"] if data.task.groups else list(data.task.labels.values())
        facts = Split(
            content_hash=content_hash([train, dev, [data.test[i] for i in test_rows]]),
            n_train=len(train),
            n_dev=len(dev),
            n_test=len(test_rows),
            short_classes=tuple(names[c] for c in few.short_classes),
            n_truncated=sum(part.n_truncated for part in encoded),
            n_empty_texts=data.n_empty,
            n_unlabelled_dropped=data.n_unlabelled,
            origin=data.origin,
        )
        return EncodedSplit(encoded[0], encoded[1], test, test_rows, facts)

    def _encode(
        self, spec: RunSpec, data: TaskData, examples: list[Example], to_train: bool = False
    ) -> Examples:
        if isinstance(data.task, ImageTask):
            return ImageSet(data, examples, augmented=to_train)
        task, tokenizer = data.task, self.tokenizer
        loaded = self.loaded(spec)
        readable = pretrained.max_input_length(loaded.model.config, tokenizer)
        readable -= loaded.adapter.virtual_tokens if loaded.adapter else 0
        if spec.method == "causal":
            right_only = to_train and self.objective(spec).generative
            return encode_candidates(tokenizer, task, examples, min(CAUSAL_LENGTH, readable), right_only)
        if to_train:
            examples = [task_kinds.with_one_answer(example) for example in examples]
        encode = encode_prompts if spec.method == "prompt" else encode_plain
        return encode(tokenizer, task, examples, min(task.max_length, readable))

    def objective(self, spec: RunSpec) -> Objective:
        """What the run's scores stand for; the label words' token ids are on the device."""
        task, label_words = self.task(spec), None
        if isinstance(task, ImageTask):
            return Objective(kind="classification", generative=False, label_words=None, ends=(0.0, 0.0))
        if spec.method == "prompt":
            ids = label_word_ids(self.tokenizer, task)
            label_words = torch.tensor(ids, device=self.accelerator.device)
        return objective_of(task, spec.method, label_words)

    def metrics(self, spec: RunSpec) -> tuple[str, ...]:
        """Ids of all metrics that the run's predictions are scored by."""
        task = self.task(spec)
        return (task.metric, *task.further_metrics)

    def loaded(self, spec: RunSpec) -> LoadedModel:
        """The model for this method, task size, dropout, adapter and frozen part, as it was left."""
        task = self.task(spec)
        if isinstance(task, ImageTask):
            return self._network(task)
        n_labels = task.n_outputs if spec.method == "head" else 0
        key = (spec.method, n_labels, spec.dropout, spec.peft, spec.freeze)
        if self._model is None or self._model[0] != key:
            self._model = None  # free the old one first
            loaded = pretrained.load_model(self.model_source, spec.method, n_labels, spec.dropout)
            if spec.method == "head":
                pretrained.agree_on_padding(loaded.model, self.tokenizer)
            if spec.peft:
                from momentum_bench.harness.models.adapters import with_adapter

                loaded = with_adapter(loaded, spec.peft)
            choose_trainable(loaded, spec)
            in_parts = self.accelerator.num_processes > 1 and turned_on("FSDP")
            if not in_parts:  # else it may not fit
                loaded.model.to(self.accelerator.device)
            self._model = key, with_packing(loaded, self.tokenizer, is_head=spec.method == "head")
        return self._model[1]

    def _network(self, task: ImageTask) -> LoadedModel:
        key = ("scratch", task.name)
        if self._model is None or self._model[0] != key:
            self._model = None
            loaded = load_network(task)
            loaded.model.to(self.accelerator.device)
            self._model = key, loaded
        return self._model[1]

    def pad_id(self, spec: RunSpec) -> int:
        """What stands behind shorter sequences in a padded batch; of no effect on what is computed."""
        return 0 if spec.method == "scratch" else self.tokenizer.pad_token_id or 0

    def fresh_model(self, spec: RunSpec) -> LoadedModel:
        """The model with its pre-trained weights, and the head and adapter that belong to the run's seed."""
        loaded = self.loaded(spec)
        if self.accelerator.num_processes > 1 and loaded.shared is None:
            # only here, where all ranks come at the same time: wrapping waits for all of them
            assert self._model is not None
            loaded = share_batches(loaded, self.accelerator)
            if loaded.sharded and loaded.packing:  # what was tried on the CPU holds on this device too?
                loaded = with_packing(loaded, self.tokenizer, is_head=spec.method == "head")
            self._model = self._model[0], loaded
        if isinstance(task := self.task(spec), ImageTask):
            draw_network(loaded.model, task, derived_seed(spec.seed, "network"))
            loaded.model.zero_grad(set_to_none=True)
            return loaded
        for name, value in loaded.model.state_dict().items():
            local(value).copy_(loaded.pristine[name])
        pretrained.draw_new_parameters(loaded.model, loaded.new_parameters, derived_seed(spec.seed, "head"))
        if loaded.adapter:
            from momentum_bench.harness.models.adapters import draw_adapter

            draw_adapter(loaded, derived_seed(spec.seed, "adapter"))
        loaded.model.zero_grad(set_to_none=True)
        return loaded
