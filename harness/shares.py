"""How much work a run is, and how runs are shared out by it. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import RunSpec
from harness.sources import TaskData
from tasks.image_task import ImageTask

CHARACTERS_PER_TOKEN = 4
"""Of English text under the usual tokenizers; it need only rank the tasks."""

ROWS_LOOKED_AT = 1000


def work(spec: RunSpec, data: TaskData) -> float:
    """About how many tokens a run computes forward, a training step's backward counted as two more.

    Of images it counts pixels. A function of spec and data alone, so that every process shares out the
    same runs alike.
    """
    if isinstance(data.task, ImageTask):
        tokens = float(data.task.size**2)
    else:
        rows = data.train[:ROWS_LOOKED_AT]
        mean = sum(len(text) for row in rows for text in row.texts) / len(rows) / CHARACTERS_PER_TOKEN
        tokens = min(mean, data.task.max_length)
    n_test = len(data.test) if spec.test_limit is None else min(spec.test_limit, len(data.test))
    n_dev = spec.k * max(1, len(data.task.labels))
    examples = 3 * spec.max_steps * spec.batch_size + spec.max_steps // spec.eval_every * n_dev + n_test
    return round(tokens * examples, 1)


def longest_first(specs: Sequence[RunSpec], work: Sequence[float]) -> list[RunSpec]:
    """The runs by falling work, else in their order: the last to end is then a short one."""
    order = sorted(range(len(specs)), key=lambda i: -work[i])
    return [specs[i] for i in order]


def share_out(specs: Sequence[RunSpec], work: Sequence[float], n: int) -> list[list[RunSpec]]:
    """The runs in n shares of about equal work: longest first, each to the share with the least so far."""
    shares: list[list[RunSpec]] = [[] for _ in range(n)]
    sums = [0.0] * n
    known = {spec.run_id: amount for spec, amount in zip(specs, work, strict=True)}
    for spec in longest_first(specs, work):
        least = min(range(n), key=lambda i: sums[i])
        shares[least].append(spec)
        sums[least] += known[spec.run_id]
    return shares
