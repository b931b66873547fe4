"""The defaults of a sweep over an image task: its epochs turned into steps. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import NETWORK
from momentum_bench.harness.sweeps.request import listed
from momentum_bench.tasks.types import ImageTask


def settings(task: ImageTask, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults for the task. The number of steps follows from its epochs and the batch size.

    Args:
        asked: the settings that were given, by name; `batch_size`, `k` and `max_steps` change the defaults
            of others.

    Raises:
        UserError: one of these three is not a whole number.
    """
    k = _whole(asked, "k", 0)
    n = k * task.n_classes if k else task.n_train - round(task.n_train * task.dev_fraction)
    batch_size = _one_batch_size(asked, task)
    max_steps = _whole(asked, "max_steps", max(task.epochs, round(task.epochs * n / max(1, batch_size))))

    def steps(epochs: int) -> int:
        return round(max_steps * epochs / task.epochs)

    decays = tuple(sorted({steps(epoch) for epoch in task.decay_epochs} - {0}))
    if asked.get("lr_schedule", "step") != "step":
        decays = ()
    return {
        "protocol": "from-scratch",
        "model": NETWORK + task.name,
        "method": "scratch",
        "k": k,
        "batch_size": batch_size,
        "max_steps": max_steps,
        "eval_every": max(1, steps(1)),
        "lr_schedule": "step" if decays else "constant",
        "decay_steps": decays or None,
        "warmup_steps": steps(task.warmup_epochs),
        "weight_decay": task.weight_decay,
        "max_grad_norm": None,
        "test_limit": None,
    }


def _one_batch_size(asked: Mapping[str, Any], task: ImageTask) -> int:
    """The batch size from which steps follow. Raises: UserError, where several are given without steps."""
    sizes = listed(asked.get("batch_size"))
    if sizes is not None and len(sizes) > 1:
        if "max_steps" not in asked:
            raise UserError(
                f"--batch-size {','.join(map(str, sizes))}: the steps of {task.name} follow from one batch "
                f"size: give one, or add --max-steps N, which is then the same for all"
            )
        return task.batch_size  # not used, because the steps are given
    return _whole(asked, "batch_size", task.batch_size)


def _whole(asked: Mapping[str, Any], name: str, default: int) -> int:
    try:
        return int(asked.get(name, default))
    except (TypeError, ValueError, OverflowError):  # the last: infinity
        flag = name.replace("_", "-")
        raise UserError(f"--{flag}: expected a whole number, found {asked[name]!r}") from None
