"""Show finished runs in tensorboard, wandb, trackio or mlflow, through Accelerate's trackers.

A tracker gets what is in the record, after the record is stored. It sees nothing else (no path, no
environment variable), and an error in it harms no run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        with _nobody_to_ask():
            # it shares device and ranks with the process's other accelerator, and only serves the tracker
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
    except (
        Exception,
        SystemExit,
    ) as error:  # no service, no login, a full disk: the record is stored already
        print(f"{label}: --log-with failed, the run is kept: {first_line(error)}", file=sys.stderr)


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """Standard input is empty and no terminal, so that a tracker without a login fails and does not ask.

    wandb, for one, waits for an answer wherever a terminal is there to give it, after hours of computing.
    """
    before = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def _settings(record: RunRecord) -> dict[str, int | float | str | bool]:
    """The specification as flat settings, without those that are None."""
    settings = record.spec.model_dump(mode="json", exclude_none=True)
    hyperparameters = settings.pop("hyperparameters")
    return {**hyperparameters, **settings, "run_id": record.spec.run_id, "status": record.status}
