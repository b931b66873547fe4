"""Show finished runs in tensorboard, wandb, trackio or mlflow, through Accelerate's trackers.

A tracker gets what is in the record, after the record is stored. It sees nothing else (no path, no
environment variable), and an error in it harms no run.
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
    """Give a finished run to a tracker: its settings, its evaluations by step, and its test score.

    Args:
        tracker: tensorboard, wandb, trackio or mlflow, or an Accelerate tracker.
        folder: where a tracker that writes local files puts them, in a folder for each run.
    """
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    run_id, label = record.spec.run_id, record.spec.label
    names = {"wandb": {"name": label}, "trackio": {"name": label}, "mlflow": {"run_name": label}}
    try:
        # it shares device and ranks with the process's other accelerator, and is only used for the tracker
        accelerator = Accelerator(
            log_with=tracker, project_config=ProjectConfiguration(logging_dir=str(folder / run_id))
        )
        accelerator.init_trackers(PROJECT, config=_settings(record), init_kwargs=names)
        for e in record.evaluations:
            accelerator.log(e.model_dump(exclude={"step"}), step=e.step)
        if record.test is not None and record.best_step is not None:
            accelerator.log({"test_metric": record.test.metric}, step=record.best_step)
        for each in accelerator.trackers:  # not end_training: it would also end the group of ranks
            each.finish()
    except Exception as error:  # e.g. its service cannot be reached; the record is stored already
        print(f"{label}: --log-with failed, the run is kept: {first_line(error)}", file=sys.stderr)


def _settings(record: RunRecord) -> dict[str, int | float | str | bool]:
    """The specification as flat settings, without those that are None."""
    settings = record.spec.model_dump(mode="json", exclude_none=True)
    return (
        settings.pop("hyperparameters") | settings | {"run_id": record.spec.run_id, "status": record.status}
    )
