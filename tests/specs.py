"""Specs and records for tests."""

from __future__ import annotations

from typing import Any

from harness.records import Costs, Evaluation, FinalScore, ReadBack, RunRecord, RunSpec, Split


def make_spec(**changes: Any) -> RunSpec:
    """A valid spec, with changes; momentum belongs to sgdm alone."""
    fields: dict[str, Any] = {
        "protocol": "mezo",
        "task": "sst2",
        "task_version": "t",
        "data_fingerprint": "d",
        "model": "local:tiny-bert",
        "model_revision": "m",
        "method": "head",
        "k": 4,
        "seed": 13,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "lr_schedule": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 6,
        "eval_every": 3,
        "test_limit": None,
        "dropout": None,
        "precision": "fp32",
        "threads_per_run": 1,
    }
    fields |= changes
    fields.setdefault("hyperparameters", {"momentum": 0.9} if fields["optimizer"] == "sgdm" else {})
    return RunSpec(**fields)


def make_record(
    dev: float = 0.5, test: float = 0.5, loss: float = 1.0, status: str = "done", **changes: Any
) -> RunRecord:
    """A finished record whose scores are given; predictions agree with the test score."""
    spec = make_spec(**changes)
    if status != "done":
        return RunRecord(spec=spec, metric="accuracy", status=status, failure="for a test")
    n_right = round(test * 100)
    evaluation = Evaluation(
        step=spec.max_steps, learning_rate=0.0, train_loss=1.0, dev_metric=dev, dev_loss=loss
    )
    return RunRecord(
        spec=spec,
        metric="accuracy",
        status="done",
        evaluations=(evaluation,),
        best_step=spec.max_steps,
        parameters_hash="p",
        clipped_fraction=0.25,
        split=Split(
            content_hash="s",
            n_train=8,
            n_dev=8,
            n_test=100,
            short_classes=(),
            n_truncated=0,
            n_empty_texts=0,
            n_unlabelled_dropped=0,
            origin="folder",
        ),
        read_back=ReadBack(
            optimizer_class="torch.optim.sgd.SGD",
            torch_learning_rate=spec.learning_rate,
            param_groups=({"lr": spec.learning_rate},),
            state_tensors=(),
            optimizer_state_bytes=0,
            n_trainable_parameters=1,
            new_parameters=(),
            parameter_dtype="float32",
            autocast_dtype=None,
            dropout_probabilities=(0.1,),
            model_class="BertForSequenceClassification",
            attention="sdpa",
            device="cpu",
            threads=1,
            layout={"padding": "dynamic"},
        ),
        test=FinalScore(
            metric=n_right / 100,
            loss=loss,
            rows=tuple(range(100)),
            labels=(1,) * 100,
            predictions=(1,) * n_right + (0,) * (100 - n_right),
        ),
        costs=Costs(train_seconds=2.0, dev_seconds=1.0, test_seconds=1.0, peak_memory_bytes=1),
    )
