"""Models that train side by side in one process, from one start, and how far apart they are."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import nn

from momentum_bench.harness.encoding.batch import Batch
from momentum_bench.harness.encoding.images import Examples
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.optimizers import entry, live
from momentum_bench.harness.records.schema import RunSpec, Stored
from momentum_bench.harness.training.arithmetic import set_arithmetic
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.objectives import Objective
from momentum_bench.harness.training.read_back import layout_of
from momentum_bench.harness.training.scoring import logits, scoring_batches
from momentum_bench.harness.training.session import Session

STEPS_PER_MEMORY = 10
"""SGDM must make at least this many times 1 / (1 - beta) steps, or its momentum is still building up."""


def check_horizon(steps: int, momentum: float, at_least: int = 1) -> None:
    """Raises: UserError, when there are fewer `steps` than the momentum needs, or than `at_least`."""
    needed = math.ceil(round(STEPS_PER_MEMORY / (1 - momentum), 6))
    if steps < max(needed, at_least):
        raise UserError(
            f"--steps {steps} is too short: momentum {momentum:g} needs {needed} steps "
            f"({STEPS_PER_MEMORY} / (1 - beta)). Pass --steps {max(needed, at_least)}, or a smaller momentum"
        )


class ArmFacts(Stored):
    """What one arm ran, read from the live objects at its end, and where it ended.

    Attributes:
        order_seed: the seed of the order of its batches.
        parameters_hash: xxh3-128 of its last parameters, by name, as in the record of a run.
        layout: how its batches are laid out, as in the record of a run.
    """

    name: str
    optimizer_class: str
    torch_learning_rate: float
    momentum: float
    state_tensors: tuple[str, ...]
    order_seed: int
    parameters_hash: str
    layout: dict[str, int | str] | None = None


@dataclass(frozen=True)
class Arm:
    """One optimizer at work on its own copy of the model.

    Attributes:
        spec: the run that this arm is, with its optimizer, rate and hyperparameters.
        start: the parameters at which all arms begin. The arms share them and never change them.
        pad_id: the id of the padding token.
        device: where the model and its batches are.
    """

    name: str
    spec: RunSpec
    entry: entry.OptimizerEntry
    loaded: LoadedModel
    optimizer: torch.optim.Optimizer
    start: list[torch.Tensor]
    objective: Objective
    order_seed: int
    pad_id: int
    device: torch.device

    @property
    def parameters(self) -> list[torch.Tensor]:
        """The live parameters, in the order of `start`."""
        return [p.detach() for p in self.loaded.model.parameters()]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [p for p in self.loaded.model.parameters() if p.requires_grad]

    @property
    def gradient(self) -> list[torch.Tensor]:
        """The gradient after `backward`, in the order of `trained`; zeros where the loss does not reach."""
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trained]

    @property
    def momentum_buffers(self) -> list[torch.Tensor]:
        """The live buffers of heavy ball after a step, in the order of `trained`."""
        state = self.optimizer.state
        return [state[p]["momentum_buffer"] if p in state else torch.zeros_like(p) for p in self.trained]

    def descend(self, batches: Sequence[Batch], weights: Sequence[float] = (1.0,)) -> float:
        """Make one step on the weighted sum of the batches' mean losses, and return that sum, in nats."""
        loss = self.backward(batches, weights)
        self.step()
        return loss

    def backward(self, batches: Sequence[Batch], weights: Sequence[float] = (1.0,)) -> float:
        """Compute the gradient of the weighted sum of the batches' mean losses, and return that sum.

        Every batch has its own forward pass. A batch with weight 0 has none.
        """
        terms = [
            weight * self.objective.loss(logits(self.loaded, batch), batch.labels)
            for weight, batch in zip(weights, batches, strict=True)
            if weight
        ]
        loss = sum(terms[1:], start=terms[0])
        loss.backward()
        return loss.item()

    def step(self) -> None:
        """Make the optimizer's step, and clear the gradient."""
        first = not self.optimizer.state
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if first:  # plain SGD never has a state, so this checks it at every step
            live.check_live(self.spec.optimizer, self.entry, self.spec.hyperparameters, self.optimizer)

    def batch(self, encoded: Examples, rows: Sequence[int]) -> Batch:
        """The examples at `rows`, in the form that this arm's model takes."""
        return encoded.batch(rows, self.pad_id, self.device, self.loaded.packing)

    def scores(self, encoded: Examples) -> torch.Tensor:
        """n x L logits in float64 on the CPU, in the order of the examples."""
        model = self.loaded.model
        model.eval()
        rows_of = scoring_batches(encoded.lengths, encoded.candidates)
        with torch.inference_mode():
            parts = [logits(self.loaded, self.batch(encoded, rows)) for rows in rows_of]
        model.train()
        together = torch.cat(parts).cpu().double()  # in this order, because MPS has no float64
        return together[torch.tensor([row for rows in rows_of for row in rows]).argsort()]

    def facts(self) -> ArmFacts:
        group = self.optimizer.param_groups[0]
        named = {n: p.detach().cpu() for n, p in self.loaded.model.named_parameters()}
        return ArmFacts(
            name=self.name,
            optimizer_class=f"{type(self.optimizer).__module__}.{type(self.optimizer).__qualname__}",
            torch_learning_rate=group["lr"],
            momentum=group["momentum"],
            state_tensors=live.state_tensors(self.optimizer)[0],
            order_seed=self.order_seed,
            parameters_hash=hash_of(named),
            layout=layout_of(self.loaded),
        )


def make_arms(specs: Iterable[tuple[str, RunSpec, int]], session: Session, common: RunSpec) -> list[Arm]:
    """An arm for each (name, spec, seed of the batch order). All begin at the parameters of `common`.

    The specs differ from `common` in their optimizer alone.

    Raises:
        UserError: the model or the optimizer cannot be built, the model keeps some dropout, or the task is
            not a classification.
    """
    set_arithmetic(common, session.accelerator)
    origin = session.fresh_model(common)
    if kept := sorted({m.p for m in origin.model.modules() if isinstance(m, nn.Dropout) and m.p}):
        raise UserError(
            f"a study runs without dropout, and {type(origin.model).__name__} keeps {kept}, under a name "
            f"that cannot be set from here: set it to 0 in the model's own config.json"
        )
    origin.model.train()
    start = [p.detach().clone() for p in origin.model.parameters()]
    pad_id, device = session.pad_id(common), session.accelerator.device
    objective = session.objective(common)
    if objective.kind != "classification":
        raise UserError(
            f"--task {common.task}: studies compare class probabilities, and this task is of the kind "
            f"{objective.kind}: choose a task of classification, see `momentum-bench tasks list`"
        )
    arms = []
    for name, spec, order_seed in specs:
        model, head = copy.deepcopy((origin.model, origin.vocabulary_head))
        entry = session.optimizer(spec)
        groups = live.weight_decay_groups(list(model.named_parameters()), spec.weight_decay)
        rate = entry.torch_rate(spec.hyperparameters) * spec.learning_rate
        optimizer = entry.build(groups, rate, spec.hyperparameters, spec.seed)
        loaded = dataclasses.replace(origin, model=model, vocabulary_head=head)
        arms.append(Arm(name, spec, entry, loaded, optimizer, start, objective, order_seed, pad_id, device))
    return arms


def with_momentum(run: RunSpec, momentum: float) -> RunSpec:
    """The run of heavy-ball SGDM that differs from a run of plain SGD only in its momentum."""
    return run.model_copy(update={"optimizer": "sgdm", "hyperparameters": {"momentum": momentum}})


def make_pair(run: RunSpec, momentum: float, session: Session) -> list[Arm]:
    """The arms `sgd`, which is `run`, and `sgdm`, on the same batches. Raises: like `make_arms`."""
    wanted = [("sgd", run, run.seed), ("sgdm", with_momentum(run, momentum), run.seed)]
    return make_arms(wanted, session, run)


def side_by_side(models_at_a_time: int, threads: int) -> ThreadPoolExecutor:
    """A pool in which arms compute at the same time, each with `threads` torch threads.

    Arms share no state, so their number at a time does not change one bit of what they compute.
    """
    # torch keeps the number of its threads for each thread of Python
    return ThreadPoolExecutor(models_at_a_time, initializer=torch.set_num_threads, initargs=(threads,))


@dataclass(frozen=True)
class Separation:
    """Two arms a and b in parameter space. All norms are over all parameters together.

    Attributes:
        distance: ||a - b||.
        moved_a, moved_b: ||a - start||, ||b - start||.
        cosine: between the two displacements from the start; None where one of them is zero.
    """

    distance: float
    moved_a: float
    moved_b: float
    cosine: float | None


def separation_of(a: Arm, b: Arm) -> Separation:
    """How far apart two arms are, and how far each is from their common start."""
    return separation(a.parameters, b.parameters, a.start)


def separation(
    a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], start: Sequence[torch.Tensor]
) -> Separation:
    """How far apart two sets of parameters are, and how far each is from their common start."""
    u, v = torch._foreach_sub(list(a), list(start)), torch._foreach_sub(list(b), list(start))
    apart = torch._foreach_sub(list(a), list(b))
    moved_a, moved_b = math.sqrt(inner_product(u, u)), math.sqrt(inner_product(v, v))
    lengths = moved_a * moved_b
    # rounding may make it 1 + 1e-16
    cosine = max(-1.0, min(1.0, inner_product(u, v) / lengths)) if lengths else None
    return Separation(math.sqrt(inner_product(apart, apart)), moved_a, moved_b, cosine)


def inner_product(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    """The sum of a x b over all elements of all tensors.

    On a CPU, fp32 sums of millions of squares are wrong in the fourth digit, and float64 sums are slow. So
    this sums in fp32 within pieces of 65,536 elements, and in float64 over the pieces.
    """
    pieces = [
        torch.dot(x, y)
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p.reshape(-1).split(2**16), q.reshape(-1).split(2**16), strict=True)
    ]
    return float(torch.stack(pieces).cpu().double().sum())


def disagreement(a: torch.Tensor, b: torch.Tensor) -> float:
    """Share of examples for which two n x L logits predict different classes."""
    return float((a.argmax(dim=1) != b.argmax(dim=1)).double().mean())


def mean_kl(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over examples of KL(softmax a || softmax b), in nats, for two n x L logits; at least 0."""
    log_a, log_b = a.log_softmax(dim=1), b.log_softmax(dim=1)
    # rounding may make it -1e-17
    return max(0.0, float((log_a.exp() * (log_a - log_b)).sum(dim=1).mean()))


def cross_entropy(scores: torch.Tensor, labels: Sequence[float]) -> float:
    """Mean cross-entropy in nats for n x L logits and n labels."""
    return float(nn.functional.cross_entropy(scores, torch.tensor(labels, dtype=torch.long)))
