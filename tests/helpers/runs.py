"""Specs of runs that a session in this process can do."""

from __future__ import annotations

from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.session import Session
from momentum_bench.tasks import get_task
from tests.helpers.specs import make_spec


def spec_for(session: Session, **changes) -> RunSpec:
    task = get_task(changes.get("task", "sst2"))
    facts = {
        "task_version": task.version_for(changes.get("method", "head")),
        "data_fingerprint": session.data(task).fingerprint,
        "model_revision": session.model_source.revision,
        "dropout": 0.1,
    }
    return make_spec(**facts | changes)
