"""How an image task is set up for runs: a network from scratch, and pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.encoding.images import Examples, ImageSet
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.models.networks import draw_network, load_network
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.seeds import derived_seed
from momentum_bench.harness.training.objectives import Objective
from momentum_bench.tasks.types import ImageTask


@dataclass(frozen=True)
class Network:
    """The network of a task, which nothing else in a run changes."""

    task: ImageTask

    def load(self) -> LoadedModel:
        """The network on the CPU, with weights that mean nothing yet.

        Raises:
            UserError: transformers cannot build the architecture.
        """
        return load_network(self.task)


class ImageSetup:
    """An image task and its network; the methods are those of `TaskSetup`."""

    pad_id = 0

    def __init__(self, task: ImageTask):
        self._task = task

    def model(self, spec: RunSpec) -> Network:
        return Network(self._task)

    def with_packing(self, loaded: LoadedModel, method: str) -> LoadedModel:
        return loaded

    def draw(self, loaded: LoadedModel, seed: int) -> None:
        draw_network(loaded.model, self._task, derived_seed(seed, "network"))

    def questions(self, data: TaskData) -> None:
        return None

    def encode(
        self,
        data: TaskData,
        examples: Sequence[Example],
        method: str,
        load: Callable[[], LoadedModel],
        to_train: bool,
    ) -> ImageSet:
        return ImageSet(data, examples, augmented=to_train)

    def counts(self, examples: Examples) -> None:
        return None

    def objective(self, method: str) -> Objective:
        return Objective(kind="classification", generative=False, ends=(0.0, 0.0))
