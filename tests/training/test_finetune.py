from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.prepare import prepare
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.metrics.functions import METRICS
from momentum_bench.harness.optimizers import live
from momentum_bench.harness.optimizers.live import WrongOptimizerError
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.records.schema import Evaluation, RunRecord, RunSpec, is_better
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.seeds import batch_indices
from momentum_bench.harness.training import run_parts
from momentum_bench.harness.training.checkpoints import hash_of
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.scoring import logits, score, scoring_batches
from momentum_bench.harness.training.session import Session
from momentum_bench.tasks import get_task
from tests.conftest import sentiment_rows, write_rows
from tests.helpers.runs import spec_for


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.fixture
def run(session: Session, tmp_path: Path):
    def call(on: Session = session, **changes) -> RunRecord:
        return finetune(spec_for(on, **changes), on, Journal(tmp_path / "run" / "evaluations.jsonl"))

    return call


def by_hand(session: Session, spec: RunSpec) -> dict[str, torch.Tensor]:
    """The same run in plain torch: heavy ball by its formula, whole batches, one clip."""
    loaded = session.fresh_model(spec)
    model, split = loaded.model, session.split(spec)
    beta = spec.hyperparameters.get("momentum", 0.0)
    buffers = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    model.train()
    for step in range(spec.max_steps):
        rows = batch_indices(spec.seed, step, len(split.train.labels), spec.batch_size)
        batch = split.train.batch(rows, 0, torch.device("cpu"))
        loss = torch.nn.functional.cross_entropy(logits(loaded, batch), batch.labels)
        gradients = dict(
            zip(
                dict(model.named_parameters()),
                torch.autograd.grad(loss, list(model.parameters()), allow_unused=True),
                strict=True,
            )
        )
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients.values() if g is not None]))
        scale = min(1.0, spec.max_grad_norm / (norm.item() + 1e-6)) if spec.max_grad_norm else 1.0
        gamma = spec.learning_rate * (1 - step / spec.max_steps) * (1 - beta)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if gradients[name] is not None:
                    buffers[name] = beta * buffers[name] + scale * gradients[name]
                    parameter -= gamma * buffers[name]
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("method", ["head", "prompt"])
@pytest.mark.parametrize("optimizer", ["sgd", "sgdm"])
def test_the_loop_is_the_formula(session: Session, run, method: str, optimizer: str):
    spec = spec_for(session, method=method, optimizer=optimizer, dropout=0.0, eval_every=6)
    expected = by_hand(session, spec)
    record = run(method=method, optimizer=optimizer, dropout=0.0, eval_every=6)
    assert record.status == "done"
    live = dict(session.loaded(spec).model.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(live[name].detach(), value, rtol=1e-4, atol=1e-6)
    assert record.parameters_hash == hash_of({name: p.detach() for name, p in live.items()})


@pytest.mark.parametrize(("name", "further"), [("mrpc", {"accuracy"}), ("cola", set())])
def test_a_run_is_scored_by_its_tasks_metrics(
    name: str, further: set[str], tiny_model: Path, toy_data: Path, tmp_path: Path
):
    task = get_task(name)
    for split, n in (("train", 40), ("validation", 24)):
        rows = [dict.fromkeys(task.text, r["sentence"]) | {"label": r["label"]} for r in sentiment_rows(n)]
        write_rows(toy_data / name / f"{split}.jsonl", rows)
    session = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
    fingerprint = session.data(task).fingerprint
    spec = spec_for(session, task=name, data_fingerprint=fingerprint, max_steps=2)
    record = finetune(spec, session, Journal(tmp_path / "run" / "evaluations.jsonl"))
    assert record.test is not None
    labels, predictions = record.test.labels, record.test.predictions
    assert record.metric == task.metric
    assert record.test.metric == METRICS[task.metric](labels, predictions)
    assert record.test.further == {metric: METRICS[metric](labels, predictions) for metric in further}
    assert record.dev is not None
    assert record.best is not None
    assert record.best.dev_metric == METRICS[task.metric](record.dev.labels, record.dev.predictions)


def test_scores_at_the_mask_alone_are_those_of_the_whole_model(session: Session):
    spec = spec_for(session, method="prompt")
    loaded, split = session.fresh_model(spec), session.split(spec)
    assert loaded.vocabulary_head is not None
    loaded.model.eval()
    batch = split.dev.batch(range(6), 0, torch.device("cpu"))
    everywhere = dataclasses.replace(loaded, vocabulary_head=None)
    torch.testing.assert_close(logits(loaded, batch), logits(everywhere, batch))


def test_sgdm_without_momentum_is_sgd_to_the_bit(run):
    sgd = run()
    sgdm = run(optimizer="sgdm", hyperparameters={"momentum": 0.0})
    assert sgdm.evaluations == sgd.evaluations
    assert sgdm.test == sgd.test
    assert sgdm.parameters_hash == sgd.parameters_hash
    assert sgdm.read_back is not None
    assert sgdm.read_back.state_tensors == ()
    assert sgdm.spec.run_id != sgd.spec.run_id


def test_a_run_is_the_same_alone_and_after_others(run, tiny_model: Path, toy_data: Path):
    alone = run(Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32")), seed=21)
    run(optimizer="sgdm", seed=13, learning_rate=1.0)
    torch.manual_seed(99)
    torch.set_float32_matmul_precision("medium")
    again = run(seed=21)
    assert again.evaluations == alone.evaluations
    assert again.test == alone.test
    assert again.parameters_hash == alone.parameters_hash
    assert again.read_back.matmul_precision == alone.read_back.matmul_precision == "highest"


def test_deterministic_algorithms_are_for_the_runs_that_ask_for_them(run):
    assert run(deterministic=True).read_back.deterministic
    assert not run().read_back.deterministic


def test_other_seeds_and_rates_are_other_runs(run):
    hashes = {run(seed=s, learning_rate=r).parameters_hash for s in (13, 21) for r in (0.1, 0.2)}
    assert len(hashes) == 4


def test_accumulation_is_exact_without_dropout(run, session: Session):
    spec = spec_for(session, dropout=0.0)
    run(dropout=0.0, optimizer="sgdm")
    whole = {name: p.detach().clone() for name, p in session.loaded(spec).model.named_parameters()}
    record = run(dropout=0.0, optimizer="sgdm", gradient_accumulation_steps=4)
    for name, parameter in session.loaded(spec).model.named_parameters():
        torch.testing.assert_close(parameter.detach(), whole[name], rtol=1e-4, atol=1e-6)
    assert record.read_back is not None
    assert record.read_back.layout["gradient_accumulation_steps"] == 4


def test_the_best_checkpoint_is_a_copy_and_not_the_last_state(run, session: Session):
    # a rate so large that later steps can only ruin what the first ones gave
    record = run(learning_rate=30.0, lr_schedule="constant", max_grad_norm=None, eval_every=1, max_steps=8)
    assert record.status == "done"
    assert record.best is not None
    assert record.best_step != record.evaluations[-1].step
    best = min(record.evaluations, key=lambda e: (-e.dev_metric, e.dev_loss, e.step))
    assert record.best == best
    # after the run the model holds the chosen parameters: dev scored on it is the chosen score
    split = session.split(record.spec)
    objective = session.objective(record.spec)
    dev = score(session.loaded(record.spec), split.dev, objective, "accuracy", 0, session.accelerator)
    assert (dev.metric, dev.loss) == (best.dev_metric, best.dev_loss)
    # the record has its dev predictions, and not those of a later step
    assert record.dev is not None
    assert record.dev.predictions == tuple(dev.predictions)
    assert record.dev.labels == tuple(split.dev.labels)


def test_dev_predictions_cost_no_further_forward_pass(run, monkeypatch: pytest.MonkeyPatch):
    scored: list[int] = []
    inner = run_parts.score

    def counting(loaded, encoded, *others):
        scored.append(len(encoded.labels))
        return inner(loaded, encoded, *others)

    monkeypatch.setattr(run_parts, "score", counting)
    record = run()
    assert record.split is not None
    assert scored == [record.split.n_dev] * len(record.evaluations) + [record.split.n_test]


def test_a_loss_that_is_not_finite_ends_the_run(run):
    record = run(learning_rate=1e30, max_grad_norm=None, lr_schedule="constant")
    assert record.status == "diverged"
    assert record.failure is not None
    assert "not finite at step" in record.failure
    assert record.test is None
    assert record.dev is None
    assert run().status == "done"  # nothing of it is left in the model


def test_what_ran_is_read_back(run):
    record = run(optimizer="sgdm", weight_decay=0.01)
    assert record.read_back is not None
    back = record.read_back
    assert back.optimizer_class == "torch.optim.sgd.SGD"
    assert back.torch_learning_rate == pytest.approx(0.01)
    assert [group["momentum"] for group in back.param_groups] == [0.9, 0.9]
    assert [group["dampening"] for group in back.param_groups] == [0, 0]
    assert [group["weight_decay"] for group in back.param_groups] == [0.01, 0]
    assert back.state_tensors == ("momentum_buffer",)
    assert back.optimizer_state_bytes == 4 * back.n_trainable_parameters
    assert (back.parameter_dtype, back.autocast_dtype, back.device) == ("float32", None, "cpu")
    assert back.dropout_probabilities == (0.1,)
    assert run().read_back.optimizer_state_bytes == 0
    assert record.clipped_fraction is not None
    assert run(max_grad_norm=None).clipped_fraction == 0
    assert run(max_grad_norm=1e-6).clipped_fraction == 1


def test_bf16_is_autocast_over_fp32_parameters(tiny_model: Path, toy_data: Path, tmp_path: Path):
    # accelerate keeps one precision a process, so this one needs a process of its own
    code = f"""
from pathlib import Path
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.records.store import Journal
from tests.helpers.runs import spec_for
session = Session(Inputs({str(tiny_model)!r}, Path({str(toy_data)!r})), make_accelerator("bf16"))
spec = spec_for(session, precision="bf16", optimizer="sgdm")
back = finetune(spec, session, Journal(Path({str(tmp_path)!r}) / "x" / "e.jsonl")).read_back
fp32_buffers = back.optimizer_state_bytes == 4 * back.n_trainable_parameters
print(back.parameter_dtype, back.autocast_dtype, fp32_buffers)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["float32", "bfloat16", "True"]


def test_changed_inputs_stop_the_run(session: Session, tmp_path: Path):
    with pytest.raises(UserError, match="the files changed"):
        finetune(spec_for(session, data_fingerprint="other"), session, Journal(tmp_path / "r" / "e.jsonl"))


def test_an_optimizer_that_drops_its_momentum_cannot_pass(run, monkeypatch: pytest.MonkeyPatch):
    forgetful = dataclasses.replace(OPTIMIZERS["sgdm"], build=OPTIMIZERS["sgd"].build)
    monkeypatch.setitem(OPTIMIZERS, "sgdm", forgetful)
    with pytest.raises(WrongOptimizerError, match="momentum_buffer"):
        run(optimizer="sgdm")


def test_a_hyperparameter_that_is_not_the_one_asked_for_cannot_pass():
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.5)
    parameter.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(WrongOptimizerError, match=r"momentum is 0.5, asked for 0.9"):
        live.check_live("sgdm", OPTIMIZERS["sgdm"], {"momentum": 0.9}, optimizer)


def _trace(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> list[list[float]]:
    iterates = []
    for gradient in ((1, -2), (0.5, 0.25), (-1, 3), (0.2, -0.1)):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        iterates.append(parameter.detach().tolist())
    return iterates


def test_the_golden_trace_of_heavy_ball_is_that_of_the_averaging_form():
    """At effective rate 0.1 and beta 0.9 the registry's SGDM walks the heavy ball of torch rate 0.01."""
    expected = [[0.29, -0.68], [0.276, -0.6645], [0.2734, -0.68055], [0.26906, -0.693995]]
    start = torch.tensor([0.3, -0.7], dtype=torch.float64)
    parameter = torch.nn.Parameter(start.clone())
    entry = OPTIMIZERS["sgdm"]
    beta = {"momentum": 0.9}
    ours = entry.build([{"params": [parameter]}], entry.torch_rate(beta) * 0.1, beta, 0)
    for found, wanted in zip(_trace(ours, parameter), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-12)
    # torch's dampening is not that form: its first step is ten times too long
    other = torch.nn.Parameter(start.clone())
    dampened = torch.optim.SGD([other], lr=0.1, momentum=0.9, dampening=0.9)
    assert _trace(dampened, other)[0] == pytest.approx([0.2, -0.5])


def test_checkpoints_are_ranked_by_dev_metric_then_loss_then_step():
    def evaluation(step: int, metric: float, loss: float) -> Evaluation:
        return Evaluation(step=step, learning_rate=0.1, train_loss=1.0, dev_metric=metric, dev_loss=loss)

    assert is_better(evaluation(9, 0.6, 2.0), evaluation(1, 0.5, 1.0))
    assert is_better(evaluation(9, 0.5, 0.9), evaluation(1, 0.5, 1.0))
    assert is_better(evaluation(1, 0.5, 1.0), evaluation(9, 0.5, 1.0))
    assert not is_better(evaluation(9, 0.5, 1.0), evaluation(9, 0.5, 1.0))


def test_scoring_batches_hold_every_example_once_within_the_budget():
    lengths = [5, 4096, 1, 300, 5000, 17, 300] * 9
    batches = scoring_batches(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert padded <= 4096 or len(batch) == 1


def test_prepare_finds_what_cannot_work_before_any_training(tiny_model: Path, toy_data: Path):
    session = Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))
    specs = [spec_for(session, k=100)]
    with pytest.raises(UserError, match="k = 100"):
        prepare(specs, session.inputs, "fp32")
