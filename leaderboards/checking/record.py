"""Whether a record is whole and agrees with itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.metrics.compute import compute
from momentum_bench.harness.metrics.functions import CORRELATIONS, EVALUATE, METRICS, OF_QUESTIONS
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.optimizers.schedules import is_evaluation_step, learning_rate
from momentum_bench.harness.records.files import checksum
from momentum_bench.harness.records.precision import PRECISIONS
from momentum_bench.harness.records.schema import (
    NO_OPTIMIZER,
    PROTOCOL_VERSION,
    DevPredictions,
    Evaluation,
    FinalScore,
    ReadBack,
    RunRecord,
    RunSpec,
    canonical_json,
    is_better,
)
from momentum_bench.harness.sweeps.protocols import PROTOCOLS
from momentum_bench.leaderboards.printable import short_line
from momentum_bench.tasks import UnknownTaskError, get_task

MOST_STEPS = 1_000_000
"""A schedule is followed step by step, so a record with more steps is refused."""

MOST_CLASSES = 2**31
"""The bound on labels where the task is not known here."""

REWRITTEN = "is not as it was written"
"""The departure of a record whose text is not what writing its fields gives."""

NOTHING_TRAINED: dict[str, Any] = {
    "optimizer_class": NO_OPTIMIZER,
    "torch_learning_rate": 0.0,
    "param_groups": (),
    "state_tensors": (),
    "optimizer_state_bytes": 0,
    "n_trainable_parameters": 0,
    "trained": (),
}
"""What is read back from a run of 0 steps."""


def checked_record(content: bytes, run_id: str) -> tuple[RunRecord | None, list[str]]:
    """The record in a text, and what is wrong with the text; without a record, nothing more can be said.

    Args:
        content: what the record's file holds.
        run_id: the id of the run in whose place the record is.
    """
    wrong: list[str] = []
    try:
        text = content.decode()
        fields = json.loads(text)
        if not isinstance(fields, dict):
            return None, [f"is not a record: expected an object, found {type(fields).__name__}"]
        # a digit too far to the right to change a number would pass the checksum
        wrong += [] if text == json.dumps(fields) + "\n" else [REWRITTEN]
        if fields.pop("checksum", None) != checksum(fields):
            wrong.append("is not whole: its checksum does not fit")
        spec = fields.get("spec")
        version = spec.get("protocol_version") if isinstance(spec, dict) else None
        if version is not None and version != PROTOCOL_VERSION:
            return None, [*wrong, other_version(version)]
        record = RunRecord.model_validate_json(json.dumps(fields), strict=True)
        canonical_json(record.model_dump())  # refuses a whole number that is too large for a float
    except ValidationError as error:
        return None, wrong + [
            f"{short_line('.'.join(map(str, e['loc'])))}: {short_line(e['msg'])}"
            for e in error.errors(include_url=False, include_input=False)
        ]
    except ValueError as error:  # it is not JSON, not UTF-8, or has a number that is not finite
        return None, [f"is not a record: {short_line(first_line(error))}"]
    except RecursionError:
        return None, ["is nested too deeply for a record"]
    if record.spec.run_id != run_id:
        # `named_lines` calls a line so whose run another line has
        where = (
            "an earlier line of the archive has this run"
            if run_id.startswith("line-")
            else "it is in another run's folder"
        )
        wrong.append(f"its spec is that of run {record.spec.run_id}: {where}")
    return record, wrong


def other_version(found: object) -> str:
    """The departure of something that another protocol version wrote."""
    return f"protocol version {short_line(found)}, and this is version {PROTOCOL_VERSION}"


def contradictions(run: RunRecord) -> list[str]:
    """What keeps a record out of every leaderboard: settings out of range, or a status without its parts."""
    s = run.spec
    ranges = {
        f"max_steps {s.max_steps}, expected 0 to {MOST_STEPS}": 0 <= s.max_steps <= MOST_STEPS,
        f"optimizer {short_line(s.optimizer)}, max_steps {s.max_steps}: "
        f"expected {NO_OPTIMIZER} for 0 steps, and for them alone": (
            (s.optimizer == NO_OPTIMIZER) == (s.max_steps == 0)
        ),
        f"eval_every {s.eval_every}, expected 1 or more": s.eval_every >= 1,
        f"warmup_steps {s.warmup_steps}, expected 0 or more, below max_steps": (
            0 <= s.warmup_steps < max(s.max_steps, 1)
        ),
        f"learning_rate {s.learning_rate:g}, expected above 0, or 0 without training": (
            s.learning_rate > 0 if s.max_steps else s.learning_rate == 0
        ),
        f"protocol {short_line(s.protocol)!r}, expected one of {', '.join(PROTOCOLS)}": s.protocol
        in PROTOCOLS,
        f"metric {short_line(run.metric)!r}, expected one of {', '.join(METRICS)} or {EVALUATE}NAME": (
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
    if run.dev is not None and not done:  # a done run of an older version has none
        wrong.append(f"status {run.status} with dev")
    if done != (run.failure is None):
        wrong.append(f"status {run.status} {'with' if done else 'without'} failure")
    if run.status == "failed" and run.evaluations:
        wrong.append("status failed with evaluations")
    if done != (last == s.max_steps):
        where = f"a last evaluation at step {last}" if run.evaluations else "no evaluation"
        wrong.append(f"status {run.status} with {where} of {s.max_steps} steps")
    if done and run.best is None:
        wrong.append(f"best_step {run.best_step} is not a step that was evaluated")
    return wrong


def departures_of_record(run: RunRecord) -> list[str]:
    """What is wrong with a record that has no contradictions, one line for each departure."""
    wrong = [*_evaluation_departures(run)]
    if run.dev and run.best:
        wrong += _dev_departures(run, run.dev, run.best)
    if run.test:
        wrong += _test_departures(run, run.test)
    if run.read_back:
        wrong += _read_back_departures(run.spec, run.read_back)
    if run.costs and min(v for v in run.costs.model_dump().values() if v is not None) < 0:
        wrong.append("costs: a negative number")
    if run.clipped_fraction is not None and not 0 <= run.clipped_fraction <= 1:
        wrong.append(f"clipped_fraction {run.clipped_fraction:g}, expected 0 to 1")
    if run.status == "failed":
        wrong.append(f"the run failed ({short_line(run.failure)}): run the sweep again with --retry-failed")
    return wrong


def _evaluation_departures(run: RunRecord) -> Iterator[str]:
    """The steps that were evaluated, and the choice of a checkpoint among them."""
    s = run.spec
    steps = [e.step for e in run.evaluations]
    last = steps[-1] if steps else 0
    first = min(1, s.max_steps)
    expected = [step for step in range(first, min(last, s.max_steps) + 1) if is_evaluation_step(s, step)]
    if steps != expected:
        yield f"evaluations at steps {short_line(steps)}, expected {short_line(expected)}"
    best: Evaluation | None = None
    for evaluation in run.evaluations:
        if best is None or is_better(evaluation, best):
            best = evaluation
    if run.status == "done" and best and best.step != run.best_step:
        yield f"best_step {run.best_step}, the evaluations give {best.step}"


def _dev_departures(run: RunRecord, dev: DevPredictions, best: Evaluation) -> list[str]:
    """The dev predictions of the chosen checkpoint, and its dev score computed again from them."""
    lengths = {"labels": len(dev.labels), "predictions": len(dev.predictions)}
    n = run.split.n_dev if run.split else lengths["labels"]
    wrong = [
        f"dev.{name}: {length} of them, the split has {n} dev rows"
        for name, length in lengths.items()
        if length != n or not length
    ]
    wrong += _value_departures(run, "dev", dev, (run.metric,))
    return wrong or _score_departures("dev_metric at best_step", run.metric, best.dev_metric, dev)


def _test_departures(run: RunRecord, test: FinalScore) -> list[str]:
    """The test predictions, and the scores computed again from them."""
    metrics = (run.metric, *test.further)
    wrong = [*_row_departures(run, test), *_value_departures(run, "test", test, metrics)]
    if not wrong:  # otherwise no score can be computed
        scores = {"test.metric": (run.metric, test.metric)}
        scores |= {f"test.further.{name}": (name, score) for name, score in test.further.items()}
        for place, (metric, score) in scores.items():
            wrong += _score_departures(place, metric, score, test)
    return wrong + _metric_departures(run)


def _row_departures(run: RunRecord, test: FinalScore) -> list[str]:
    """The number of test rows, and which they are."""
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
    return wrong


def _score_departures(
    place: str, metric: str, score: float, scored: DevPredictions | FinalScore
) -> list[str]:
    """A score against the one that labels and predictions give."""
    if metric.startswith(EVALUATE):  # computed by code that evaluate downloads, which is not run here
        return []
    if metric not in METRICS:
        return [f"{place}: there is no metric of that name"]
    try:
        redone = compute(metric, scored.labels, scored.predictions, scored.questions)
    except (ArithmeticError, ValueError) as error:  # numbers too large to compare
        return [f"{place}: labels and predictions give no score: {short_line(first_line(error))}"]
    # not exactly, because another release of the metric's library may add in another order
    if math.isclose(redone, score, rel_tol=0, abs_tol=1e-12):
        return []
    return [f"{place} {score!r}, labels and predictions give {redone!r}"]


def _metric_departures(run: RunRecord) -> list[str]:
    """The metric against the one of the task, if the task is known here."""
    try:
        task = get_task(run.spec.task)
    except UnknownTaskError:
        return []
    return (
        [] if run.metric == task.metric else [f"metric {run.metric}, the task {task.name} has {task.metric}"]
    )


def _value_departures(
    run: RunRecord, part: str, scored: DevPredictions | FinalScore, metrics: Sequence[str]
) -> list[str]:
    """Labels and predictions whose types the metrics do not take, or that are out of range.

    Args:
        part: the name of the field, for messages.
    """
    wrong = []
    if any(metric in OF_QUESTIONS for metric in metrics) and scored.questions is None:
        wrong.append(f"{part}.questions: missing, and a metric needs them")
    if scored.questions is not None and len(scored.questions) != len(scored.labels):
        wrong.append(f"{part}.questions: {len(scored.questions)} of them for {len(scored.labels)} rows")
    if any(metric.startswith("answer_") for metric in metrics):
        right = all(isinstance(answers, tuple) and answers for answers in scored.labels)
        if not right or not all(isinstance(text, str) for text in scored.predictions):
            wrong.append(f"{part}.labels, {part}.predictions: expected lists of right answers, and texts")
        return wrong
    limit = _n_classes(run)
    for name in ("labels", "predictions"):
        values = getattr(scored, name)
        classes = not (run.metric in CORRELATIONS or run.metric.startswith(EVALUATE))
        if not all(isinstance(value, int if classes else int | float) for value in values):
            wrong.append(f"{part}.{name}: expected {'classes' if classes else 'numbers'}")
        elif classes and not all(0 <= value < limit for value in values):
            wrong.append(f"{part}.{name}: {_range(values)}, expected 0 to {limit - 1:g}")
    return wrong


def _range(values: Sequence[float]) -> str:
    return f"values from {min(values)} to {max(values)}"


def _n_classes(run: RunRecord) -> int:
    """The number of labels if the task is known here in the record's version; otherwise a large number."""
    try:
        task = get_task(run.spec.task)
    except UnknownTaskError:
        return MOST_CLASSES
    return len(task.labels) if task.version_for(run.spec.method) == run.spec.task_version else MOST_CLASSES


def _read_back_departures(spec: RunSpec, live: ReadBack) -> list[str]:
    """What ran, against what was asked for; nothing is known about an optimizer that is not built in."""
    wrong = []
    if not spec.max_steps and live.model_copy(update=NOTHING_TRAINED) != live:
        wrong.append("read_back: something was trained in a run of 0 steps")
    for place, group in enumerate(live.param_groups):
        if group.get("weight_decay") not in (spec.weight_decay, 0):
            wrong.append(
                f"read_back.param_groups.{place}.weight_decay {short_line(group.get('weight_decay'))}, "
                f"the spec says {spec.weight_decay:g}"
            )
    if spec.max_steps and all(g.get("weight_decay") != spec.weight_decay for g in live.param_groups):
        wrong.append(f"read_back.param_groups: no group has the spec's weight_decay {spec.weight_decay:g}")
    wanted = PRECISIONS[spec.precision]
    if live.matmul_precision not in (None, wanted.matmul):
        wrong.append(
            f"read_back.matmul_precision {short_line(live.matmul_precision)}, {spec.precision} means "
            f"{wanted.matmul}"
        )
    autocast = {"no": None, "bf16": "bfloat16"}[wanted.autocast]
    if live.autocast_dtype != autocast:
        wrong.append(
            f"read_back.autocast_dtype {short_line(live.autocast_dtype)}, {spec.precision} means {autocast}"
        )
    if (live.adapter is None) != (spec.peft is None):
        wrong.append(f"read_back.adapter {short_line(live.adapter)}, the spec says peft {spec.peft}")
    whole = spec.max_steps > 0 and spec.peft is None and spec.freeze is None
    if (live.trained is None) != whole:
        wrong.append(
            f"read_back.trained {short_line(live.trained)}, the spec says peft {spec.peft}, "
            f"freeze {spec.freeze}"
        )
    return wrong + (_optimizer_departures(spec, live) if spec.optimizer in OPTIMIZERS else [])


def _optimizer_departures(spec: RunSpec, live: ReadBack) -> list[str]:
    """What ran against what the entry of a built-in optimizer gives."""
    entry, asked = OPTIMIZERS[spec.optimizer], spec.hyperparameters
    if set(asked) != {*entry.hyperparameters, *entry.constants}:
        names = sorted({*entry.hyperparameters, *entry.constants})
        return [f"hyperparameters {short_line(sorted(asked))}, {spec.optimizer} has {names}"]
    try:
        torch_rate = entry.torch_rate(asked)
        rates = entry.schedule([learning_rate(spec, step) for step in range(spec.max_steps)], asked)
        tensors = entry.state_tensors(asked)
        settings = [entry.promised(asked, group) for group in live.param_groups]
    except (ArithmeticError, UserError) as error:
        return [f"hyperparameters {short_line(asked)}: {short_line(first_line(error))}"]
    wrong = []
    if not _same(live.torch_learning_rate, torch_rate * spec.learning_rate):
        wrong.append(
            f"read_back.torch_learning_rate {live.torch_learning_rate!r}, {spec.optimizer} at "
            f"{spec.learning_rate!r} runs {torch_rate * spec.learning_rate!r}"
        )
    if set(live.state_tensors) != tensors:
        wrong.append(f"read_back.state_tensors {short_line(live.state_tensors)}, expected {sorted(tensors)}")
    for place, group in enumerate(live.param_groups):
        # the values that the optimizer has under the names of its hyperparameters, and those of its entry
        promised: dict[str, Any] = {name: asked[name] for name in asked if name in group}
        promised |= {**settings[place], "lr": rates[0] * torch_rate}
        for name, value in promised.items():
            if not _same(group.get(name), value):
                wrong.append(
                    f"read_back.param_groups.{place}.{name} {short_line(group.get(name))}, "
                    f"expected {short_line(value)}"
                )
    return wrong


def _same(found: Any, expected: Any) -> bool:
    """Whether values are equal; numbers to 12 digits, because a product may round otherwise elsewhere."""
    if isinstance(found, float | int) and isinstance(expected, float | int):
        return math.isclose(found, expected, rel_tol=1e-12)
    return bool(found == expected)
