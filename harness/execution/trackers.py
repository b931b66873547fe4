"""What a finished run shows in tensorboard, wandb, trackio or mlflow, through Accelerate's trackers.

A tracker is told from the record, after that is stored: it sees nothing else (no path, no variable of
the environment), and what goes wrong in it harms no run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from momentum_bench.harness.errors import first_line
from momentum_bench.harness.records.schema import RunRecord

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


PROJECT = "momentum-bench"


def track(record: RunRecord, tracker: str | GeneralTracker, folder: Path) -> None:
    """Tell a tracker of a finished run: its settings, its evaluations by step, its test score.

    Args:
        tracker: tensorboard, wandb, trackio or mlflow, or one of Accelerate's own kind.
        folder: where a tracker of local files puts them, in a folder of the run.
    """
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    run_id, label = record.spec.run_id, record.spec.label
    names = {"wandb": {"name": label}, "trackio": {"name": label}, "mlflow": {"run_name": label}}
    try:
        # shares the device and ranks of the process's own, and holds nothing but the tracker
        accelerator = Accelerator(
            log_with=tracker, project_config=ProjectConfiguration(logging_dir=str(folder / run_id))
        )
        accelerator.init_trackers(PROJECT, config=_settings(record), init_kwargs=names)
        for e in record.evaluations:
            accelerator.log(e.model_dump(exclude={"step"}), step=e.step)
        if record.test is not None and record.best_step is not None:
            accelerator.log({"test_metric": record.test.metric}, step=record.best_step)
        for each in accelerator.trackers:  # not end_training, which would part the ranks
            each.finish()
    except Exception as error:  # a service that is away, a full disk of its own: the record is stored
        print(f"{label}: --log-with failed, the run is kept: {first_line(error)}", file=sys.stderr)


def _settings(record: RunRecord) -> dict[str, int | float | str | bool]:
    """The specification as flat settings; what is None says nothing."""
    settings = record.spec.model_dump(mode="json", exclude_none=True)
    hyperparameters = settings.pop("hyperparameters")
    return {**hyperparameters, **settings, "run_id": record.spec.run_id, "status": record.status}
