"""`--cuda-graphs`: whole training steps on a GPU, recorded once for each shape of batch and replayed.

At few-shot sizes a GPU waits for the processor, which launches about a thousand kernels for each step; a
recorded step is one launch. The recording holds forward, backward, clipping and update. What changes from
step to step lies at fixed places that the recording reads: the batch, the learning rate, the seed of the
dropout masks. Batches are packed rows, which filler that belongs to no sequence rounds up to few lengths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from momentum_bench.harness.encoding.batch import Batch, Encoded
from momentum_bench.harness.encoding.packed_rows import Packing
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.session import Session

ROUNDED_TO = (64, 16)
"""Tokens of a packed row, and of its longest sequence, are multiples of these."""

LAYOUT = f"rows in steps of {ROUNDED_TO[0]} tokens, sequences of {ROUNDED_TO[1]}"
"""How a record states the rounding; published records have this text."""

Step = Callable[[Batch], tuple[torch.Tensor, ...]]
"""A whole training step: the batch's loss, and the norm of its gradient where that is clipped."""

Work = Callable[[], tuple[torch.Tensor, ...]]


class Recorder:
    """CUDA graphs that share one pool of memory, because each replay ends before the next begins."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> tuple[torch.Tensor, ...]:
        """Do the work now, and return its results."""
        # on the recording stream, because what a first step sets up must be there for the recording
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def record(self, work: Work) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
        """Record the work without doing it; returns a replay, and where each replay leaves its results."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            results = work()
        return graph.replay, results


@dataclass
class _Shape:
    """The batch that a recording reads, and the recording itself; None before it is made."""

    batch: Batch
    replay: Callable[[], None] | None = None
    results: tuple[torch.Tensor, ...] = ()


class RecordedSteps:
    """The training steps of one run.

    The first batch of a shape is trained on without a recording, the second is recorded, and all later
    ones replay that recording.

    Attributes:
        rate: the scalar on the device from which each step reads torch's learning rate. The recording
            would fix a plain number; torch's fused SGD reads this one each time.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer):
        self._step, self._recorder = step, Recorder()
        self.rate = torch.zeros((), device=optimizer.param_groups[0]["params"][0].device)
        for group in optimizer.param_groups:
            group |= {"lr": self.rate, "fused": True, "foreach": False}
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        key = (batch.inputs["input_ids"].shape[1], batch.inputs["segments"].longest)
        if key not in self._shapes:
            self._shapes[key] = _Shape(batch)
            return self._recorder.run(lambda: self._step(batch))
        shape = self._shapes[key]
        for place, values in zip(
            _tensors(shape.batch, shape.batch), _tensors(batch, shape.batch), strict=True
        ):
            place.copy_(values, non_blocking=True)
        if shape.replay is None:
            shape.replay, shape.results = self._recorder.record(lambda: self._step(shape.batch))
        shape.replay()
        return tuple(result.clone() for result in shape.results)


def _tensors(batch: Batch, like: Batch) -> list[torch.Tensor]:
    """The tensors on the device that a step reads from a batch, as far as the step on `like` read them."""
    given = [value for _, value in sorted(batch.inputs.items()) if isinstance(value, torch.Tensor)]
    read_at = () if batch.read_at is None else batch.read_at
    return [*given, *batch.inputs["segments"].tensors(like.inputs["segments"]), *read_at, batch.labels]


def rounded(packing: Packing | None) -> Packing:
    """The same packing, with rows that have few different lengths."""
    assert packing is not None  # `check_recordable` refuses the others
    return dataclasses.replace(packing, steps=ROUNDED_TO)


def check_recordable(spec: RunSpec, session: Session) -> None:
    """Raises: UserError, if the run asks for recorded steps and cannot have them, with what to do instead."""
    if not spec.cuda_graphs:
        return
    entry, train, loaded = session.optimizer(spec), session.split(spec).train, session.loaded(spec)
    why = None
    if session.accelerator.device.type != "cuda":
        why = f"this runs on {session.accelerator.device.type}, without a GPU"
    elif loaded.packing is None:
        why = f"{spec.task} on this model is not packed ({loaded.why_padded})"
    elif not isinstance(train, Encoded) or train.candidates is not None:
        why = f"the batches of {spec.task} under --method {spec.method} differ in their number of sequences"
    elif not _is_torch_sgd(entry, spec):
        why = f"{spec.optimizer} is not torch's SGD, which alone reads its learning rate from the GPU"
    if why:
        raise UserError(f"--cuda-graphs: {why}: leave the flag out")


def _is_torch_sgd(entry: OptimizerEntry, spec: RunSpec) -> bool:
    groups: list[dict[str, Any]] = [{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": 0.0}]
    return type(entry.build(groups, 1.0, spec.hyperparameters, spec.seed)) is torch.optim.SGD
