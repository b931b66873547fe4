"""How a task of text is set up for runs: a pre-trained model, token ids, label words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from momentum_bench.harness.data import task_kinds
from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.encoding.sequences import TokenCounts, count_tokens, unreadable
from momentum_bench.harness.encoding.texts import (
    CAUSAL_LENGTH,
    encode_candidates,
    encode_plain,
    encode_prompts,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models import pretrained
from momentum_bench.harness.models.activations import checkpoint_activations
from momentum_bench.harness.models.files import ModelSource
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.packing import with_packing
from momentum_bench.harness.models.trainable import choose_trainable
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.seeds import derived_seed
from momentum_bench.harness.sharded_tensors import local
from momentum_bench.harness.training.objectives import Objective, objective_of
from momentum_bench.tasks import Task


@dataclass(frozen=True)
class PretrainedModel:
    """A pre-trained model as runs ask for it; two that are equal load the same model.

    Loading sees these fields and nothing else, so whatever it depends on takes part in the comparison.

    Attributes:
        n_labels: outputs of a new classifier; 0 where there is none.
        kept_labels: the names of the labels that the model's own classifier must have, in logit order;
            None: there is no classifier, or it is new.
        method, dropout, peft, freeze, checkpoint_activations: as in a `RunSpec`.
    """

    source: ModelSource
    tokenizer: Any = field(compare=False)  # it is the source's own
    method: str
    n_labels: int
    dropout: float | None
    peft: str | None
    freeze: str | None
    kept_labels: tuple[tuple[str, ...], ...] | None = None
    checkpoint_activations: bool | None = None

    def load(self) -> LoadedModel:
        """The model on the CPU, with its adapter and with its frozen part.

        Raises:
            UserError: it cannot be loaded, adapted or frozen as it was asked for.
        """
        loaded = pretrained.load_model(
            self.source, self.method, self.n_labels, self.dropout, self.kept_labels
        )
        if self.method == "head":
            pretrained.agree_on_padding(loaded.model, self.tokenizer)
        if self.peft:
            from momentum_bench.harness.models.adapters import with_adapter

            loaded = with_adapter(loaded, self.peft)
        choose_trainable(loaded, self.method, self.peft, self.freeze)
        if self.checkpoint_activations:
            checkpoint_activations(loaded.model)
        return loaded


class TextSetup:
    """A task of text and the model that learns it; the methods are those of `TaskSetup`."""

    def __init__(self, task: Task, source: ModelSource, tokenizer: Any):
        self._task, self._source, self._tokenizer = task, source, tokenizer

    @property
    def pad_id(self) -> int:
        return self._tokenizer.pad_token_id or 0

    def model(self, spec: RunSpec) -> PretrainedModel:
        return PretrainedModel(
            source=self._source,
            tokenizer=self._tokenizer,
            method=spec.method,
            n_labels=self._task.n_outputs if spec.method == "head" else 0,
            dropout=spec.dropout,
            peft=spec.peft,
            freeze=spec.freeze,
            kept_labels=self._label_names() if spec.head == "kept" else None,
            checkpoint_activations=spec.checkpoint_activations,
        )

    def _label_names(self) -> tuple[tuple[str, ...], ...]:
        if self._task.kind != "classification":
            return ()
        return tuple(tuple(dict.fromkeys((name, str(value)))) for value, name in self._task.labels.items())

    def with_packing(self, loaded: LoadedModel, method: str) -> LoadedModel:
        return with_packing(loaded, self._tokenizer, is_head=method == "head")

    def draw(self, loaded: LoadedModel, seed: int) -> None:
        for name, value in loaded.model.state_dict().items():
            local(value).copy_(loaded.pristine[name])
        pretrained.draw_new_parameters(loaded.model, loaded.new_parameters, derived_seed(seed, "head"))
        if loaded.adapter:
            from momentum_bench.harness.models.adapters import draw_adapter

            draw_adapter(loaded, derived_seed(seed, "adapter"))

    def questions(self, data: TaskData) -> list[int] | None:
        return task_kinds.questions(self._task, data.test)

    def encode(
        self,
        data: TaskData,
        examples: Sequence[Example],
        method: str,
        load: Callable[[], LoadedModel],
        to_train: bool,
    ) -> Encoded:
        task, tokenizer, loaded = self._task, self._tokenizer, load()
        readable = pretrained.max_input_length(loaded.model, tokenizer)
        readable -= loaded.adapter.virtual_tokens if loaded.adapter else 0
        given = examples
        if method == "causal":
            # such a loss needs the right candidate alone
            right_only = to_train and self.objective(method).generative
            encoded = encode_candidates(tokenizer, task, examples, min(CAUSAL_LENGTH, readable), right_only)
        else:
            if to_train:
                examples = [task_kinds.with_one_answer(example) for example in examples]
            length = min(task.max_length, readable)
            if method == "prompt":
                encoded = encode_prompts(tokenizer, task, examples, length)
            else:
                segments = pretrained.has_segments(loaded.model)
                encoded = encode_plain(tokenizer, task, examples, length, segments)
        n_embedded = len(loaded.model.get_input_embeddings().weight)
        if found := unreadable(encoded, readable, n_embedded):
            row, reason = found
            raise UserError(
                f"{_place(data, given[row])} cannot be read by --model {self._source.name}: it has {reason}. "
                f"Found the texts {[text[:60] for text in given[row].texts]}"
            )
        return encoded

    def counts(self, examples: Examples) -> TokenCounts:
        assert isinstance(examples, Encoded)  # `encode` has made them
        return count_tokens(examples, self._tokenizer)

    def objective(self, method: str) -> Objective:
        return objective_of(self._task, method)


def _place(data: TaskData, example: Example) -> str:
    """Where an example stands, in words; rows are counted without those that were dropped."""
    task = data.task
    assert isinstance(task, Task)
    for split, rows in ((task.train, data.train), (task.test, data.test)):
        for number, row in enumerate(rows, 1):
            if row is example:
                return f"{task.name}, {split}, row {number}"
    return task.name
