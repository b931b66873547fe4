from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from scipy.stats import ttest_1samp

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.studies.batch_size import (
    BatchSizePoint,
    BatchSizeRecord,
    BatchSizeSpec,
    batch_size_cells,
    conclusion,
    gap_table,
    gaps,
    mean_gaps,
    plot,
    run_batch_size_cell,
)
from momentum_bench.harness.studies.gradient_noise import GradientNoise
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from tests.helpers.specs import make_record, make_spec
from tests.helpers.studies import plain_run, study


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.mark.parametrize("size", [2, 8])
def test_arms_are_the_runs_of_the_training_loop(session: Session, tmp_path: Path, size: int):
    run = plain_run(session, batch_size=size)
    record = run_batch_size_cell(
        BatchSizeSpec(sgd=run, momentum=0.5, n_times=2, n_examples=64), session, models_at_a_time=2
    )
    sgdm = {"optimizer": "sgdm", "hyperparameters": {"momentum": 0.5}}
    for arm, change in zip(record.arms, ({}, sgdm), strict=True):
        alone = finetune(run.model_copy(update=change), session, Journal(tmp_path / "run" / "journal"))
        assert arm.parameters_hash == alone.parameters_hash
        end = record.end(arm.name)
        assert end.dev_loss == pytest.approx(alone.best.dev_loss, rel=1e-5)
        assert end.dev_metric == alone.best.dev_metric
    assert [(p.arm, p.step) for p in record.points] == [("sgd", 10), ("sgd", 20), ("sgdm", 10), ("sgdm", 20)]


def test_one_arm_may_diverge_alone(session: Session, monkeypatch):
    run = plain_run(session, learning_rate=1e30, max_steps=4, eval_every=4)
    record = run_batch_size_cell(
        BatchSizeSpec(sgd=run, momentum=0.5, n_times=2, n_examples=4), session, models_at_a_time=1
    )
    assert record.status == "diverged"
    assert "training loss of sgd not finite" in record.failure
    assert gaps([record])[0].train is None
    assert "<svg" in plot([record])
    assert conclusion(mean_gaps(gaps([record]))).startswith("No batch size")


def test_cells_cover_sizes_and_the_whole_set():
    specs = [make_spec(seed=seed, max_steps=100) for seed in (13, 21)]
    cells = batch_size_cells(specs, (4, 1, None, 20), 20, 0.9, 4, 64)
    assert [(c.sgd.batch_size, c.sgd.seed) for c in cells] == [(b, s) for b in (1, 4, 20) for s in (13, 21)]
    assert cells[0].steps == (25, 50, 75, 100)
    with pytest.raises(UserError, match="--batch-sizes 21: the training set has 20 examples"):
        batch_size_cells(specs, (1, 21), 20, 0.9, 4, 64)
    with pytest.raises(UserError, match=r"--steps 100 is too short: momentum 0.95 needs 200"):
        batch_size_cells(specs, (1,), 20, 0.95, 4, 64)


def made_record(size: int, seed: int, eta: float, sgd: float | None, sgdm: float | None) -> BatchSizeRecord:
    """A finished cell with given final train losses (None: diverged); dev losses are 1 above."""
    run = make_spec(batch_size=size, seed=seed, learning_rate=eta, max_steps=100)
    points = [
        BatchSizePoint(
            arm=arm,
            step=step,
            gradient=GradientNoise(
                train_loss=loss * factor, gradient_norm=2.0, variance=4.0 * factor, n_examples=8
            ),
            dev_loss=loss * factor + 1,
            dev_metric=0.5,
        )
        for arm, loss in (("sgd", sgd), ("sgdm", sgdm))
        if loss is not None
        for step, factor in ((50, 2.0), (100, 1.0))
    ]
    return BatchSizeRecord(
        spec=BatchSizeSpec(sgd=run, momentum=0.9, n_times=2, n_examples=8),
        metric="accuracy",
        status="diverged" if None in (sgd, sgdm) else "done",
        failure=None,
        points=tuple(points),
        arms=(),
        split=make_record().split,
        run_seconds=1.0,
        environment={},
    )


def test_the_gap_is_between_the_best_rates_by_train_loss():
    records = [
        made_record(4, 13, 0.01, 0.5, 0.6),
        made_record(4, 13, 0.1, 0.2, 0.3),
        made_record(4, 13, 1.0, None, 0.1),
        made_record(1, 13, 0.1, 0.2, 0.2),
        made_record(1, 13, 0.01, 0.2, 0.3),
        made_record(1, 13, 1.0, None, None),
    ]
    small, large = gaps(records)
    assert (small.eta_sgd, small.eta_sgdm, small.train, small.edge) == (0.01, 0.1, 0.0, True)
    assert (large.batch_size, large.eta_sgd, large.eta_sgdm) == (4, 0.1, 1.0)
    assert large.train == pytest.approx(-0.1)
    assert large.dev == pytest.approx(-0.1)
    assert large.edge
    assert (large.noise_scale_first, large.noise_scale_last) == (2, 1)
    table = gap_table([small, large])
    assert table[3].split() == [
        "4",
        "2.0",
        "1.0",
        "0.1",
        "1",
        *["0.2000", "0.1000", "-0.1000", "-0.1000", "none", "*"],
    ]
    assert table[-1].startswith("* a best rate is at the edge")


def test_intervals_are_paired_t_intervals_and_need_three_seeds():
    losses = {13: (0.5, 0.3), 21: (0.6, 0.5), 42: (0.4, 0.35)}
    records = [made_record(4, seed, 0.1, *pair) for seed, pair in losses.items()]
    mean = mean_gaps(gaps(records))[0]
    interval = ttest_1samp([b - a for a, b in losses.values()], 0).confidence_interval(0.95)
    assert (mean.n, mean.low, mean.high) == pytest.approx((3, interval.low, interval.high))
    two = mean_gaps(gaps(records[:2]))
    assert two[0].low is None
    assert "Too few seeds for an interval (2; 3 are needed)" in conclusion(two)


@pytest.mark.parametrize(
    ("differences", "sentence"),
    [
        ({1: 0.0, 4: -0.5, 8: -0.6}, "From batch size 4 on, momentum pays"),
        (
            {1: 0.0, 4: -0.5, 8: 0.0},
            "No batch size is shown from which momentum pays up to the largest one. It pays at 4,",
        ),
        ({1: 0.1, 4: 0.2}, "No batch size is shown from which momentum pays up to the largest one."),
    ],
)
def test_the_sentence_follows_the_intervals(differences: dict[int, float], sentence: str):
    records = [
        made_record(size, seed, 0.1, 1.0, 1.0 + gap + spread)
        for size, gap in differences.items()
        for seed, spread in ((13, -0.01), (21, 0.0), (42, 0.01))
    ]
    assert sentence in conclusion(mean_gaps(gaps(records)))


def test_the_command_end_to_end(tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["batch-size", "--task", "sst2", "--model", tiny_model, "--method", "head"]
    words += [
        "--data-dir",
        toy_data,
        "--momentum",
        0.5,
        "--steps",
        20,
        "--learning-rates",
        "0.01,0.1",
        "--k",
        2,
    ]
    assert study(*words, "--batch-sizes", "1,5") == 2
    assert "--batch-sizes 5: the training set has 4 examples" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()
    assert study(*words, "--batch-sizes", "1,full") == 0
    out = capfd.readouterr().out
    assert "Too few seeds for an interval (1; 3 are needed)" in out
    folder = tmp_path / "results" / "studies"
    rows = list(csv.DictReader((folder / "batch_size.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2 * 2  # sizes x rates x arms x times
    for row in rows:
        expected = float(row["variance"]) / float(row["gradient_norm"]) ** 2
        assert math.isclose(float(row["noise_scale"]), expected, rel_tol=1e-6)
    sizes = [
        row["batch_size"] for row in csv.DictReader((folder / "batch_size_gaps.csv").read_text().splitlines())
    ]
    assert sizes == ["1", "4"]
    assert study(*words, "--batch-sizes", "1,full") == 0
    assert "4 cells, 4 of them already there" in capfd.readouterr().err


@pytest.mark.parametrize("sizes", ["0,1", "2,2", "1.5", "all", "full,full"])
def test_batch_sizes_that_cannot_be(sizes: str, capfd):
    assert study("batch-size", "--batch-sizes", sizes) == 2
    assert f"--batch-sizes {sizes}: expected different whole numbers from 1" in capfd.readouterr().err
