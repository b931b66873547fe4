"""The sweep that is printed for a row gives exactly the row's runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.records import RunSpec
from harness.sources import load_task_data
from harness.sweep import make_sweep, plan
from leaderboards.build import Row, rows_of
from leaderboards.reproduce import row_of, sweep_text
from tasks import get_task
from tests.conftest import ROOT, cli_environment
from tests.synthetic import Scores, fill, make_record

EVIL = "local:a\nseeds = [1]\n\x7f\"''\\"


def planned(
    data_dir: Path, flags: dict[str, Any], file: Path | None = None, model: str = "x"
) -> list[RunSpec]:
    sweep = make_sweep(flags, file)
    return plan(sweep, [load_task_data(get_task(name), data_dir) for name in sweep.task], model, "revision")


def rows(specs: list[RunSpec]) -> list[Row]:
    return rows_of([make_record(spec, Scores()) for spec in specs])


def ids(specs: list[RunSpec]) -> set[str]:
    return {spec.run_id for spec in specs}


@pytest.mark.parametrize(
    ("flags", "model"),
    [
        ({}, "roberta-large"),
        (
            {"method": "head", "seeds": (5,), "momentum": 0.99, "learning_rates": "1e-05,0.3333333333333333"},
            "a/b",
        ),
        ({"protocol": "lm-bff", "dropout": 0.0, "max_grad_norm": "none", "test_limit": "7"}, "package:m"),
        ({"precision": "bf16", "weight_decay": 1e-7, "warmup_steps": 3, "lr_schedule": "cosine"}, EVIL),
        ({"learning_rate_axis": "torch", "learning_rates": "1e-4,1e-3", "threads_per_run": 2}, "local:m"),
        ({"batch_size": 6, "gradient_accumulation_steps": 3, "max_steps": 9, "eval_every": 2}, "local:m"),
        ({"data_parallel_ranks": 4, "deterministic": True}, "local:m"),
    ],
)
def test_the_printed_sweep_plans_the_runs_of_the_row(toy_data: Path, tmp_path: Path, flags: dict, model: str):
    asked = {"task": "sst2", "k": 4, "optimizers": "sgd,sgdm,qhm,adamw"} | flags
    specs = planned(toy_data, asked, model=model)
    found = rows(specs)
    assert len(found) == 4
    for row in found:
        file = tmp_path / "sweep.toml"
        file.write_text(sweep_text(row), encoding="utf-8")
        again = planned(toy_data, {}, file, model)
        assert ids(again) == {run.spec.run_id for run in row.runs}
        assert {spec.optimizer for spec in again} == {row.columns["optimizer"]}
        assert make_sweep({}, file).model == model


def test_what_must_be_at_hand_is_said(toy_data: Path):
    (sgd,) = rows(planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"}, model="local:mine"))
    text = sweep_text(sgd)
    assert "# A folder named mine, given by --model PATH, with revision revision\n" in text
    assert f"# Data with fingerprint {sgd.columns['data_fingerprint']}, given by --data-dir DIR" in text
    assert "run --sweep sweep.toml --output-dir reproduced --model PATH --data-dir DIR\n" in text


def test_an_optimizer_of_somebodys_own_must_be_given(toy_data: Path):
    (spec, *_) = planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"})
    (row,) = rows([spec.model_copy(update={"optimizer": "mine@0123456789ab"})])
    assert "--optimizer-file FILE" in sweep_text(row)
    assert 'optimizers = ["mine@0123456789ab"]' in sweep_text(row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_version": "old"}, "task sst2 in version old, and this version"),
        ({"optimizer": "qhm", "hyperparameters": {"momentum": 0.9, "nu": 0.5}}, "qhm has hyperparameters"),
    ],
)
def test_what_this_version_would_run_otherwise_is_an_error(toy_data: Path, change: dict, message: str):
    (spec, *_) = planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"})
    (row,) = rows([spec.model_copy(update=change)])
    with pytest.raises(UserError, match=message):
        sweep_text(row)


def test_a_row_is_found_by_the_beginning_of_its_id(toy_data: Path):
    found = rows(planned(toy_data, {"task": "sst2", "k": 4}))
    assert row_of(found, found[0].row_id[:8]) is found[0]
    for wrong in ("", "no"):
        with pytest.raises(UserError, match=f"rows have an id that begins with '{wrong}': .*sst2 sgdm"):
            row_of(found, wrong)


def test_the_command_prints_a_file_without_torch(toy_data: Path, tmp_path: Path):
    specs = planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"})
    fill(tmp_path / "results", [make_record(spec, Scores()) for spec in specs])
    (row,) = rows(specs)
    code = (
        "import sys\nfrom harness.cli import main\n"
        "try: main()\nfinally: sys.stderr.write(str('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "reproduce", row.row_id, str(tmp_path / "results")],
        cwd=ROOT,
        env=cli_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "False")
    assert done.stdout == sweep_text(row)
