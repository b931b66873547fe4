from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.seeds import batch_indices
from momentum_bench.harness.studies.arms import inner_product, make_arms
from momentum_bench.harness.studies.gradient_noise import (
    FORMULAS,
    degree_of_smoothing,
    drawn_examples,
    measure,
    two_batch_estimate,
)
from momentum_bench.harness.studies.noise import (
    NoiseSpec,
    conclusion,
    degree_table,
    degrees,
    noise_cells,
    plot,
    run_noise_cell,
)
from momentum_bench.harness.training.scoring import logits
from momentum_bench.harness.training.session import Session
from tests.conftest import ROOT
from tests.helpers.specs import make_spec
from tests.helpers.studies import plain_run, study


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


vectors = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=6)


def truth(gradients: np.ndarray) -> tuple[float, float]:
    """||G||^2 and tr(Sigma) of a finite population."""
    mean = gradients.mean(axis=0)
    return float(mean @ mean), float(((gradients - mean) ** 2).sum(axis=1).mean())


@given(vectors, st.data())
def test_the_estimates_are_unbiased_over_all_batches(gradients: list, data: st.DataObject):
    """All batches of each of two sizes are equally likely, so their mean squared norms are exact."""
    g, n = np.array(gradients), len(gradients)
    n_small = data.draw(st.integers(1, n - 1))
    n_large = data.draw(st.integers(n_small + 1, n))
    means = [
        np.mean([(g[list(rows)].mean(axis=0) ** 2).sum() for rows in itertools.combinations(range(n), b)])
        for b in (n_small, n_large)
    ]
    assert two_batch_estimate(*means, n_small, n_large, n) == pytest.approx(truth(g), abs=1e-9)


@given(vectors, st.data())
def test_a_draw_of_examples_is_unbiased(gradients: list, data: st.DataObject):
    """What `measure` does: some single gradients, without replacement, against the exact full one."""
    g, n = np.array(gradients), len(gradients)
    size = data.draw(st.integers(1, n))
    norm2, variance = truth(g)
    found = [
        two_batch_estimate(float((g[list(rows)] ** 2).sum(axis=1).mean()), norm2, 1, n, n)
        for rows in itertools.combinations(range(n), size)
    ]
    assert [estimate[0] for estimate in found] == pytest.approx([norm2] * len(found))
    assert np.mean([estimate[1] for estimate in found]) == pytest.approx(variance, abs=1e-9)


@given(st.floats(0, 10), st.floats(0, 10), st.integers(1, 50), st.integers(51, 1000))
def test_without_end_of_examples_it_is_the_published_estimator(small: float, large: float, b: int, c: int):
    """McCandlish et al. 2018, appendix A.1."""
    norm2 = (c * large - b * small) / (c - b)
    variance = (small - large) / (1 / b - 1 / c)
    found = two_batch_estimate(small, large, b, c, 10**12)
    assert found == pytest.approx((norm2, variance), rel=1e-6, abs=1e-6)


def test_degrees_of_smoothing_are_the_published_ones():
    """Worked values for ResNet18 on CIFAR-100 with the constants in the authors' code."""
    assert degree_of_smoothing("shb", 0.1, 25.318, 1.77, 256, 0.9) == pytest.approx(1.62722, abs=1e-5)
    assert degree_of_smoothing("nshb_v1", 0.1, 128, 4.5, 256, 0.9) == pytest.approx(0.822982, abs=1e-6)
    # kept on target by the later code: rate / ((1 - beta) b)^(1/2)
    ratio = degree_of_smoothing("nshb_aaai25", 0.2, 3, 9, 8, 0.9) / degree_of_smoothing(
        "nshb_aaai25", 0.1, 3, 9, 32, 0.6
    )
    assert ratio == pytest.approx(0.2 / math.sqrt(0.1 * 8) / (0.1 / math.sqrt(0.4 * 32)))


@given(st.floats(0.001, 1), st.floats(0, 100), st.floats(0, 10), st.integers(1, 64))
def test_without_momentum_every_formula_is_sgds(rate: float, variance: float, norm: float, b: int):
    for formula in FORMULAS:
        found = degree_of_smoothing(formula, rate, variance, norm, b, 0.0)
        assert found == pytest.approx(rate * math.sqrt(variance / b))


def test_sums_of_many_squares_are_exact_to_six_digits():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3_000_001, generator=generator)
    assert inner_product([x, x[:7]], [x, x[:7]]) == pytest.approx(
        float(x.double().square().sum() + x[:7].double().square().sum()), rel=1e-6
    )


class LinearClassifier(torch.nn.Module):
    """logits = W x, where the "tokens" are the two coordinates of x: gradients known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[0.3, -0.2], [0.1, 0.4]]))

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor):
        class Output:
            logits = input_ids.float() @ self.weight.T

        return Output


def closed_form(weight: np.ndarray, x: np.ndarray, labels: list[int]) -> np.ndarray:
    """n x 4 gradients of the cross-entropy of each example: (softmax(W x) - onehot(y)) x^T."""
    scores = x @ weight.T
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    errors = p - np.eye(2)[labels]
    return (errors[:, :, None] * x[:, None, :]).reshape(len(x), 4)


@pytest.mark.parametrize("n_examples", [1, 3, 5])
def test_a_linear_model_has_the_variance_and_norm_of_its_closed_form(session: Session, n_examples: int):
    arm = make_arms([("sgd", plain_run(session), 13)], session, plain_run(session))[0]
    model = LinearClassifier()
    arm = dataclasses.replace(arm, loaded=dataclasses.replace(arm.loaded, model=model, packing=None))
    x, labels = np.array([[1, 2], [3, 1], [2, 2], [0, 1], [4, 3]]), [0, 1, 1, 0, 1]
    rows = [row.tolist() for row in x]
    facts: dict = {"references": session.split(plain_run(session)).train.references, "n_truncated": 0}
    train = Encoded(rows, None, read_at=None, labels=labels, **facts)
    gradients = closed_form(model.weight.detach().double().numpy(), x.astype(float), labels)
    norm2, variance = truth(gradients)
    examples = drawn_examples(13, 7, 5, n_examples)
    assert len(set(examples)) == n_examples
    found = measure(arm, train, examples)
    np.testing.assert_allclose(found.gradient[0].flatten(), gradients.mean(axis=0), rtol=1e-5, atol=1e-7)
    assert found.noise.gradient_norm == pytest.approx(math.sqrt(norm2), rel=1e-5)
    expected = (gradients[examples] ** 2).sum(axis=1).mean() - norm2
    assert found.noise.variance == pytest.approx(expected, rel=1e-4)
    if n_examples == 5:
        assert found.noise.variance == pytest.approx(variance, rel=1e-4)
        assert found.noise.noise_scale == pytest.approx(variance / norm2, rel=1e-4)
    assert model.weight.grad is None


def test_draws_differ_between_steps_and_are_all_where_there_are_few():
    assert drawn_examples(13, 0, 5, 64) == [0, 1, 2, 3, 4]
    draws = {tuple(drawn_examples(13, step, 40, 8)) for step in range(5)}
    assert len(draws) == 5
    assert all(len(set(draw)) == 8 for draw in draws)


def gradients_along(session: Session, run, beta: float):
    """By hand, at each step: full gradient, batch gradient and heavy-ball buffer, flat, and the model."""
    loaded, split = session.fresh_model(run), session.split(run)
    parameters = list(loaded.model.parameters())

    def gradient(rows: list[int]) -> torch.Tensor:
        batch = split.train.batch(rows, 0, torch.device("cpu"))
        loss = torch.nn.functional.cross_entropy(logits(loaded, batch), batch.labels)
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return torch.cat([g.flatten() for g in found]).double()

    n, buffer = len(split.train.labels), torch.zeros(())
    for step in range(run.max_steps):
        rows = batch_indices(run.seed, step, n, run.batch_size)
        batch, full = gradient(rows), gradient(list(range(n)))
        each = torch.stack([gradient([row]) for row in range(n)])
        buffer = beta * buffer + batch
        yield full, batch, buffer, float((each - full).square().sum(dim=1).mean())
        with torch.no_grad():
            start = 0
            for p in parameters:
                p -= run.learning_rate * (1 - beta) * buffer[start : start + p.numel()].view_as(p)
                start += p.numel()


def test_a_cell_measures_what_it_says(session: Session):
    run = plain_run(session, max_steps=5, eval_every=5)
    cell = NoiseSpec(sgd=run, momentum=0.5, n_times=5, n_examples=64)
    assert cell.steps == (1, 2, 3, 4, 5)
    record = run_noise_cell(cell, session, models_at_a_time=2)
    assert record.status == "done"
    for methods, beta in ((("sgd",), 0.0), (("shb", "nshb"), 0.5)):
        for step, (full, batch, buffer, variance) in enumerate(gradients_along(session, run, beta)):
            for method in methods:
                point = record.path(method)[step]
                direction = (1 - beta) * buffer if method == "nshb" else buffer
                assert point.learning_rate == pytest.approx(0.02 * (1 - beta if method == "shb" else 1))
                assert point.gradient.gradient_norm == pytest.approx(float(full.norm()), rel=1e-3)
                assert point.gradient.variance == pytest.approx(variance, rel=1e-3)
                assert point.batch_noise == pytest.approx(float((batch - full).norm()), rel=1e-3)
                assert point.direction_noise == pytest.approx(float((direction - full).norm()), rel=1e-3)
    found = {degree.formula: degree for degree in degrees(record)}
    assert tuple(found) == FORMULAS
    path = record.path("shb")
    shb = found["shb"]
    assert shb.variance == max(p.gradient.variance for p in path)
    assert shb.gradient_norm == max(p.gradient.gradient_norm for p in path)
    assert shb.level_largest == max(0.01 * p.direction_noise for p in path)
    assert shb.level_rms <= shb.level_largest
    ratio = shb.level_rms / found["sgd"].level_rms
    assert f"the measured\nlevel is {ratio:.2f} as SHB" in conclusion([record])
    assert shb.bound == degree_of_smoothing("shb", 0.01, shb.variance, shb.gradient_norm, run.batch_size, 0.5)


def test_a_full_batch_has_no_noise(session: Session):
    run = plain_run(session, batch_size=8, max_steps=3, eval_every=3)
    record = run_noise_cell(
        NoiseSpec(sgd=run, momentum=0.5, n_times=3, n_examples=64), session, models_at_a_time=1
    )
    assert record.split.n_train == 8
    for point in record.points:
        assert point.batch_noise < 1e-3 * point.gradient.gradient_norm
        assert point.gradient.variance > 0
    assert all(p.direction_noise < 1e-3 * p.gradient.gradient_norm for p in record.path("sgd"))


def test_the_number_of_models_at_a_time_changes_nothing(session: Session):
    cell = NoiseSpec(sgd=plain_run(session), momentum=0.5, n_times=3, n_examples=4)
    one, two = (run_noise_cell(cell, session, n) for n in (1, 2))
    assert (one.points, one.arms) == (two.points, two.arms)
    assert one.points[0].gradient.n_examples == 4


def test_divergence_is_a_result(session: Session):
    cell = NoiseSpec(sgd=plain_run(session, learning_rate=1e30), momentum=0.5, n_times=2, n_examples=4)
    record = run_noise_cell(cell, session, models_at_a_time=1)
    assert record.status == "diverged"
    assert "training loss of sgd not finite" in record.failure
    assert "<svg" in plot([record])
    assert "not finite" in degree_table([record])[0]
    assert conclusion([record]).startswith("No cell")


def test_a_horizon_too_short_for_the_momentum_is_refused():
    with pytest.raises(UserError, match=r"--steps 99 is too short: momentum 0.9 needs 100 steps"):
        noise_cells([make_spec(max_steps=99)], 0.9, 10, 64)


def test_the_command_end_to_end(tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    source = (ROOT / "tasks" / "sst2.py").read_text()
    source = source.replace("from momentum_bench.tasks.types import", "from momentum_bench import")
    (tmp_path / "mine.py").write_text(source.replace('name="sst2"', 'name="mine", folder="sst2"'))
    words = ["noise", "--task-file", tmp_path / "mine.py", "--model", tiny_model, "--method", "head"]
    words += ["--data-dir", toy_data, "--momentum", 0.5, "--steps", 20, "--n-examples", 4]
    words += ["--learning-rates", "0.01,0.02"]
    assert study(*words) == 0
    out = capfd.readouterr().out
    assert all(f"  {formula} " in out for formula in FORMULAS)
    folder = tmp_path / "results" / "studies"
    rows = list(csv.DictReader((folder / "noise.csv").read_text().splitlines()))
    assert len(rows) == 2 * 3 * 10
    assert {row["method"] for row in rows} == {"sgd", "shb", "nshb"}
    assert {row["task"] for row in rows} == {"mine"}
    names = ("noise.csv", "noise_degrees.csv", "noise.svg")
    files = {name: (folder / name).read_bytes() for name in names}
    assert study(*words) == 0
    assert "2 cells, 2 of them already there" in capfd.readouterr().err
    assert {name: (folder / name).read_bytes() for name in names} == files
