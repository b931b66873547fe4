"""The leaderboard as metadata for a model card: the hub's `model-index`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from momentum_bench.harness.messages import printable
from momentum_bench.harness.records.schema import drawn
from momentum_bench.harness.reporting import cell
from momentum_bench.leaderboards.build import Leaderboard
from momentum_bench.leaderboards.rows import Row, model_names
from momentum_bench.tasks import UnknownTaskError, get_task
from momentum_bench.tasks.types import HubSource

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def model_index(board: Leaderboard) -> str:
    """A block of YAML for each model of the board. It goes between the `---` lines of the model's card.

    A result is the test mean of a row over its seeds, as a fraction. The metric's name and arguments say how
    the model was trained, and how far the seeds differ. Rows without a score are left out. Comments name
    what the board leaves out.
    """
    from huggingface_hub import ModelCardData

    names = model_names(board.rows)
    models: dict[str, list[Row]] = {}
    for row in board.rows:
        if row.chosen:
            models.setdefault(printable(names[row.model_key]), []).append(row)
    cards = [
        ModelCardData(model_name=name, eval_results=list(map(_result, rows))) for name, rows in models.items()
    ]
    left_out = "".join(f"# left out: {printable(each.sentence)}\n" for each in board.left_out)
    return "---\n".join(f"{left_out}{card.to_yaml()}\n" for card in cards)


def _result(row: Row) -> EvalResult:
    from huggingface_hub import EvalResult

    c = row.columns
    arguments = ("method", "k", "optimizer", "hyperparameters", "n_seeds", "test_std", "left_out", "protocol")
    over = "one seed" if c["n_seeds"] == 1 else f"mean over {c['n_seeds']} seeds"
    how = f"by {c['method']} with {row.label}, {drawn(c['k'])}, {over}"
    return EvalResult(
        task_type="image-classification" if c["method"] == "scratch" else "text-classification",
        **_dataset(str(c["task"])),
        metric_type=printable(c["metric"]),
        metric_name=printable(f"{c['metric']}, {how}"),
        metric_value=c["test_mean"],
        metric_args={name: _stated(c[name]) for name in (*arguments, "row_id") if cell(c[name])},
    )


def _stated(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _dataset(name: str) -> dict[str, Any]:
    """The data set of a task as the hub names it, or the task's name if the hub does not have it."""
    try:
        task = get_task(name)
    except UnknownTaskError:
        return dict.fromkeys(("dataset_type", "dataset_name"), printable(name))
    if not isinstance(task.source, HubSource):
        return {"dataset_type": name, "dataset_name": task.title}
    source = task.source
    return {
        "dataset_type": source.id,
        "dataset_name": task.title,
        "dataset_config": source.config,
        "dataset_split": task.test,
    }
