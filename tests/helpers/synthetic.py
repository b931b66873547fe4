"""Made-up records for tests of the leaderboard: a grid of runs whose scores a function gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momentum_bench.harness.records.schema import (
    Costs,
    Evaluation,
    FinalScore,
    ReadBack,
    RunRecord,
    RunSpec,
    Split,
)
from momentum_bench.harness.records.store import Store

SEEDS = (13, 21, 42, 87, 100)
RATES = (0.001, 0.01, 0.1)
ARMS: Mapping[str, Mapping[str, float]] = {"sgd": {}, "sgdm": {"momentum": 0.9}}


@dataclass(frozen=True)
class Scores:
    """What a made-up run scored; a status other than `done` leaves the numbers out."""

    dev_metric: float = 0.75
    dev_loss: float = 0.5
    test_metric: float = 0.75
    status: str = "done"


def make_spec(**changes: Any) -> RunSpec:
    """A spec of the default protocol with some fields changed."""
    fields = {
        "protocol": "mezo",
        "task": "sst2",
        "task_version": "1a2b3c",
        "data_fingerprint": "f00d",
        "model": "made-up/model",
        "model_revision": "abc123",
        "method": "prompt",
        "k": 16,
        "seed": 13,
        "optimizer": "sgd",
        "hyperparameters": {},
        "learning_rate": 0.01,
        "lr_schedule": "linear",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": 1000,
        "eval_every": 100,
        "test_limit": 1000,
        "dropout": None,
        "precision": "fp32",
        "threads_per_run": 1,
    }
    return RunSpec.model_validate(fields | changes)


def make_record(spec: RunSpec, scores: Scores, layout: Mapping[str, int | str] | None = None) -> RunRecord:
    """The record of a run that scored so; a failed one has nothing but its reason."""
    if scores.status == "failed":
        return RunRecord(spec=spec, metric="accuracy", status="failed", failure="made up")
    momentum = spec.hyperparameters.get("momentum", 0.0)
    read_back = ReadBack(
        optimizer_class="torch.optim.sgd.SGD",
        torch_learning_rate=spec.learning_rate * (1 - momentum),
        param_groups=({"lr": spec.learning_rate, "momentum": momentum},),
        state_tensors=("momentum_buffer",) if momentum else (),
        optimizer_state_bytes=4_000_000 if momentum else 0,
        n_trainable_parameters=1_000_000,
        new_parameters=(),
        parameter_dtype="float32",
        autocast_dtype=None,
        dropout_probabilities=(0.1,),
        model_class="MadeUp",
        attention="sdpa",
        device="cpu",
        threads=1,
        layout=dict(layout or {"padding": "dynamic"}),
    )
    done = scores.status == "done"
    evaluation = Evaluation(
        step=spec.max_steps,
        learning_rate=0.0,
        train_loss=0.1,
        dev_metric=scores.dev_metric,
        dev_loss=scores.dev_loss,
    )
    return RunRecord(
        spec=spec,
        metric="accuracy",
        status="done" if done else "diverged",
        failure=None if done else "loss is not finite at step 3",
        evaluations=(evaluation,) if done else (),
        best_step=spec.max_steps if done else None,
        parameters_hash="0" * 32 if done else None,
        clipped_fraction=0.25 if done else None,
        split=Split(
            content_hash="c0ffee",
            n_train=32,
            n_dev=32,
            n_test=872,
            short_classes=(),
            n_truncated=0,
            n_empty_texts=0,
            n_unlabelled_dropped=0,
            origin="folder",
        ),
        read_back=read_back,
        test=FinalScore(metric=scores.test_metric, loss=0.6, rows=(0, 1), labels=(0, 1), predictions=(1, 1))
        if done
        else None,
        costs=Costs(train_seconds=2.0, dev_seconds=0.5, test_seconds=0.25, peak_memory_bytes=10**9),
        environment={"torch": "2.13.0"},
    )


def sweep_records(
    score: Callable[[RunSpec], Scores],
    seeds: Iterable[int] = SEEDS,
    rates: Iterable[float] = RATES,
    arms: Mapping[str, Mapping[str, float]] = ARMS,
    **changes: Any,
) -> list[RunRecord]:
    """The records of a whole grid: seeds x rates x arms."""
    rates = tuple(rates)
    specs = [
        make_spec(
            seed=seed, learning_rate=rate, optimizer=name, hyperparameters=dict(hyperparameters), **changes
        )
        for seed in seeds
        for rate in rates
        for name, hyperparameters in arms.items()
    ]
    return [make_record(spec, score(spec)) for spec in specs]


def fill(folder: Path, records: Iterable[RunRecord]) -> Store:
    """A results directory that holds these records."""
    store = Store(folder)
    store.open()
    for record in records:
        store.write(record)
    return store
