"""Specs and records of small runs on a tiny model, such as tests of the harness make; see `synthetic`."""

from __future__ import annotations

from typing import Any

from momentum_bench.harness.records.schema import RunRecord, RunSpec
from tests.helpers import synthetic

SMALL: dict[str, Any] = {
    "task_version": "t",
    "data_fingerprint": "d",
    "model": "local:tiny-bert",
    "model_revision": "m",
    "method": "head",
    "k": 4,
    "learning_rate": 0.1,
    "batch_size": 4,
    "max_steps": 6,
    "eval_every": 3,
    "test_limit": None,
}


def make_spec(**changes: Any) -> RunSpec:
    """A valid spec, with changes; momentum belongs to sgdm alone."""
    momentum = {"momentum": 0.9} if changes.get("optimizer") == "sgdm" else {}
    return synthetic.make_spec(**{**SMALL, "hyperparameters": momentum, **changes})


def make_record(
    dev: float = 0.5, test: float = 0.5, loss: float = 1.0, status: str = "done", **changes: Any
) -> RunRecord:
    """A finished record whose scores are given; predictions of 100 rows agree with the test score."""
    n_right = round(test * 100)
    record = synthetic.make_record(
        make_spec(**changes),
        synthetic.Scores(dev, loss, n_right / 100, "done" if status == "done" else "failed"),
    )
    if record.test is None or record.split is None:
        return record.model_copy(update={"status": status})
    scored = {
        "loss": loss,
        "rows": tuple(range(100)),
        "labels": (1,) * 100,
        "predictions": (1,) * n_right + (0,) * (100 - n_right),
    }
    parts = {
        "test": record.test.model_copy(update=scored),
        "split": record.split.model_copy(update={"n_test": 100}),
    }
    return record.model_copy(update=parts)
