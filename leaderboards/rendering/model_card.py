"""The leaderboard as metadata for a model card: the hub's `model-index`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from momentum_bench.harness.records.schema import drawn
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.rows import Row
from momentum_bench.tasks import UnknownTaskError, get_task
from momentum_bench.tasks.types import HubSource

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def model_index(board: Leaderboard) -> str:
    """A block of YAML for each model of the board, to stand between the `---` of its card.

    A result is the test mean of a row over its seeds, a fraction; what was trained how, and the spread,
    stand in the metric's name and arguments. Rows without a score are left out.
    """
    from huggingface_hub import ModelCardData

    models: dict[str, list[Row]] = {}
    for row in board.rows:
        if not math.isnan(row.columns["test_mean"]):
            models.setdefault(str(row.columns["model"]), []).append(row)
    cards = [
        ModelCardData(model_name=name, eval_results=list(map(_result, rows))) for name, rows in models.items()
    ]
    return "---\n".join(f"{card.to_yaml()}\n" for card in cards)


def _result(row: Row) -> EvalResult:
    from huggingface_hub import EvalResult

    c = row.columns
    arguments = ("method", "k", "optimizer", "hyperparameters", "n_seeds", "test_std", "protocol", "row_id")
    how = f"by {c['method']} with {row.label}, {drawn(c['k'])}, mean over {c['n_seeds']} seeds"
    return EvalResult(
        task_type="image-classification" if c["method"] == "scratch" else "text-classification",
        **_dataset(str(c["task"])),
        metric_type=str(c["metric"]),
        metric_name=f"{c['metric']}, {how}",
        metric_value=c["test_mean"],
        metric_args={name: c[name] for name in arguments if c[name] not in ("", None)},
    )


def _dataset(name: str) -> dict[str, Any]:
    """A task's data set in the hub's words; one that the hub does not have goes by the task's name."""
    try:
        task = get_task(name)
    except UnknownTaskError:
        return {"dataset_type": name, "dataset_name": name}
    if not isinstance(task.source, HubSource):
        return {"dataset_type": name, "dataset_name": task.title}
    source = task.source
    return {
        "dataset_type": source.id,
        "dataset_name": task.title,
        "dataset_config": source.config,
        "dataset_split": task.test,
    }
