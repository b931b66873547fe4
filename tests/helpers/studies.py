"""What the tests of all studies use."""

from __future__ import annotations

import pytest

from momentum_bench.harness.cli.main import main
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.training.session import Session
from momentum_bench.tasks import get_task
from tests.helpers.specs import make_spec


def plain_run(session: Session, **changes) -> RunSpec:
    """A run under the settings that studies fix."""
    facts = {
        "task_version": get_task("sst2").version_for("head"),
        "data_fingerprint": session.data(get_task("sst2")).fingerprint,
        "model_revision": session.model_source.revision,
        "dropout": 0.0,
        "max_grad_norm": None,
        "lr_schedule": "constant",
        "learning_rate": 0.02,
        "max_steps": 20,
        "eval_every": 20,
    }
    return make_spec(**facts | changes)


def study(*words: object) -> int:
    """The command line in this process; its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(["study", *map(str, words)])
    return stopped.value.code
