"""Check whether a task can be run: its rows, its split, its prompts, and two steps of training.

A fault that makes results wrong or impossible is an error, and ends the check. A fact that a reader of the
results should know is a warning.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.data.leakage import Question, asked, leaked_rows, question
from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.encoding.label_words import label_word_ids
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.prepare import check_vocabulary, prepare, remarks
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.sweeps.plan import plan
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.tasks import Task

N_SHOWN = 3
"""How many examples are shown, of different classes where there are enough."""

LONGEST_SHOWN = 600
"""How many characters of an example are shown; the middle of a longer one is left out."""

SETTINGS: dict[str, Any] = {
    "seeds": (13,),
    "optimizers": ("sgdm",),
    "learning_rates": (1e-3,),
    "batch_size": 2,
    "max_steps": 2,
    "eval_every": 1,
    "test_limit": 50,
}
"""The settings of the one run that is tried. They are small, so that a large model can do it on a CPU."""


class Finding(NamedTuple):
    """One result of the check: its subject, and what was found."""

    about: str
    text: str

    @property
    def is_warning(self) -> bool:
        return self.about == "warning"


def findings(sweep: Sweep) -> Iterator[Finding]:
    """All findings about the one task of a sweep with `SETTINGS`, in the order of the checks.

    Raises:
        UserError: the task cannot be run, or should not be run. The message says why.
    """
    task = find_task(sweep.task[0], sweep.task_file)
    assert isinstance(task, Task)  # the command line refuses tasks of images here
    yield Finding("task", f"{task.name}, {task.kind}, version {task.version_for(sweep.method)}: {task.title}")
    session = prepare(
        [],
        Inputs(sweep.model, sweep.data_dir, None, sweep.task_file, reading=sweep.reading),
        sweep.precision,
        cpu=True,
    )
    data = session.data(task)
    if seeds := [seed for seed in data.given or () if seed is not None]:
        sweep = sweep.model_copy(update={"seeds": (seeds[0],)})
    yield from _of_rows(data)
    yield from _of_split(data, sweep)

    source = session.model_source
    (spec,) = plan(sweep, [data], source.name, source.revision)
    yield Finding("model", f"{source.name}, by {spec.method}, on the CPU")
    if spec.method == "prompt":
        ids = label_word_ids(session.tokenizer, task)
        words = zip(task.label_words, ids, strict=True)
        yield Finding("words", ", ".join(f"{word} = token {id}" for word, id in words))
    split = session.split(spec)
    if not sweep.allow_unknown_tokens:
        check_vocabulary(spec, split.facts)
    for line in remarks(spec, split.facts):
        if " unknown " in line or "special tokens alone" in line:  # leakage is reported above
            yield Finding("warning", line.removeprefix("warning: "))
    train, dev, test = (part for part in (split.train, split.dev, split.test) if isinstance(part, Encoded))
    yield from _of_encoding(spec.method, {"train": train, "dev": dev, "test": test}, session.tokenizer)
    for row in _rows_to_show(train.labels):
        yield Finding("example", _shown(task, train, row, session.tokenizer))
    with tempfile.TemporaryDirectory() as folder:
        yield from _of_training(spec, session, Store(Path(folder)))


def _of_rows(data: TaskData) -> Iterator[Finding]:
    task = data.task
    assert isinstance(task, Task)
    yield Finding("rows", f"{len(data.train)} {data.called}, {len(data.test)} test rows; {data.origin}")
    for role, examples in (("train", data.train), ("test", data.test)):
        yield Finding("labels", f"{role}: {_label_counts(task, examples)}")
    if task.kind == "classification":
        absent = set(range(len(task.labels))) - {int(example.label) for example in data.test}
        for label in sorted(absent):
            yield Finding("warning", f"no test row is {list(task.labels.values())[label]!r}")
    if data.n_empty:
        yield Finding("warning", f"{data.n_empty} rows have an empty text; they are kept")
    if data.n_unlabelled:
        yield Finding("rows", f"{data.n_unlabelled} unlabelled rows are dropped, as the task says")
    yield from _of_repeated_rows(data, task)


def _of_repeated_rows(data: TaskData, task: Task) -> Iterator[Finding]:
    """Raises: UserError, where most test rows are training rows."""
    if leaked := leaked_rows(data):
        yield Finding("warning", f"{leaked}: they leak where a split draws them")
    labels: dict[Question, set[float]] = {}
    for example in data.train:
        labels.setdefault(question(example), set()).add(example.label)
    if n_repeated := len(data.train) - len(labels):
        yield Finding("warning", f"{n_repeated} training rows repeat another: train and dev may share them")
    if n_contradicting := sum(len(of_text) > 1 for of_text in labels.values()):
        yield Finding("warning", f"{n_contradicting} texts of training rows have two labels")


def _label_counts(task: Task, examples: Sequence[Example]) -> str:
    if task.kind == "regression":
        numbers = [example.label for example in examples]
        return f"numbers from {min(numbers):g} to {max(numbers):g}"
    counts = Counter(int(example.label) for example in examples)
    choosing = task.kind == "multiple_choice"
    names = [f"candidate {i + 1}" for i in range(max(counts) + 1)] if choosing else task.labels.values()
    return ", ".join(f"{counts[i]} {name}" for i, name in enumerate(names))


def _of_split(data: TaskData, sweep: Sweep) -> Iterator[Finding]:
    task = data.task
    assert isinstance(task, Task)
    few = draw_split(data, sweep.k, sweep.seeds[0], sweep.protocol)
    train, dev = ([asked(task, data.train[row]) for row in rows] for rows in (few.train, few.dev))
    yield Finding(
        "split", f"k = {sweep.k}, seed {sweep.seeds[0]}: {len(train)} train rows, {len(dev)} dev rows"
    )
    if few.short_classes:
        names = list(task.labels.values())
        of = ", ".join("passages" if task.groups else f"rows of {names[c]}" for c in few.short_classes)
        yield Finding("warning", f"fewer than 2 x {sweep.k} {of}: train or dev has too few of them")
    if n_shared := sum(each in set(train) for each in dev):
        yield Finding("warning", f"{n_shared} of {len(dev)} dev rows of this split are train rows too")
    drawn = {*train, *dev}
    if n_shared := sum(asked(task, example) in drawn for example in data.test):
        yield Finding("warning", f"{n_shared} test rows are in this split's train or dev")


def _of_encoding(method: str, parts: dict[str, Encoded], tokenizer: Any) -> Iterator[Finding]:
    lengths = [len(ids) for part in parts.values() for ids in part.input_ids]
    yield Finding("tokens", f"{min(lengths)} to {max(lengths)} in an encoded text")
    cut = ", ".join(f"{part.n_truncated} of {len(part.labels)} {name}" for name, part in parts.items())
    n_cut = sum(part.n_truncated for part in parts.values())
    yield Finding("warning" if n_cut else "cut", f"examples that were too long and were cut: {cut}")
    if method == "causal":
        places = [len(read) for part in parts.values() for read in part.read_at or ()]
        yield Finding("scored", f"{min(places)} to {max(places)} tokens of each candidate")
    elif method == "prompt":
        masks = Counter(
            ids.count(tokenizer.mask_token_id) for part in parts.values() for ids in part.input_ids
        )
        if set(masks) != {1}:
            raise UserError(f"encoded texts have {sorted(masks)} masks each; expected exactly one")
        yield Finding("masks", f"one in each of {masks[1]} encoded texts")


def _rows_to_show(labels: Sequence[int] | Sequence[float]) -> list[int]:
    """Positions of the first examples of different labels, then of other examples."""
    first = {label: row for row, label in reversed(list(enumerate(labels)))}
    order = dict.fromkeys([*sorted(first.values()), *range(len(labels))])
    return sorted(list(order)[:N_SHOWN])


def _shown(task: Task, encoded: Encoded, row: int, tokenizer: Any) -> str:
    """An encoded example as text, with its special tokens; where it has candidates, the right one."""
    label, place, name = encoded.labels[row], row, f"{encoded.labels[row]:g}"
    if task.kind == "classification":
        name = list(task.labels.values())[int(label)]
        name += f" -> {task.label_words[int(label)]}" if encoded.read_at is not None else ""
    if encoded.candidates is not None:
        n = encoded.candidates[row]
        place = sum(encoded.candidates[:row]) + int(label)
        if task.kind == "multiple_choice":  # in training, a decoder may get only the right one
            name = f"candidate {int(label) + 1} of {n}" if n > 1 else "the right candidate"
    ids = encoded.input_ids[place]
    text = tokenizer.decode(ids)
    if len(text) > LONGEST_SHOWN:
        half = LONGEST_SHOWN // 2
        text = f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
    return f"{name}, {len(ids)} tokens: {text}"


def _of_training(spec: RunSpec, session: Any, store: Store) -> Iterator[Finding]:
    record = finetune(spec, session, store.journal(spec))
    if record.status != "done" or record.test is None:
        raise UserError(f"{spec.task}: two steps of training failed: {record.failure}")
    losses = " and ".join(f"{evaluation.train_loss:.4f}" for evaluation in record.evaluations)
    yield Finding(
        "trained",
        f"{spec.max_steps} steps of {spec.optimizer}, losses {losses}; {record.metric} of "
        f"{len(record.test.rows)} test rows {record.test.metric:.3f}",
    )
