"""Results directories of made-up records, as somebody would submit them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from momentum_bench.harness.records.files import checksum
from momentum_bench.harness.records.schema import DevPredictions, RunRecord, RunSpec
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.tables import csv_tables
from tests.helpers.synthetic import Scores, fill, make_record, make_spec

N_TEST, N_DEV = 50, 100
SEEDS, RATES = (13, 21, 42), (0.01, 0.1)


def whole_record(spec: RunSpec) -> RunRecord:
    """A made-up record in which everything fits: scores, checkpoints, and what ran."""
    n_right = 30 + spec.seed % 7 + (spec.optimizer == "sgdm") + round(30 * spec.learning_rate)
    made = make_record(spec, Scores(test_metric=n_right / N_TEST, dev_metric=0.7 + spec.learning_rate))
    assert made.read_back
    assert made.split
    assert made.test
    momentum = spec.hyperparameters.get("momentum", 0.0)
    rate = spec.learning_rate * round(1 - momentum, 12)
    group = {"lr": rate, "momentum": momentum, "dampening": 0, "nesterov": False, "weight_decay": 0.0}
    first = made.evaluations[0].model_copy(update={"step": 500, "dev_metric": 0.6})
    return made.model_copy(
        update={
            "evaluations": (first, *made.evaluations),
            "read_back": made.read_back.model_copy(
                update={"torch_learning_rate": rate, "param_groups": (group,)}
            ),
            "split": made.split.model_copy(update={"n_dev": N_DEV, "n_test": N_TEST}),
            "dev": dev_predictions(round(N_DEV * made.evaluations[0].dev_metric)),
            "test": made.test.model_copy(
                update={
                    "rows": tuple(range(N_TEST)),
                    "labels": (1,) * N_TEST,
                    "predictions": (1,) * n_right + (0,) * (N_TEST - n_right),
                }
            ),
        }
    )


def dev_predictions(n_right: int) -> DevPredictions:
    """Dev predictions of two classes, of which the first so many are right."""
    labels = tuple(row % 2 for row in range(N_DEV))
    wrong = tuple(1 - label for label in labels[n_right:])
    return DevPredictions(labels=labels, predictions=labels[:n_right] + wrong)


def specs() -> list[RunSpec]:
    arms: dict[str, dict[str, float]] = {"sgd": {}, "sgdm": {"momentum": 0.9}}
    return [
        make_spec(seed=seed, learning_rate=rate, optimizer=name, hyperparameters=used, eval_every=500)
        for seed in SEEDS
        for rate in RATES
        for name, used in arms.items()
    ]


def submission(folder: Path, records: list[RunRecord]) -> Path:
    """Records and the tables built of them, in one folder."""
    board = build(fill(folder, records))
    for name, text in csv_tables(board).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def first_record(folder: Path) -> Path:
    return sorted(folder.glob("runs/*/record.json"))[0]


Change = Callable[[dict[str, Any]], object]


def forge(folder: Path, change: Change) -> str:
    """Change a record and give it a checksum that fits; its path within the folder."""
    path = first_record(folder)
    fields = json.loads(path.read_text())
    del fields["checksum"]
    change(fields)
    fields["checksum"] = checksum(fields)
    path.write_text(json.dumps(fields) + "\n")
    return str(path.relative_to(folder))
