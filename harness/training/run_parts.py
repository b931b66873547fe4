"""What one run is made of, in one bundle that the session builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.encoding.packed_rows import Packing
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.records.schema import Split
from momentum_bench.harness.training.objectives import Objective
from momentum_bench.harness.training.scoring import Scores, score
from momentum_bench.tasks.types import AnyTask


@dataclass(frozen=True)
class EncodedSplit:
    """The three parts of a few-shot split, ready for batches, and what the record says about them.

    Attributes:
        train, dev, test: the examples of each part.
        test_rows: the positions of the scored rows in the task's test data.
        facts: counts, hash and origin of the split.
    """

    train: Examples
    dev: Examples
    test: Examples
    test_rows: list[int]
    facts: Split


@dataclass(frozen=True)
class RunParts:
    """All that a run is made of. The model is live: training changes it, so each try needs new parts.

    Attributes:
        task: what is learned, and the metrics that score it.
        split: the examples.
        loaded: the model at the run's start: pre-trained weights, and new parameters drawn from its seed.
        objective: the loss and the predictions.
        pad_id: the token that fills up shorter sequences of a padded batch.
        entry: the optimizer's entry in the registry; None: nothing is trained.
        accelerator: the device, the autocast, and the ranks that share the run.
    """

    task: AnyTask
    split: EncodedSplit
    loaded: LoadedModel
    objective: Objective
    pad_id: int
    entry: OptimizerEntry | None
    accelerator: Accelerator

    def training_batch(self, rows: Sequence[int], packing: Packing | None) -> Batch:
        """The training examples at these positions, on the device."""
        return self.split.train.batch(rows, self.pad_id, self.accelerator.device, packing)

    def score(self, examples: Examples) -> Scores:
        """Score each of the examples once with the model as it is now, by the task's main metric."""
        return score(self.loaded, examples, self.objective, self.task.metric, self.pad_id, self.accelerator)
