"""Whether a record agrees with itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.metrics.functions import CORRELATIONS, EVALUATE, METRICS, OF_QUESTIONS
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.optimizers.schedules import is_evaluation_step, learning_rate
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.records.schema import (
    NO_OPTIMIZER,
    Evaluation,
    FinalScore,
    ReadBack,
    RunRecord,
    RunSpec,
    is_better,
)
from momentum_bench.harness.sweeps.protocols import PROTOCOLS
from momentum_bench.leaderboards.printable import show
from momentum_bench.tasks import UnknownTaskError, get_task

MOST_STEPS = 1_000_000
"""A schedule is followed step by step, so a record of more steps is refused."""

MOST_CLASSES = 2**31

NOTHING_TRAINED: dict[str, Any] = {
    "optimizer_class": NO_OPTIMIZER,
    "torch_learning_rate": 0.0,
    "param_groups": (),
    "state_tensors": (),
    "optimizer_state_bytes": 0,
    "n_trainable_parameters": 0,
    "trained": (),
}
"""What is read back of a run of 0 steps."""


def contradictions(run: RunRecord) -> list[str]:
    """What keeps a record out of any leaderboard: settings out of range, a status without its parts."""
    s = run.spec
    ranges = {
        f"max_steps {s.max_steps}, expected 0 to {MOST_STEPS}": 0 <= s.max_steps <= MOST_STEPS,
        f"optimizer {show(s.optimizer)}, max_steps {s.max_steps}: {NO_OPTIMIZER} goes with 0 and 0 with it": (
            (s.optimizer == NO_OPTIMIZER) == (s.max_steps == 0)
        ),
        f"eval_every {s.eval_every}, expected 1 or more": s.eval_every >= 1,
        f"warmup_steps {s.warmup_steps}, expected 0 or more, below max_steps": (
            0 <= s.warmup_steps < max(s.max_steps, 1)
        ),
        f"learning_rate {s.learning_rate:g}, expected above 0, or 0 without training": (
            s.learning_rate > 0 if s.max_steps else s.learning_rate == 0
        ),
        f"protocol {show(s.protocol)!r}, expected one of {', '.join(PROTOCOLS)}": s.protocol in PROTOCOLS,
        f"metric {show(run.metric)!r}, expected one of {', '.join(METRICS)} or {EVALUATE}NAME": (
            run.metric in METRICS or run.metric.startswith(EVALUATE)
        ),
    }
    wrong = [text for text, holds in ranges.items() if not holds]
    if wrong:
        return wrong
    last = run.evaluations[-1].step if run.evaluations else -1
    done = run.status == "done"
    parts = ("best_step", "parameters_hash", "test") + (("split", "read_back", "costs") if done else ())
    for name in parts:
        if (getattr(run, name) is not None) != done:
            wrong.append(f"status {run.status} {'without' if done else 'with'} {name}")
    if done != (run.failure is None):
        wrong.append(f"status {run.status} {'with' if done else 'without'} failure")
    if run.status == "failed" and run.evaluations:
        wrong.append("status failed with evaluations")
    if done != (last == s.max_steps):
        where = f"a last evaluation at step {last}" if run.evaluations else "no evaluation"
        wrong.append(f"status {run.status} with {where} of {s.max_steps} steps")
    if done and run.best is None:
        wrong.append(f"best_step {run.best_step} is no step that was evaluated")
    return wrong


def departures_of_record(run: RunRecord) -> list[str]:
    wrong = [*_evaluation_departures(run)]
    if run.test:
        wrong += _test_departures(run, run.test)
    if run.read_back:
        wrong += _read_back_departures(run.spec, run.read_back)
    if run.costs and min(run.costs.model_dump().values()) < 0:
        wrong.append("costs: a negative number")
    if run.clipped_fraction is not None and not 0 <= run.clipped_fraction <= 1:
        wrong.append(f"clipped_fraction {run.clipped_fraction:g}, expected 0 to 1")
    if run.status == "failed":
        wrong.append(f"the run failed ({show(run.failure)}): run the sweep again with --retry-failed")
    return wrong


def _evaluation_departures(run: RunRecord) -> Iterator[str]:
    """The steps that were evaluated, and the choice among them, redone."""
    s = run.spec
    steps = [e.step for e in run.evaluations]
    last = steps[-1] if steps else 0
    first = min(1, s.max_steps)
    expected = [step for step in range(first, min(last, s.max_steps) + 1) if is_evaluation_step(s, step)]
    if steps != expected:
        yield f"evaluations at steps {show(steps)}, expected {show(expected)}"
    best: Evaluation | None = None
    for evaluation in run.evaluations:
        if best is None or is_better(evaluation, best):
            best = evaluation
    if run.status == "done" and best and best.step != run.best_step:
        yield f"best_step {run.best_step}, the evaluations give {best.step}"


def _test_departures(run: RunRecord, test: FinalScore) -> list[str]:
    wrong = []
    lengths = {"rows": len(test.rows), "labels": len(test.labels), "predictions": len(test.predictions)}
    n = run.split.n_test if run.split else lengths["rows"]
    for name, length in lengths.items():
        if length != n or not length:
            wrong.append(f"test.{name}: {length} of them, the split has {n} test rows")
    if run.spec.test_limit is not None and n > run.spec.test_limit:
        wrong.append(f"split.n_test {n} is above test_limit {run.spec.test_limit}")
    if len(set(test.rows)) < len(test.rows):
        wrong.append("test.rows: a row is there more than once")
    if any(row < 0 for row in test.rows):
        wrong.append(f"test.rows: {_range(test.rows)}, expected 0 or more")
    wrong += _value_departures(run, test)
    scores = {f"test.further.{name}": (name, score) for name, score in test.further.items()}
    for place, (metric, score) in ({"test.metric": (run.metric, test.metric)} | scores).items():
        # what evaluate alone computes it has from the network, in code of its own
        if wrong or metric.startswith(EVALUATE):
            continue
        if metric not in METRICS:
            wrong.append(f"{place}: no metric of that name")
            continue
        try:
            redone = compute(metric, test.labels, test.predictions, test.questions)
        except (ArithmeticError, ValueError) as error:  # numbers too large to compare
            wrong.append(f"{place}: labels and predictions give none: {show(first_line(error))}")
            continue
        # not exactly: another release of the metric's library may add in another order
        if not math.isclose(redone, score, rel_tol=0, abs_tol=1e-12):
            wrong.append(f"{place} {score!r}, labels and predictions give {redone!r}")
    try:
        task = get_task(run.spec.task)
    except UnknownTaskError:
        return wrong
    if run.metric != task.metric:
        wrong.append(f"metric {run.metric}, the task {task.name} has {task.metric}")
    return wrong


def _value_departures(run: RunRecord, test: FinalScore) -> list[str]:
    """Labels and predictions of other types than the metric is of, or out of range."""
    metrics = (run.metric, *test.further)
    wrong = []
    if any(metric in OF_QUESTIONS for metric in metrics) and test.questions is None:
        wrong.append("test.questions: missing, and a metric is of questions")
    if test.questions is not None and len(test.questions) != len(test.rows):
        wrong.append(f"test.questions: {len(test.questions)} of them for {len(test.rows)} rows")
    if any(metric.startswith("answer_") for metric in metrics):
        right = all(isinstance(answers, tuple) and answers for answers in test.labels)
        if not right or not all(isinstance(text, str) for text in test.predictions):
            wrong.append("test.labels, test.predictions: expected lists of right texts, and texts")
        return wrong
    limit = _n_classes(run)
    for name in ("labels", "predictions"):
        values = getattr(test, name)
        classes = not (run.metric in CORRELATIONS or run.metric.startswith(EVALUATE))
        if not all(isinstance(value, int if classes else int | float) for value in values):
            wrong.append(f"test.{name}: expected {'classes' if classes else 'numbers'}")
        elif classes and not all(0 <= value < limit for value in values):
            wrong.append(f"test.{name}: {_range(values)}, expected 0 to {limit - 1:g}")
    return wrong


def _range(values: Sequence[float]) -> str:
    return f"values from {min(values)} to {max(values)}"


def _n_classes(run: RunRecord) -> int:
    """How many labels there are, where the task is known here in the version of the record; else many."""
    try:
        task = get_task(run.spec.task)
    except UnknownTaskError:
        return MOST_CLASSES
    return len(task.labels) if task.version_for(run.spec.method) == run.spec.task_version else MOST_CLASSES


def _read_back_departures(spec: RunSpec, live: ReadBack) -> list[str]:
    """What ran against what was asked for; an optimizer that is not built in keeps its own secrets."""
    wrong = []
    if not spec.max_steps and live.model_copy(update=NOTHING_TRAINED) != live:
        wrong.append("read_back: something is trained in a run of 0 steps")
    for place, group in enumerate(live.param_groups):
        if group.get("weight_decay") not in (spec.weight_decay, 0):
            wrong.append(
                f"read_back.param_groups.{place}.weight_decay {show(group.get('weight_decay'))}, "
                f"the spec says {spec.weight_decay:g}"
            )
    if spec.max_steps and all(g.get("weight_decay") != spec.weight_decay for g in live.param_groups):
        wrong.append(f"read_back.param_groups: none has the spec's weight_decay {spec.weight_decay:g}")
    wanted = PRECISIONS[spec.precision]
    if live.matmul_precision not in (None, wanted.matmul):
        wrong.append(
            f"read_back.matmul_precision {show(live.matmul_precision)}, {spec.precision} means "
            f"{wanted.matmul}"
        )
    autocast = {"no": None, "bf16": "bfloat16"}[wanted.autocast]
    if live.autocast_dtype != autocast:
        wrong.append(
            f"read_back.autocast_dtype {show(live.autocast_dtype)}, {spec.precision} means {autocast}"
        )
    if (live.adapter is None) != (spec.peft is None):
        wrong.append(f"read_back.adapter {show(live.adapter)}, the spec says peft {spec.peft}")
    whole = spec.max_steps > 0 and spec.peft is None and spec.freeze is None
    if (live.trained is None) != whole:
        wrong.append(
            f"read_back.trained {show(live.trained)}, the spec says peft {spec.peft}, freeze {spec.freeze}"
        )
    return wrong + (_optimizer_departures(spec, live) if spec.optimizer in OPTIMIZERS else [])


def _optimizer_departures(spec: RunSpec, live: ReadBack) -> list[str]:
    entry, asked = OPTIMIZERS[spec.optimizer], spec.hyperparameters
    if set(asked) != {*entry.hyperparameters, *entry.constants}:
        names = sorted({*entry.hyperparameters, *entry.constants})
        return [f"hyperparameters {show(sorted(asked))}, {spec.optimizer} has {names}"]
    try:
        torch_rate = entry.torch_rate(asked)
        rates = entry.schedule([learning_rate(spec, step) for step in range(spec.max_steps)], asked)
        settings, tensors = entry.settings(asked), entry.state_tensors(asked)
    except (ArithmeticError, UserError) as error:
        return [f"hyperparameters {show(asked)}: {show(first_line(error))}"]
    wrong = []
    if not _same(live.torch_learning_rate, torch_rate * spec.learning_rate):
        wrong.append(
            f"read_back.torch_learning_rate {live.torch_learning_rate!r}, {spec.optimizer} at "
            f"{spec.learning_rate!r} runs {torch_rate * spec.learning_rate!r}"
        )
    if set(live.state_tensors) != tensors:
        wrong.append(f"read_back.state_tensors {show(live.state_tensors)}, expected {sorted(tensors)}")
    for place, group in enumerate(live.param_groups):
        # what the optimizer itself holds under the names of its hyperparameters, and what its entry promises
        promised: dict[str, Any] = {name: asked[name] for name in asked if name in group}
        promised |= {**settings, "lr": rates[0] * torch_rate}
        for name, value in promised.items():
            if not _same(group.get(name), value):
                wrong.append(
                    f"read_back.param_groups.{place}.{name} {show(group.get(name))}, expected {show(value)}"
                )
    return wrong


def _same(found: Any, expected: Any) -> bool:
    """Equal values; numbers to 12 digits, for a product of rates may round otherwise elsewhere."""
    if isinstance(found, float | int) and isinstance(expected, float | int):
        return math.isclose(found, expected, rel_tol=1e-12)
    return found == expected
