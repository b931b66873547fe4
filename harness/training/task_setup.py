"""What differs between a task of text and one of images, as one interface.

`text_setup.py` and `image_setup.py` implement it; `Session.setup` chooses, once for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.encoding.sequences import TokenCounts
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.objectives import Objective


class ModelRecipe(Protocol):
    """A frozen dataclass of all that loading a model depends on: equal ones load equal models."""

    def load(self) -> LoadedModel:
        """The model on the CPU."""


class TaskSetup(Protocol):
    """How one task is set up for runs."""

    @property
    def pad_id(self) -> int:
        """The token that fills up shorter sequences of a padded batch; it changes no score."""

    def model(self, spec: RunSpec) -> ModelRecipe:
        """The model that the run trains."""

    def with_packing(self, loaded: LoadedModel, method: str) -> LoadedModel:
        """The model that takes batches as packed rows, if that gives the same scores on its device."""

    def draw(self, loaded: LoadedModel, seed: int) -> None:
        """Set the model to a run's start: what is pre-trained as it was, what is new drawn from the seed."""

    def questions(self, data: TaskData) -> list[int] | None:
        """For each test row the number of its question; None: each row is a question of its own."""

    def encode(
        self,
        data: TaskData,
        examples: Sequence[Example],
        method: str,
        load: Callable[[], LoadedModel],
        to_train: bool,
    ) -> Examples:
        """Examples of the task, ready for batches.

        Args:
            load: gives the model, which may limit how much of an example is read.
            to_train: whether they are trained on (images are then varied), or scored.

        Raises:
            UserError: the model cannot read one of them.
        """

    def counts(self, examples: Examples) -> TokenCounts | None:
        """What encoded texts are made of; None: they are images."""

    def objective(self, method: str) -> Objective:
        """The loss and the predictions; the ids of label words are on the device."""
