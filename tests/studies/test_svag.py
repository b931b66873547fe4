from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.seeds import batch_indices, derived_seed
from momentum_bench.harness.studies.svag import SvagSpec, plot, run_svag_cell, svag_cells, svag_coefficients
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.session import Session
from tests.helpers.specs import make_spec
from tests.helpers.studies import plain_run, study


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@given(st.integers(1, 1024))
def test_the_mean_is_kept_and_the_covariance_is_times_l(level: int):
    c1, c2 = svag_coefficients(level)
    assert c1 + c2 == pytest.approx(1, abs=1e-12)
    assert c1**2 + c2**2 == pytest.approx(level, rel=1e-12)
    assert c2 < c1


@given(
    level=st.sampled_from([1, 2, 4, 8, 16]),
    gradients=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=6),
)
def test_over_all_pairs_of_batches_mean_and_covariance_are_exact(level: int, gradients: list):
    """Two batches drawn independently from a finite set: every pair is equally likely."""
    c1, c2 = svag_coefficients(level)
    g = np.array(gradients)
    combined = np.array([c1 * a + c2 * b for a in g for b in g])
    np.testing.assert_allclose(combined.mean(axis=0), g.mean(axis=0), atol=1e-12)
    expected = level * np.cov(g.T, ddof=0)
    np.testing.assert_allclose(np.cov(combined.T, ddof=0), expected, atol=1e-10)


def test_coefficients_are_the_published_ones():
    assert svag_coefficients(1) == (1, 0)
    assert svag_coefficients(4) == pytest.approx((1.8228757, -0.8228757), abs=1e-7)
    assert svag_coefficients(8) == pytest.approx((2.4364917, -1.4364917), abs=1e-7)


def test_level_1_is_the_training_loop(session: Session, tmp_path: Path):
    cell = SvagSpec(sgd=plain_run(session), momentum=0.9, level=1, n_times=2)
    record = run_svag_cell(cell, session, models_at_a_time=2)
    sgdm = {"optimizer": "sgdm", "hyperparameters": {"momentum": 0.9}}
    for arm, change in zip(record.arms, ({}, sgdm), strict=True):
        alone = finetune(cell.sgd.model_copy(update=change), session, Journal(tmp_path / "run" / "journal"))
        assert alone.best_step == cell.sgd.max_steps
        assert arm.parameters_hash == alone.parameters_hash
        last = record.points[-1].model_dump()
        assert last[f"dev_loss_{arm.name}"] == pytest.approx(alone.best.dev_loss, rel=1e-5)
        assert last[f"dev_metric_{arm.name}"] == alone.best.dev_metric


def test_level_4_is_the_recipe(session: Session):
    """By hand: a gradient of each batch, combined; rate / 4, four times the steps, beta unchanged."""
    run = plain_run(session, max_steps=3, eval_every=3)
    cell = SvagSpec(sgd=run, momentum=0.9, level=4, n_times=3)
    record = run_svag_cell(cell, session, models_at_a_time=1)
    assert cell.steps == (4, 8, 12)
    assert [point.effective_step for point in record.points] == [1, 2, 3]
    c1, c2 = svag_coefficients(4)
    second = derived_seed(run.seed, "second batch")
    for arm, beta in zip(record.arms, (0.0, 0.9), strict=True):
        loaded, split = session.fresh_model(run), session.split(run)
        parameters = dict(loaded.model.named_parameters())
        buffers = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for step in range(12):
            combined = {}
            for seed, weight in ((run.seed, c1), (second, c2)):
                rows = batch_indices(seed, step, len(split.train.labels), run.batch_size)
                batch = split.train.batch(rows, 0, torch.device("cpu"))
                loss = torch.nn.functional.cross_entropy(logits(loaded, batch), batch.labels)
                found = torch.autograd.grad(loss, list(parameters.values()))
                for name, gradient in zip(parameters, found, strict=True):
                    combined[name] = combined.get(name, 0) + weight * gradient
            with torch.no_grad():
                for name, parameter in parameters.items():
                    buffers[name] = beta * buffers[name] + combined[name]
                    parameter -= run.learning_rate / 4 * (1 - beta) * buffers[name]
        moved = record.points[-1]
        dev = split.dev.batch(range(len(split.dev.labels)), 0, torch.device("cpu"))
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(logits(loaded, dev), dev.labels).item()
        assert getattr(moved, f"dev_loss_{arm.name}") == pytest.approx(expected, rel=1e-4)
        assert arm.torch_learning_rate == pytest.approx(0.02 / 4 * (1 - beta))


def test_levels_and_times_of_cells():
    cells = svag_cells([make_spec(max_steps=30)], 0.5, (8, 1), 6)
    assert [cell.level for cell in cells] == [1, 8]
    assert cells[0].steps == (5, 10, 15, 20, 25, 30)
    assert cells[1].steps == (40, 80, 120, 160, 200, 240)
    assert svag_cells([make_spec(max_steps=10)], 0.0, (1,), 60)[0].n_times == 10
    with pytest.raises(UserError, match="--steps 99 is too short"):
        svag_cells([make_spec(max_steps=99)], 0.9, (1, 8), 6)


def test_the_command_end_to_end(tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["svag", "--task", "sst2", "--model", tiny_model, "--method", "head", "--data-dir", toy_data]
    words += ["--levels", "1,2", "--steps", 10, "--momentum", 0]
    assert study(*words, "--max-grad-norm", 1) == 2
    assert "--max-grad-norm 1: clipping" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()
    assert study(*words, "--max-grad-norm", "none") == 0
    rows = list(csv.DictReader((tmp_path / "results" / "studies" / "svag.csv").read_text().splitlines()))
    assert [(row["level"], row["effective_step"]) for row in rows] == [
        (level, step) for level in "12" for step in ("2", "4", "6", "8", "10")
    ]
    assert "l = 2" in (tmp_path / "results" / "studies" / "svag.svg").read_text()
    assert study(*words) == 0
    assert "2 cells, 2 of them already there" in capfd.readouterr().err


@pytest.mark.parametrize("levels", ["0,1", "2,2", "1.5", "many"])
def test_levels_that_cannot_be(levels: str, capfd):
    assert study("svag", "--levels", levels) == 2
    assert f"--levels {levels}: expected different whole numbers from 1" in capfd.readouterr().err


def test_divergence_is_a_result(session: Session):
    cell = SvagSpec(sgd=plain_run(session, learning_rate=1e30), momentum=0.9, level=2, n_times=2)
    record = run_svag_cell(cell, session, models_at_a_time=1)
    assert (record.status, record.points) == ("diverged", ())
    assert "<svg" in plot([record])
