from __future__ import annotations

import csv
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock, Timeout
from scipy.stats import t

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.files import read_record, write_record
from momentum_bench.harness.records.store import LOCK, Journal, Store
from momentum_bench.harness.studies import arms
from momentum_bench.harness.studies import study as study_file
from momentum_bench.harness.studies.arms import disagreement, mean_kl, separation
from momentum_bench.harness.studies.closeness import (
    CLOSENESS,
    ClosenessRecord,
    ClosenessSpec,
    Comparison,
    closeness_cells,
    control_distance,
    fit_slopes,
    plot,
    run_closeness_cell,
)
from momentum_bench.harness.studies.study import Table, run_study, study_sweep
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from tests.conftest import SOURCES, cli_environment
from tests.helpers.specs import make_record, make_spec
from tests.helpers.studies import plain_run, study


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.fixture
def cell(session: Session) -> ClosenessSpec:
    return ClosenessSpec(sgd=plain_run(session), momenta=(0.0, 0.5), n_times=4, n_dev=2)


def test_arms_are_the_runs_of_the_training_loop(session: Session, cell: ClosenessSpec, tmp_path: Path):
    record = run_closeness_cell(cell, session, models_at_a_time=2)
    hashes = {arm.name: arm.parameters_hash for arm in record.arms}
    for name, momentum in (("sgd", None), ("sgdm 0", 0.0), ("sgdm 0.5", 0.5)):
        change = {} if momentum is None else {"optimizer": "sgdm", "hyperparameters": {"momentum": momentum}}
        alone = finetune(cell.sgd.model_copy(update=change), session, Journal(tmp_path / "run" / "journal"))
        assert alone.best_step == cell.sgd.max_steps  # the only checkpoint
        assert hashes[name] == alone.parameters_hash
    facts = {arm.name: arm for arm in record.arms}
    assert facts["sgdm 0.5"].torch_learning_rate == pytest.approx(0.01)
    assert facts["sgdm 0.5"].state_tensors == ("momentum_buffer",)
    assert facts["sgd, independent"].order_seed != facts["sgd"].order_seed
    assert len(set(hashes.values())) == 3  # SGD, which the control repeats; SGDM; SGD in another order


def test_what_is_compared_is_what_the_arms_are(session: Session, cell: ClosenessSpec):
    record = run_closeness_cell(cell, session, models_at_a_time=1)
    assert record.status == "done"
    found = {(c.momentum, c.batches, c.step): c for c in record.comparisons}
    assert {step for *_, step in found} == {5, 10, 15, 20}
    assert control_distance([record]) == 0
    for (momentum, batches, step), c in found.items():
        assert c.effective_time == pytest.approx(0.02 * step)
        assert c.relative_distance == c.distance / c.displacement_sgdm
        assert (c.dev_kl is not None) == (step in (10, 20))
        if momentum == 0 and batches == "common":
            assert c.cosine == pytest.approx(1)
            assert c.dev_kl in (None, 0)
        else:
            assert c.distance > 0
            # the law of cosines ties the four numbers together
            a, b = c.displacement_sgd, c.displacement_sgdm
            assert c.distance**2 == pytest.approx(a * a + b * b - 2 * a * b * c.cosine, rel=1e-3)
    assert found[0.5, "common", 20].distance < found[0.5, "independent", 20].distance


def test_the_number_of_models_at_a_time_changes_nothing(session: Session, cell: ClosenessSpec):
    one, three = (run_closeness_cell(cell, session, models_at_a_time) for models_at_a_time in (1, 3))
    assert one.comparisons == three.comparisons
    assert one.arms == three.arms


def test_what_the_process_computed_before_changes_nothing(session: Session, cell: ClosenessSpec):
    once = run_closeness_cell(cell, session, models_at_a_time=1)
    precision = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    try:
        again = run_closeness_cell(cell, session, models_at_a_time=1)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(precision)
    assert again.arms == once.arms


def test_paths_come_closer_with_the_rate(session: Session):
    specs = [plain_run(session, learning_rate=rate) for rate in (0.0005, 0.001, 0.002)]
    cells = closeness_cells(specs, (0.5,), n_times=4, n_dev=1)
    records = [run_closeness_cell(cell, session, models_at_a_time=2) for cell in cells]
    distances = [record.typical_distance(0.5, "common") for record in records]
    assert distances == sorted(distances)
    assert distances[0] < distances[2] / 2


def test_divergence_is_a_result_and_outside_the_fit(session: Session):
    spec = ClosenessSpec(sgd=plain_run(session, learning_rate=1e30), momenta=(0.5,), n_times=4, n_dev=2)
    record = run_closeness_cell(spec, session, models_at_a_time=1)
    assert record.status == "diverged"
    assert "not finite at step" in record.failure
    assert fit_slopes([record])[0].n == 0
    assert "<svg" in plot([record])


def test_dropout_that_cannot_be_turned_off_is_refused(session: Session, cell: ClosenessSpec):
    session.loaded(cell.sgd).model.add_module("another", torch.nn.Dropout(0.3))
    with pytest.raises(UserError, match=r"keeps \[0\.3\]"):
        run_closeness_cell(cell, session, models_at_a_time=1)


def test_cells_share_the_horizon_and_the_control_is_at_the_largest_rate():
    specs = [make_spec(learning_rate=rate, max_steps=100) for rate in (0.01, 0.015, 0.03)]
    cells = closeness_cells(specs, (0.0, 0.9), 4, 2)
    assert [cell.sgd.max_steps for cell in cells] == [300, 200, 100]
    assert [cell.momenta for cell in cells] == [(0.9,), (0.9,), (0.0, 0.9)]
    assert cells[0].steps == (75, 150, 225, 300)
    assert cells[0].dev_steps == (150, 300)
    assert len({cell.cell_id for cell in cells}) == 3


def test_a_horizon_too_short_for_the_momentum_is_refused():
    with pytest.raises(UserError, match=r"--steps 999 is too short.*Pass --steps 1000"):
        closeness_cells([make_spec(max_steps=999)], (0.0, 0.99), 4, 2)
    closeness_cells([make_spec(max_steps=1000)], (0.0, 0.99), 4, 2)


def power_law(rate: float, momentum: float, exponent: float, factor: float = 1.0) -> ClosenessRecord:
    """A finished cell whose relative distance is factor * (rate / (1 - momentum))^exponent throughout."""
    distance = factor * (rate / (1 - momentum)) ** exponent
    sgd = make_spec(learning_rate=rate, max_steps=100)
    base = {"displacement_sgd": 2.0, "displacement_sgdm": 2.0, "cosine": 0.5}
    dev = dict.fromkeys(("dev_disagreement", "dev_kl", "dev_loss_sgd", "dev_loss_sgdm"))
    comparisons = [
        Comparison(
            momentum=beta,
            batches=batches,
            step=step,
            effective_time=rate * step,
            distance=2 * value,
            relative_distance=value,
            **base,
            **dev,
        )
        for beta, value in ((0.0, 0.0), (momentum, distance))
        for batches in ("common", "independent")
        for step in (25, 100)
    ]
    return ClosenessRecord(
        spec=ClosenessSpec(sgd=sgd, momenta=(0.0, momentum), n_times=4, n_dev=2),
        status="done",
        failure=None,
        comparisons=tuple(comparisons),
        arms=(),
        split=make_record().split,
        run_seconds=1.0,
        environment={},
    )


def test_the_slope_of_a_power_law_is_its_exponent():
    records = [power_law(rate, beta, 0.8) for rate in (0.01, 0.02, 0.05) for beta in (0.5, 0.9)]
    slopes = [slope for slope in fit_slopes(records) if slope.batches == "common"]
    assert [(s.against, s.momentum, s.n) for s in slopes] == [
        ("eta", 0.5, 3),
        ("eta", 0.9, 3),
        ("eta / (1 - beta)", None, 6),
    ]
    for slope in slopes:
        assert (slope.slope, slope.low, slope.high) == pytest.approx((0.8, 0.8, 0.8), abs=1e-6)


def test_the_interval_of_a_slope_is_students():
    factors = (1.0, 1.3, 0.9, 1.1)
    rates = (0.01, 0.02, 0.04, 0.08)
    records = [power_law(rate, 0.5, 1.0, factor) for rate, factor in zip(rates, factors, strict=True)]
    slope = fit_slopes(records)[0]
    # least squares by hand, 2 degrees of freedom left
    x = [math.log(rate) for rate in rates]
    y = [math.log(factor * rate / 0.5) for rate, factor in zip(rates, factors, strict=True)]
    mean_x, mean_y = sum(x) / 4, sum(y) / 4
    sxx = sum((a - mean_x) ** 2 for a in x)
    b = sum((a - mean_x) * (c - mean_y) for a, c in zip(x, y, strict=True)) / sxx
    rest = sum((c - mean_y - b * (a - mean_x)) ** 2 for a, c in zip(x, y, strict=True))
    half = t.ppf(0.975, 2) * math.sqrt(rest / 2 / sxx)
    assert (slope.slope, slope.low, slope.high) == pytest.approx((b, b - half, b + half))


def test_two_points_are_no_slope():
    slope = fit_slopes([power_law(rate, 0.5, 1.0) for rate in (0.01, 0.02)])[0]
    assert (slope.n, slope.slope) == (2, None)
    assert "too few points" in str(slope)


def test_numbers_between_arms():
    start, a, b = [torch.zeros(2), torch.ones(1)], [torch.tensor([3.0, 0]), torch.ones(1)], []
    b = [torch.tensor([0.0, 4.0]), torch.ones(1)]
    gap = separation(a, b, start)
    assert (gap.distance, gap.moved_a, gap.moved_b, gap.cosine) == (5, 3, 4, 0)
    assert separation(start, b, start).cosine is None
    left = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]).double()
    right = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]]).double()
    assert mean_kl(left, right) == pytest.approx(math.log(4 / 3) / 4)  # (ln 2 + ln 2/3) / 2, over two rows
    assert mean_kl(left, left) == 0
    assert disagreement(left, right) == 0.5


@pytest.mark.slow
def test_the_command_writes_its_files_once_and_refuses_what_it_cannot_do(
    tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    words = ["closeness", "--task", "sst2", "--model", tiny_model, "--method", "head", "--data-dir", toy_data]
    words += ["--k", 8, "--momenta", "0,0.5", "--learning-rates", "0.02,0.024,0.03"]
    assert study(*words, "--steps", 10) == 2
    assert "--steps 10 is too short" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from momentum_bench.harness.cli.main import main; main()",
            "study",
            *map(str, words),
            "--steps",
            "20",
        ],
        env=cli_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "largest distance 0, expected 0" in done.stdout
    assert "does not predict these slopes" in done.stdout
    folder = tmp_path / "results" / "studies"
    names = ("closeness.csv", "closeness_slopes.csv", "closeness.svg")
    files = {name: (folder / name).read_bytes() for name in names}
    rows = list(csv.DictReader(files["closeness.csv"].decode().splitlines()))
    assert len(rows) == 20 * 2 * (1 + 1 + 2)  # times x kinds of batches x momenta of the three cells

    assert {(r["learning_rate"], r["torch_learning_rate"]) for r in rows if r["momentum"] == "0.5"} == {
        ("0.02", "0.01"),
        ("0.024", "0.012"),
        ("0.03", "0.015"),
    }

    records = sorted((folder / "closeness").glob("*/record.json"))
    assert len(records) == 3
    records[0].write_text(records[0].read_text()[:-20])  # torn: is run again
    assert study(*words, "--steps", 20) == 0
    assert "3 cells, 2 of them already there" in capfd.readouterr().err
    assert {name: (folder / name).read_bytes() for name in names} == files


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "huge"], "--preset huge: expected small or large"),
        (["--momenta", "0"], "--momenta 0: expected different numbers"),
        (["--momenta", "0.5,1"], "--momenta 0.5,1: expected different numbers"),
        (["--momenta", "much"], "--momenta much: expected different numbers"),
        (["--task", "sst2,trec"], "a study takes one task at a time"),
        (["--task", "digits"], "studies take tasks of text"),
        (["--method", "causal"], "a study trains its models by head or prompt"),
        (["--learning-rates", "-1"], "--learning-rates: a learning rate is a finite number above 0"),
        (["--workers", "2"], "--workers is now --runs-at-a-time"),
    ],
)
def test_wrong_words_end_in_one_message(words: list[str], message: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert study("closeness", *words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_study_runs_from_python_and_tells_what_it_does(
    tiny_model: Path, toy_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    given = {"task": "sst2", "model": str(tiny_model), "method": "head", "data_dir": toy_data}
    given |= {"k": 4, "momenta": (0.5,), "learning_rates": "0.03", "steps": 20, "output_dir": tmp_path / "r"}
    capfd.readouterr()
    told: list[str] = []
    outcome = run_study(CLOSENESS, CLOSENESS.settings("small", given), told.append)
    assert [path.name for path in outcome.files] == [
        "closeness.csv",
        "closeness_slopes.csv",
        "closeness.svg",
    ]
    assert all(path.is_file() for path in outcome.files)
    assert [record.spec.momenta for record in outcome.records] == [(0.5,)]
    assert "expected 0" not in outcome.report[0]  # there is no control
    assert told[2:] == ["1 cells, 0 of them already there", told[3]]
    assert told[3].startswith("[1/1] sst2 sgd lr 0.03 seed 13, 20 steps")
    out, err = capfd.readouterr()
    assert out == ""
    assert "cells" not in err


def test_the_number_of_models_at_a_time_reaches_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def run_cell(cell: ClosenessSpec, session: object, models_at_a_time: int) -> ClosenessRecord:
        seen.append((models_at_a_time, cell.sgd.threads_per_run))
        return power_law(0.01, 0.5, 1.0).model_copy(update={"spec": cell})

    given = {"task": "sst2", "output_dir": tmp_path / "r", "threads_per_run": 2}
    device = SimpleNamespace(accelerator=SimpleNamespace(device=SimpleNamespace(type="cpu")))
    planned = study_file.PlannedStudy({}, study_sweep(CLOSENESS.settings("small", given)), None, [], None)
    monkeypatch.setattr(study_file, "prepare", lambda *words, **options: device)
    monkeypatch.setattr(study_file, "usable_cores", lambda: 6)
    study = dataclasses.replace(CLOSENESS, run_cell=run_cell)
    for number in (None, 5):
        cell = ClosenessSpec(
            sgd=make_spec(seed=number or 1, threads_per_run=2), momenta=(0.5,), n_times=2, n_dev=1
        )
        planned = dataclasses.replace(planned, models_at_a_time=number)
        study_file.finish_cells(study, [cell], planned, lambda line: None)
    assert seen == [(3, 2), (5, 2)]


def test_a_record_is_read_as_it_was_written(tmp_path: Path):
    record, path = power_law(0.01, 0.5, 1.0), tmp_path / "cell" / "record.json"
    write_record(path, record)
    assert read_record(path, ClosenessRecord) == record
    path.write_text(path.read_text().replace('"displacement_sgd": 2.0', '"displacement_sgd": 3.0', 1))
    assert read_record(path, ClosenessRecord) is None


def test_what_a_study_writes_is_not_taken_for_that_of_a_killed_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A sweep of the same directory that ends meanwhile clears up, so a study keeps it waiting."""
    Store(tmp_path).open()
    (tmp_path / "studies").mkdir()
    seen = []

    def noting(path: Path, text: str) -> None:
        with pytest.raises(Timeout), FileLock(tmp_path / LOCK, blocking=False):
            pass
        seen.append((path.name, text))

    monkeypatch.setattr(study_file, "write_atomically", noting)
    study_file.write_results("noise", tmp_path, {"": Table(("a", "b"), [])}, "")
    assert seen == [("noise.csv", "a,b\n"), ("noise.svg", "")]  # a table without rows has its header


def test_scores_leave_the_device_before_they_become_float64(session: Session, monkeypatch):
    """MPS has no float64."""
    spec = plain_run(session)
    [arm] = arms.make_arms([("sgd", spec, 1)], session, spec)
    own = arms.logits

    class OnMps(torch.Tensor):
        def double(self):
            raise TypeError("the MPS framework doesn't support float64")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    monkeypatch.setattr(arms, "logits", lambda *given: own(*given).as_subclass(OnMps))
    assert arm.scores(session.split(spec).dev).dtype == torch.float64
