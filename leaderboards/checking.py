"""Does a folder of records hold together with itself and with its tables? Every departure, named.

What is read here may come from anybody: sizes are looked at before contents, links that lead out of
the folder are not followed, and every text is made printable before it is shown.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError, first_line
from harness.metrics import CORRELATIONS, EVALUATE, METRICS, OF_QUESTIONS, compute
from harness.optimizers import OPTIMIZERS
from harness.precision import PRECISIONS
from harness.protocols import PROTOCOLS
from harness.records import (
    NO_OPTIMIZER,
    PROTOCOL_VERSION,
    Evaluation,
    FinalScore,
    ReadBack,
    RunRecord,
    RunSpec,
    canonical_json,
    is_better,
)
from harness.schedules import is_evaluation_step, learning_rate
from harness.store import MARKER, checksum
from leaderboards.archive import ARCHIVE, archive_of, named_lines
from leaderboards.build import Leaderboard, Row, board_of
from leaderboards.outputs import tables
from leaderboards.paired import MARGIN
from tasks import UnknownTaskError, get_task

LARGEST_BYTES = 64 * 2**20
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

REQUIRED = ("leaderboard.csv", "comparison.csv")
"""Tables that must be there; others are compared where they are."""


REWRITTEN = "is not as it was written"


_Read = tuple[str, RunRecord | None, list[str]]
"""The run in whose place a record stands, the record, and what is wrong with its text."""


class _Refused(Exception):
    """A file that cannot be read, and why."""


@dataclass(frozen=True)
class _Folder:
    """A folder by its resolved path; `refused` are the entries not to be opened, with the reasons."""

    root: Path
    refused: Mapping[str, str]

    def read(self, name: str) -> bytes | None:
        """A file's content; None where it was refused before.

        Raises:
            _Refused: it is not there, no plain file, or too large.
        """
        if any(str(part) in self.refused for part in (Path(name), *Path(name).parents)):
            return None
        try:
            if not stat.S_ISREG((self.root / name).stat().st_mode):
                raise _Refused("is no plain file")
            with (self.root / name).open("rb") as file:
                content = file.read(LARGEST_BYTES + 1)
        except FileNotFoundError:
            raise _Refused("is not there") from None
        except OSError as error:
            raise _Refused(f"cannot be read: {error.strerror}") from error
        if len(content) > LARGEST_BYTES:
            raise _Refused(_TOO_LARGE)
        return content


_TOO_LARGE = f"is larger than {LARGEST_BYTES // 2**20} MiB and was not read"


def departures(directory: Path, margin: float = MARGIN) -> list[str]:
    """All that is wrong with a folder of records and its tables, a line each.

    The records are `runs/<id>/record.json`, or all in one archive. The page, the plots and
    `trials.parquet` are not read: they follow from the same records.

    Args:
        margin: the equivalence margin with which the tables must have been built, a fraction.

    Raises:
        UserError: there is no folder of runs to check, or an archive cannot be read.
    """
    archive = archive_of(directory)
    if archive is None and not (directory / "runs").is_dir():
        raise UserError(
            f"{directory} has no folder runs/ and no {ARCHIVE}: check wants records and tables in one folder"
        )
    folder = _folder(directory)
    return _departures(folder, _stored(folder) if archive is None else _archived(folder), margin)


def record_departures(directory: Path) -> list[str]:
    """What is wrong with the records of a folder, a line each, before anything is built of them."""
    folder = _folder(directory)
    return [*_folder_departures(folder), *_checked_records(_stored(folder))[1]]


def _folder(directory: Path) -> _Folder:
    root = directory.resolve()
    return _Folder(root, dict(_refusals(root)))


def _stored(folder: _Folder) -> Iterator[_Read]:
    for name in _run_folders(folder):
        yield name, *_read_record(folder, f"runs/{name}/record.json", name)


def _archived(folder: _Folder) -> Iterator[_Read]:
    if ARCHIVE not in folder.refused:
        for name, line in named_lines(folder.root / ARCHIVE):
            yield name, *_parsed(line, name)


def _departures(folder: _Folder, read: Iterable[_Read], margin: float) -> list[str]:
    """All departures of a folder and the records that stand in it or in its archive."""
    records, wrong = _checked_records(read)
    found = [*_folder_departures(folder), *wrong]
    try:
        board = board_of(records, margin=margin)
        texts = tables(board)
    except (ArithmeticError, ValueError, UserError) as error:
        return [*found, f"no leaderboard can be built of these records: {show(first_line(error))}"]
    found += [gap for row in board.rows for gap in _gaps(row)]
    return found + _all_table_departures(folder, texts, board)


def _folder_departures(folder: _Folder) -> list[str]:
    refused = [f"{show(name)} {reason}" for name, reason in folder.refused.items()]
    return refused + _marker_departures(folder)


def _checked_records(read: Iterable[_Read]) -> tuple[list[RunRecord], list[str]]:
    """The records that a leaderboard can be made of, and what is wrong with any, a line each."""
    records, found = [], []
    for name, record, wrong in read:
        file = f"runs/{name}/record.json"
        if record:
            contradictions = _contradictions(record)
            if not contradictions and set(wrong) <= {REWRITTEN}:  # what a leaderboard is made of
                records.append(record)
            wrong += contradictions or _record_departures(record)
        found += [f"{show(file)}: {text}" for text in wrong]
    return records, [*found, *_disagreements(records)]


def show(text: object) -> str:
    """A text that came from elsewhere, on one line of at most 160 printable characters."""
    line = "".join(letter if letter.isprintable() else "?" for letter in str(text))
    return line if len(line) <= 160 else line[:157] + "..."


def _refusals(root: Path) -> Iterator[tuple[str, str]]:
    """Entries anywhere below the folder that are not to be opened, and why."""
    for place, folders, files in os.walk(root):
        for entry in sorted(folders + files):
            path = Path(place, entry)
            name = str(path.relative_to(root))
            if path.is_symlink() and not _stays_inside(path, root):
                yield name, "is a symbolic link that leads out of the folder"
            elif entry in files and _size(path) > LARGEST_BYTES:
                yield name, _TOO_LARGE


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link to itself
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # gone, or a broken link; reading it says so


def _run_folders(folder: _Folder) -> list[str]:
    runs = folder.root / "runs"
    if "runs" in folder.refused or not runs.is_dir():
        return []
    return sorted(path.name for path in runs.iterdir() if path.is_dir())


def _marker_departures(folder: _Folder) -> list[str]:
    """The marker of a results directory may be left out of a submission; if there, it must be ours."""
    if not os.path.lexists(folder.root / MARKER):
        return []
    try:
        content = folder.read(MARKER)
        version = None if content is None else json.loads(content)["protocol_version"]
    except _Refused as error:
        return [f"{MARKER} {error}"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"{MARKER} cannot be understood: expected the protocol version"]
    return [] if content is None or version == PROTOCOL_VERSION else [f"{MARKER}: {_version(version)}"]


def _version(found: object) -> str:
    return f"protocol version {show(found)}, and this is version {PROTOCOL_VERSION}"


def _read_record(folder: _Folder, file: str, run_id: str) -> tuple[RunRecord | None, list[str]]:
    """The record of a file, and what is wrong with the file; without a record nothing more can be said."""
    try:
        content = folder.read(file)
        return (None, []) if content is None else _parsed(content, run_id)
    except _Refused as error:
        return None, [str(error)]


def _parsed(content: bytes, run_id: str) -> tuple[RunRecord | None, list[str]]:
    try:
        text = content.decode()
        fields = json.loads(text)
        if not isinstance(fields, dict):
            return None, [f"is no record: expected an object, found {type(fields).__name__}"]
        # a digit too far right to change a number would pass the checksum
        wrong = [] if text == json.dumps(fields) + "\n" else [REWRITTEN]
        if fields.pop("checksum", None) != checksum(fields):
            wrong.append("is not whole: its checksum does not fit")
        spec = fields.get("spec")
        version = spec.get("protocol_version") if isinstance(spec, dict) else None
        if version is not None and version != PROTOCOL_VERSION:
            return None, [*wrong, _version(version)]
        record = RunRecord.model_validate_json(json.dumps(fields), strict=True)
        canonical_json(record.model_dump())  # a whole number may be too large for a float: no infinity here
        if record.spec.run_id != run_id:
            wrong.append(f"its spec is that of run {record.spec.run_id}: it is in another run's folder")
        return record, wrong
    except ValidationError as error:
        named = [
            f"{show('.'.join(map(str, e['loc'])))}: {show(e['msg'])}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        return None, wrong + named
    except ValueError as error:  # no JSON, no UTF-8, or a number that is not finite
        return None, [f"is no record: {show(first_line(error))}"]
    except RecursionError:
        return None, ["is nested too deeply for a record"]


def _contradictions(run: RunRecord) -> list[str]:
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


def _record_departures(run: RunRecord) -> list[str]:
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


def _disagreements(records: Iterable[RunRecord]) -> Iterator[str]:
    """Runs whose test rows and labels, or whose few-shot split, differ from those of their fellows."""
    test: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    splits: dict[Hashable, list[tuple[str, Any]]] = defaultdict(list)
    for run in records:
        s = run.spec
        data = (s.task, s.task_version, s.data_fingerprint, s.test_limit)
        if run.test:
            test[data].append((s.run_id, (run.test.rows, run.test.labels)))
        if run.split:
            splits[(*data, s.k, s.seed)].append((s.run_id, run.split.content_hash))
    for groups, what in ((test, "test rows and labels"), (splits, "split.content_hash")):
        for runs in groups.values():
            commonest = Counter(value for _, value in runs).most_common(1)[0][0]
            for run_id, value in runs:
                if value != commonest:
                    yield f"runs/{run_id}/record.json: other {what} than the other runs of the same data"


def _gaps(row: Row) -> Iterator[str]:
    """The cells of a row's grid that have no run."""
    there = {(run.spec.seed, run.spec.learning_rate) for run in row.runs}
    for seed in sorted({seed for seed, _ in there}):
        for rate in sorted({rate for _, rate in there}):
            if (seed, rate) not in there:
                yield f"row {row.row_id} ({show(_who(row.columns))}): no run of seed {seed} at rate {rate:g}"


def _who(columns: Mapping[str, Any]) -> str:
    """Whose row of a table it is, in words."""
    names = ("task", "optimizer", "first", "second", "hyperparameters")
    return " ".join(str(columns[name]) for name in names if columns.get(name))


def _all_table_departures(folder: _Folder, texts: Mapping[str, str], board: Leaderboard) -> list[str]:
    """The tables in the folder against those that the records give."""
    in_tasks = folder.root / "tasks"
    extra = [f"tasks/{path.name}" for path in sorted(in_tasks.glob("*.csv")) if "tasks" not in folder.refused]
    found = []
    for name in dict.fromkeys([*texts, *extra]):
        if name not in REQUIRED and not os.path.lexists(folder.root / name):
            continue
        try:
            content = folder.read(name)
            if content is None:
                continue
            if name not in texts:
                raise _Refused("is a table that the records do not give")
            found += [f"{name}{wrong}" for wrong in _table_departures(content.decode(), texts[name])]
        except _Refused as error:
            found.append(f"{show(name)} {error}")
        except (ValueError, csv.Error) as error:
            found.append(f"{show(name)} is no table: {show(first_line(error))}")
    return found


def _table_departures(found: str, expected: str) -> list[str]:
    """Where a CSV differs from the one it should be, cell by cell."""
    if found == expected:
        return []
    there, given = _table(found), _table(expected)
    wrong = []
    if there.names != given.names:
        missing = [name for name in given.names if name not in there.names]
        added = [name for name in there.names if name not in given.names]
        wrong += [f": column {name} is missing" for name in missing]
        wrong += [f": column {show(name)} is none of a leaderboard's" for name in added]
        wrong += [] if missing or added else [": its columns are in another order"]
    for place, row, rebuilt in _paired(there.rows, given.rows):
        if rebuilt is None:
            wrong.append(f", row {place}: no such row follows from the records")
        elif row is None:
            wrong.append(f": the row of {show(_who(rebuilt))} is missing")
        else:
            wrong += [
                f", row {place} ({show(_who(rebuilt))}), column {name}: {show(row[name])!r}, "
                f"the records give {show(value)!r}"
                for name, value in rebuilt.items()
                if name in row and row[name] != value
            ]
    return wrong or [": rows in another order, or other quotes or line ends"]


@dataclass(frozen=True)
class _Table:
    names: list[str]
    rows: list[dict[str, str]]


def _table(text: str) -> _Table:
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not lines:
        return _Table([], [])
    names, *rows = lines
    for place, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"row {place} has {len(row)} cells for {len(names)} columns")
    return _Table(names, [dict(zip(names, row, strict=True)) for row in rows])


def _paired(
    found: Sequence[dict[str, str]], expected: Sequence[dict[str, str]]
) -> list[tuple[int, dict[str, str] | None, dict[str, str] | None]]:
    """Rows found with the rows they should be, by id, then those left over in their order.

    Returns:
        Place of the found row from 1 (0: there is none), the row, what it should be.
    """
    left = list(enumerate(found, 1))
    pairs: list[tuple[int, dict[str, str] | None, dict[str, str] | None]] = []
    unpaired = []
    by_key: dict[tuple, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for place, row in left:
        by_key[_key(row)].append((place, row))
    for rebuilt in expected:
        same = by_key[_key(rebuilt)]
        if same and _key(rebuilt):
            pairs.append((*same.pop(0), rebuilt))
        else:
            unpaired.append(rebuilt)
    taken = {place for place, _, _ in pairs}
    left = [(place, row) for place, row in left if place not in taken]
    for (place, row), rebuilt in zip(left, unpaired, strict=False):
        pairs.append((place, row, rebuilt))
    pairs += [(place, row, None) for place, row in left[len(unpaired) :]]
    pairs += [(0, None, rebuilt) for rebuilt in unpaired[len(left) :]]
    return pairs


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("row_id", "first_row_id", "second_row_id") if name in row)
