"""The sweep that is printed for a row gives exactly the row's runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.leaderboards.reproduce import circumstances, differences, row_of, sweep_text
from momentum_bench.leaderboards.rows import Row, rows_of
from momentum_bench.tasks import get_task
from tests.conftest import ROOT, cli_environment, sentiment_rows, write_rows
from tests.helpers.litter import leave_litter
from tests.helpers.published import BOARDS, PUBLISHED, published_board
from tests.helpers.synthetic import Scores, fill, make_record

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
        ({"cuda_graphs": True}, "local:m"),
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
    assert "# Add --model PATH, a folder named mine with revision revision\n" in text
    assert f"# Data with fingerprint {sgd.columns['data_fingerprint']}, from a folder: --data-dir DIR" in text
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
        ({"optimizer": "qhm", "hyperparameters": {"momentum": 0.9}}, "qhm has hyperparameters"),
    ],
)
def test_what_this_version_would_run_otherwise_is_an_error(toy_data: Path, change: dict, message: str):
    (spec, *_) = planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"})
    (row,) = rows([spec.model_copy(update=change)])
    with pytest.raises(UserError, match=message):
        sweep_text(row)


@pytest.mark.parametrize(
    ("optimizer", "used", "arm"),
    [
        ("qhm", {"momentum": 0.8, "nu": 0.5}, "qhm:nu=0.5"),
        ("torch.optim.NAdam@2.13.0", {"betas": (0.8, 0.9)}, "torch.optim.NAdam@2.13.0:betas=0.8/0.9"),
    ],
)
def test_the_settings_of_an_arm_are_in_its_sweep_file(toy_data: Path, optimizer: str, used: dict, arm: str):
    (spec, *_) = planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"})
    (row,) = rows([spec.model_copy(update={"optimizer": optimizer, "hyperparameters": used})])
    assert f'optimizers = ["{arm}"]' in sweep_text(row)
    assert "--optimizer-file" not in sweep_text(row)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("origin", "protocol", "revision"),
    [
        (f"nyu-mll/glue (sst2) @ {COMMIT}", "mezo", COMMIT),
        (f"SetFit/sst2 @ {COMMIT}", "lm-bff", COMMIT),
        (f"nyu-mll/glue (sst2) @ {COMMIT}", "lm-bff", None),  # of another data set than it is read from today
        ("folder", "mezo", None),
    ],
)
def test_the_recorded_revisions_of_model_and_data_are_in_the_sweep_file(
    origin: str, protocol: str, revision: str | None, toy_data: Path, tmp_path: Path
):
    asked = {"task": "sst2", "k": 4, "optimizers": "sgd", "protocol": protocol}
    spec = planned(toy_data, asked, model="roberta-large")[0].model_copy(update={"model_revision": COMMIT})
    record = make_record(spec, Scores())
    assert record.split
    split = record.split.model_copy(update={"origin": origin})
    [row] = rows_of([record.model_copy(update={"split": split})])
    (tmp_path / "sweep.toml").write_text(sweep_text(row), encoding="utf-8")
    sweep = make_sweep({}, tmp_path / "sweep.toml")
    assert (sweep.model, sweep.data_revision) == (f"roberta-large@{COMMIT}", revision)


def test_how_the_rows_were_read_is_in_the_sweep_file(toy_data: Path, tmp_path: Path):
    record = make_record(planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd"})[0], Scores())
    assert record.split
    split = record.split.model_copy(update={"origin": "folder, --tsv quoted"})
    [row] = rows_of([record.model_copy(update={"split": split})])
    (tmp_path / "sweep.toml").write_text(sweep_text(row), encoding="utf-8")
    assert make_sweep({"data_dir": str(toy_data)}, tmp_path / "sweep.toml").tsv == "quoted"


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
        "import sys\nfrom momentum_bench.harness.cli.main import main\n"
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


@pytest.fixture(scope="module")
def small_row(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Data, a results directory with one row of really run runs, and the row's id."""
    folder = tmp_path_factory.mktemp("small")
    write_rows(folder / "data" / "sst2" / "train.jsonl", sentiment_rows(40))
    write_rows(folder / "data" / "sst2" / "validation.jsonl", sentiment_rows(64)[40:])
    words = [
        "run",
        "--task",
        "sst2",
        "--method",
        "head",
        "--k",
        "4",
        "--seeds",
        "13,21",
        "--optimizers",
        "sgdm",
    ]
    words += ["--learning-rates", "0.1,0.3", "--max-steps", "4", "--eval-every", "2", "--runs-at-a-time", "1"]
    words += ["--model", str(tiny_model), "--data-dir", str(folder / "data"), "--runs-at-a-time", "1"]
    done = CliRunner().invoke(app, [*words, "--output-dir", str(folder / "results")])
    assert done.exit_code == 0, done.stderr
    (row,) = rows_of(Store(folder / "results").records())
    return folder / "data", folder / "results", row.row_id


def again(results: Path, into: Path, row_id: str, tiny_model: Path, data: Path) -> Result:
    words = ["reproduce", row_id, str(results), "--run", str(into), "--model", str(tiny_model)]
    return CliRunner().invoke(app, [*words, "--data-dir", str(data), "--runs-at-a-time", "1"])


def test_a_row_is_run_again_and_comes_out_the_same(
    small_row: tuple[Path, Path, str], tiny_model: Path, tmp_path: Path
):
    data, results, row_id = small_row
    (tmp_path / "again").mkdir()
    leave_litter(tmp_path / "again")  # a file manager has looked into the new directory
    done = again(results, tmp_path / "again", row_id, tiny_model, data)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"row {row_id}, 4 runs: no difference(s)"
    assert "rounds differently" not in done.stderr
    first, second = (Store(folder).records() for folder in (results, tmp_path / "again"))
    assert [r.parameters_hash for r in first] == [r.parameters_hash for r in second]
    # what came out otherwise is named; the directory is gone on with, for it is the same sweep's
    spoiled = shutil.copytree(results, tmp_path / "spoiled")
    record = first[0]
    assert record.test
    assert record.best
    test = record.test.model_copy(update={"metric": record.test.metric + 0.25})
    changed = {"test": test, "parameters_hash": "0" * 32, "environment": {"torch": "0.1"}}
    Store(spoiled).write(record.model_copy(update=changed))
    done = again(spoiled, tmp_path / "again", row_id, tiny_model, data)
    assert done.exit_code == 1
    line = done.stdout.splitlines()[-1]
    assert line.startswith(f"{record.spec.label}: test ")
    assert line.endswith("(-0.25), different parameters")
    assert "torch: 0.1, now " in done.stderr
    assert "Another processor or version rounds differently" in done.stderr
    done = again(results, results, row_id, tiny_model, data)
    assert done.exit_code == 2
    assert "exists and is not empty" in done.stderr


def test_other_data_is_named_before_anything_is_run(
    small_row: tuple[Path, Path, str], tiny_model: Path, tmp_path: Path
):
    _, results, row_id = small_row
    write_rows(tmp_path / "data" / "sst2" / "train.jsonl", sentiment_rows(38))
    write_rows(tmp_path / "data" / "sst2" / "validation.jsonl", sentiment_rows(64)[40:])
    done = again(results, tmp_path / "again", row_id, tiny_model, tmp_path / "data")
    assert done.exit_code == 2
    assert "was run with something else" in done.stderr
    assert "data_fingerprint is " in done.stderr
    assert not (tmp_path / "again").exists()
    done = CliRunner().invoke(app, ["reproduce", row_id, str(results), "--run", str(tmp_path / "again")])
    assert done.exit_code == 2
    assert "add --model PATH" in done.stderr


def test_each_way_in_which_runs_may_differ_is_named(toy_data: Path):
    specs = planned(toy_data, {"task": "sst2", "k": 4, "optimizers": "sgd", "seeds": (13,)})
    first = [make_record(s, Scores(0.9 if s == specs[1] else 0.5)) for s in specs]
    (row,) = rows_of(first)
    assert differences(row, first) == []
    assert circumstances(row, first) == []
    second = [
        make_record(
            s, Scores(0.9 if s.learning_rate == specs[2].learning_rate else 0.5), {"padding": "packed"}
        )
        for s in specs[:-1]
    ]
    second[0] = make_record(specs[0], Scores(status="failed"))
    found = differences(row, second)
    moved = "done, now failed (made up), best step 1000, now None, different parameters"
    assert f"{specs[0].label}: {moved}" in found
    assert f"{specs[1].label}: dev 0.9, now 0.5 (-0.4)" in found
    assert f"{specs[2].label}: dev 0.5, now 0.9 (+0.4)" in found
    assert f"{specs[-1].label}: was not run again" in found
    assert f"seed 13: dev chose rate {specs[1].learning_rate:g}, now {specs[2].learning_rate:g}" in found
    assert circumstances(row, second)[-1] == "torch: 2.13.0, now none"
    assert "layout padding: dynamic, now packed" in circumstances(row, second)


@pytest.mark.parametrize("name", BOARDS)
def test_a_row_of_each_role_of_a_published_board_is_found_by_its_id(name: str):
    """Also a row of confirming seeds, which a design tells apart from tuning seeds."""
    for row in {row.role: row for row in published_board(name).rows}.values():
        text = sweep_of(row.row_id, PUBLISHED / name)
        found = tomllib.loads(text)
        assert found["seeds"] == sorted({run.spec.seed for run in row.runs})
        assert found["learning_rates"] == sorted({run.spec.learning_rate for run in row.runs})


def sweep_of(row_id: str, board: Path) -> str:
    done = CliRunner().invoke(app, ["reproduce", row_id, str(board)])
    assert done.exit_code == 0, done.stderr
    return done.stdout
