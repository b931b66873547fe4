"""A sweep that tunes momentum and batch size too, through the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from momentum_bench.harness.records.store import Store
from tests.helpers.sweeps import small_sweep, table

AXES = ("--seeds", "13", "--output-dir", "out", "--batch-size", "2,4")


def test_the_best_of_the_product_is_the_result_and_equal_searches_are_compared(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
) -> None:
    lists = (*AXES, "--momentum", "0.5,0.9,0.99", "--learning-rates", "0.1")
    sweep = small_sweep(tiny_model, toy_data)
    planned = command_here("run", *sweep, *lists, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "sgdm batch_size=4 momentum=0.99" in planned.stdout
    assert max(map(len, planned.stdout.splitlines())) <= 80

    done = command_here("run", *sweep, *lists, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    sgdm = [run for run in Store(tmp_path / "out").records() if run.spec.optimizer == "sgdm"]
    assert len(sgdm) == 6
    best = min(
        (run for run in sgdm if run.best), key=lambda r: (-r.best.dev_metric, r.best.dev_loss, r.spec.point)
    )
    rows = {row["optimizer"]: row for row in table(tmp_path / "out" / "leaderboard.csv")}
    assert rows["sgdm"]["chosen_runs"] == best.spec.run_id
    assert rows["sgdm"]["chosen_settings"] == best.spec.point.settings_text
    assert rows["sgdm"]["axes"] == "batch_size=2/4 momentum=0.5/0.9/0.99"
    assert rows["sgd"]["axes"] == "batch_size=2/4"
    told = " ".join(done.stdout.split())
    assert f"Dev chose rate 0.1 ({best.spec.point.settings_text}) on seed 13." in told
    assert f"an end of an axis: {rows['sgdm']['ends'].replace(' ', ', ')};" in told
    assert "2 points (learning rates 0.1; batch_size=2/4) for sgd" in told
    assert "Run the one with fewer points alone" in told
    status = command_here("status", "out")
    assert "sgdm batch_size=2 momentum=0.5" in status.stdout
    assert "8 done" in status.stdout

    # what the sentence says to type: SGD with as many points
    more = ("--optimizers", "sgd", "--learning-rates", "0.03,0.1,0.3")
    assert command_here("run", *sweep, *AXES, *more).returncode == 0
    [pair] = table(tmp_path / "out" / "comparison.csv")
    assert (pair["n_pairs"], pair["no_verdict"]) != ("0", "their search budgets differ on all seeds")
    assert pair["n_pairs"] == "1"
    checked = command_here("leaderboard", "check", "out")
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_equally_many_trials_of_each_optimizer_are_compared(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
) -> None:
    lists = (*AXES, "--momentum", "0.5,0.9,0.99", "--learning-rates", "0.1,0.3", "--trials", "3")
    done = command_here("run", *small_sweep(tiny_model, toy_data), *lists)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out" / "leaderboard.csv")
    assert [(row["optimizer"], row["n_runs"], row["n_missing"]) for row in rows] == [
        ("sgd", "3", "0"),
        ("sgdm", "3", "0"),
    ]
    [pair] = table(tmp_path / "out" / "comparison.csv")
    assert pair["n_pairs"] == "1"
    assert command_here("leaderboard", "check", "out").returncode == 0


def test_a_sweep_of_more_than_ten_thousand_runs_needs_a_word(
    command_here, tiny_model: Path, toy_data: Path
) -> None:
    many = ",".join(f"{place / 10_000:g}" for place in range(9000))
    words = small_sweep(tiny_model, toy_data, "--momentum", many, "--dry-run")
    refused = command_here("run", *words)
    assert refused.returncode == 2
    assert "more than 10,000" in refused.stderr
    assert "--yes" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_confirming_seeds_confirm_the_chosen_point_of_all_axes(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
) -> None:
    words = list(map(str, small_sweep(tiny_model, toy_data)))
    words[words.index("--seeds") : words.index("--seeds") + 2] = [
        "--tune-seeds",
        "13",
        "--confirm-seeds",
        "3",
    ]
    words[words.index("--batch-size") + 1] = "2,4"
    words += ["--batch-size-keeps", "examples", "--max-steps", "4", "--eval-every", "2"]
    words += ["--optimizers", "sgd,qhm", "--tune", "qhm:nu=0.5,0.9", "--learning-rates", "0.1"]
    done = command_here("run", *words, "--output-dir", "out", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "1 tuning seeds = 6 runs" in done.stderr
    assert "then 3 confirming seeds, at the chosen point alone" in done.stderr
    rows = {(row["role"], row["optimizer"]): row for row in table(tmp_path / "out" / "leaderboard.csv")}
    sgd, qhm = rows["matched", "sgd"], rows["matched", "qhm"]
    assert qhm["axes"].split(" ")[0] == sgd["axes"]  # one batch size for both
    assert set(qhm["chosen_settings"].split(";")) == {qhm["axes"]}
    assert qhm["axes"] in (
        "batch_size=2 nu=0.5",
        "batch_size=2 nu=0.9",
        "batch_size=4 nu=0.5",
        "batch_size=4 nu=0.9",
    )
    assert "max_steps=8/batch_size" in qhm["protocol"]
    told = " ".join(done.stdout.split())
    own = qhm["axes"].split(" ")[1]
    assert f"Do SGD and QHM ({own}) differ at one effective learning rate, 0.1 ({sgd['axes']})" in told
    runs = [run.spec for run in Store(tmp_path / "out").records()]
    assert {(spec.batch_size, spec.max_steps, spec.eval_every) for spec in runs} == {(2, 4, 2), (4, 2, 1)}
    assert len(runs) == 6 + 2 * 3
    assert command_here("leaderboard", "check", "out").returncode == 0
    # the runs of a confirming seed are found again in a sweep with the same axes
    again = command_here("reproduce", qhm["row_id"], "out", "--run", "again", *words[2:6])
    assert again.returncode == 0, again.stderr
    assert f"row {qhm['row_id']}, 3 runs: no difference(s)" in again.stderr
