"""`momentum-bench tasks`: which tasks there are, and what each of them is. Starts without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from momentum_bench.harness.cli.exits import plain_errors
from momentum_bench.harness.cli.options import option, option_of
from momentum_bench.harness.cli.output import json_option, json_text, print_listing, quiet_option
from momentum_bench.harness.data.export import held_out_texts, jsonl_texts, lmbff_texts, write_texts
from momentum_bench.harness.data.find_task import find_task, further_names, task_of
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.task_kinds import candidate_texts
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Reading
from momentum_bench.harness.installed import check_can_run
from momentum_bench.harness.messages import note
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.suites import expand_suites
from momentum_bench.tasks import (
    HubSource,
    LocalOnly,
    Task,
    TextFolders,
    UnknownTaskError,
    suites_of,
    task_names,
)
from momentum_bench.tasks.types import (
    CANDIDATE,
    AnySource,
    AnyTask,
    ImageTask,
    SklearnDigits,
    filled,
    parse_template,
)

app = typer.Typer(no_args_is_help=True, help="The tasks: list them, show one, try one, write its splits.")


NAME = typer.Argument(help="A task's name, or a Python file that defines TASK")


@app.command("list")
def list_tasks(
    quiet: Annotated[bool, quiet_option("the names of the tasks")] = False,
    as_json: Annotated[bool, json_option()] = False,
) -> None:
    """List all tasks: a table on a terminal, tab-separated lines elsewhere."""
    with plain_errors("nothing was written"):
        facts = _facts_of_all()
        if as_json:
            print(json_text({"tasks": facts}))
        elif quiet:
            print(*(each["name"] for each in facts), sep="\n")
        else:
            _print_list(facts)


def _facts_of_all() -> list[dict[str, Any]]:
    """A few facts of each task that is there, by name."""
    facts = []
    for name in sorted({*task_names(), *further_names()}):
        try:
            task = find_task(name)
        except UserError as error:  # a broken package hides no other task
            note(f"{name} is left out: {error}")
            continue
        kind = "image classification" if isinstance(task, ImageTask) else task.kind.replace("_", " ")
        n_classes = task.n_outputs if "classification" in kind else None
        facts.append(
            {
                "name": name,
                "kind": kind,
                "classes": n_classes,
                "metrics": [task.metric, *task.further_metrics],
                "source": _source(task),
                "methods": list(task.methods),
                "suites": list(suites_of(name)),
                "title": task.title,
            }
        )
    return facts


def _print_list(facts: Sequence[Mapping[str, Any]]) -> None:
    header = ("name", "kind", "classes", "metric", "source", "methods", "suites", "title")
    rows = [
        ["-" if v is None else ";".join(v) if isinstance(v, list) else str(v) for v in each.values()]
        for each in facts
    ]
    print_listing(header, rows)


@app.command("show")
def show_task(
    name: Annotated[str, NAME],
    data_dir: Annotated[
        Path | None, option("Fill the template with a row from DIR/TASK", metavar="DIR")
    ] = None,
    tsv: Annotated[str | None, option_of("tsv")] = None,
) -> None:
    """Print all facts of a task, and what a model is given of a real row.

    Without --data-dir the row is from a package or from the hub's cache. Nothing is downloaded.
    """
    with plain_errors("nothing was written"):
        task, _ = _named(name)
        if isinstance(task, ImageTask):
            facts = {name.replace("_", " "): str(value) for name, value in task.model_dump().items()}
            for fact, value in (facts | {"source": _source(task), "version": task.version}).items():
                print(f"{fact:<17}{value}")
            return
        facts, reading = _facts(task), _reading(tsv, data_dir)
        try:
            facts |= _first_row(task, data_dir, reading)
        except UserError as error:
            if data_dir is not None:
                raise
            note(f"no row is shown; give one with --data-dir DIR: {str(error).splitlines()[0]}")
        for fact, value in facts.items():
            print(f"{fact:<17}{value}")


@app.command("check")
def check_task(
    name: Annotated[str, NAME],
    data_dir: Annotated[Path | None, option_of("data_dir")] = None,
    model: Annotated[str | None, option_of("model")] = None,
    method: Annotated[str | None, option_of("method")] = None,
    k: Annotated[int | None, option_of("k")] = None,
    tsv: Annotated[str | None, option_of("tsv")] = None,
    data_revision: Annotated[str | None, option_of("data_revision")] = None,
    splits: Annotated[str | None, option_of("splits")] = None,
) -> None:
    """Try a task: rows, leakage, a split, label words, three encoded examples, two steps on the CPU."""
    with plain_errors("nothing was written"):
        check_can_run()
        task, file = _text_task(name)
        words = {"data_dir": data_dir, "model": model, "method": method, "k": k, "task_file": file}
        words |= {"tsv": tsv, "data_revision": data_revision, "splits": splits}
        given = {word: value for word, value in words.items() if value is not None}
        from momentum_bench.harness.execution import task_check

        sweep, _ = expand_suites(make_sweep({"task": task.name} | task_check.SETTINGS | given, None))
        n_warnings = 0
        for finding in task_check.findings(sweep):
            n_warnings += finding.is_warning
            text = finding.text.replace("\n", f"\n{' ' * 9}")
            print(f"{finding.about:<9}{text}", flush=True)
        print(f"{'passed':<9}{n_warnings} warning(s)")


@app.command("split")
def write_splits(
    name: Annotated[str, NAME],
    out: Annotated[Path, option("Where the files go", metavar="DIR")],
    k: Annotated[int | None, option_of("k")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the split", metavar="LIST")] = "100,13,21,42,87",
    protocol: Annotated[str, typer.Option(help="mezo or lm-bff", metavar="NAME")] = "lm-bff",
    data_dir: Annotated[Path | None, option_of("data_dir")] = None,
    test_limit: Annotated[str | None, option_of("test_limit")] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="lm-bff: the files of LM-BFF, byte for byte; jsonl: the rows as JSON lines",
            metavar="NAME",
        ),
    ] = "lm-bff",
    tsv: Annotated[str | None, option_of("tsv")] = None,
    data_revision: Annotated[str | None, option_of("data_revision")] = None,
    test_fraction: Annotated[
        float | None,
        option(
            "Write no few-shot splits: cut a test split of about this share from the one file of a task, "
            "by a hash of each row's texts",
            "--test-fraction",
            metavar="X",
        ),
    ] = None,
) -> None:
    """Write few-shot splits to OUT/TASK/K-SEED/, as the files of LM-BFF's script or as JSON lines."""
    with plain_errors("the files that were written are whole"):
        if test_fraction is not None:
            if k is not None or test_limit is not None:
                raise UserError("--test-fraction draws no few-shot split: leave out --k and --test-limit")
            _write_held_out(name, out, data_dir, test_fraction, tsv)
            return
        if form not in ("lm-bff", "jsonl"):
            raise UserError(f"--format {form}: expected lm-bff or jsonl")
        task, file = _text_task(name)
        words = {"k": k, "seeds": seeds, "protocol": protocol, "test_limit": test_limit, "task_file": file}
        words |= {"data_dir": data_dir, "tsv": tsv, "data_revision": data_revision}
        given = {word: value for word, value in words.items() if value is not None}
        sweep = make_sweep({"task": task.name} | given, None)
        if form == "lm-bff":
            texts = lmbff_texts(task, data_dir, sweep.k, sweep.seeds, sweep.test_limit)
        else:
            texts = jsonl_texts(
                task, data_dir, sweep.k, sweep.seeds, sweep.protocol, sweep.test_limit, sweep.reading
            )
        _write(out, texts)
        if form == "lm-bff" and task.accumulates_shuffles and sweep.test_limit is not None:
            note(
                f"{task.name}: the test files differ between seeds, because LM-BFF's script shuffles one "
                f"test list again for each seed. `run --test-limit` scores the same rows for all seeds: "
                f"those of --format jsonl"
            )


def _write_held_out(name: str, out: Path, data_dir: Path | None, fraction: float, tsv: str | None) -> None:
    if not 0 < fraction < 1:
        raise UserError(f"--test-fraction {fraction:g}: expected a number between 0 and 1, for example 0.2")
    task, _ = _text_task(name)
    texts = held_out_texts(task, data_dir, fraction, _reading(tsv, data_dir))
    _write(out, texts)
    counts = ", ".join(f"{len(text.splitlines())} in {path}" for path, text in texts.items())
    note(f"rows: {counts}. To use them: --data-dir {out}")


def _write(out: Path, texts: Mapping[str, str]) -> None:
    """Write files, and print their paths and digests."""
    write_texts(out, texts)
    for path, text in texts.items():
        print(out / path, hashlib.md5(text.encode()).hexdigest(), sep="\t")


def _named(name: str) -> tuple[AnyTask, Path | None]:
    """A task by its name or by its file, and the file."""
    file = Path(name) if name.endswith(".py") else None
    try:
        return (find_task(task_of(file).name, file), file) if file else (find_task(name), None)
    except UnknownTaskError as error:
        raise UserError(str(error)) from None


def _text_task(name: str) -> tuple[Task, Path | None]:
    """A task of text; raises UserError for one of images."""
    task, file = _named(name)
    if isinstance(task, ImageTask):
        flag = f"--task-file {file}" if file else f"--task {name}"
        raise UserError(
            f"{name} is an image task, and this command is for text tasks. Look at its facts with "
            f"`momentum-bench tasks show {name}`, and try it with `momentum-bench run {flag} --max-steps 10`"
        )
    return task, file


def _source(task: AnyTask) -> str:
    return _source_text(task.source)


def _source_text(source: AnySource) -> str:
    if isinstance(source, HubSource):
        config = f" ({source.config})" if source.config else ""
        return f"{source.id}{config}"
    if isinstance(source, SklearnDigits):
        return "package scikit-learn"
    return f"package {source.distribution}" if isinstance(source, TextFolders) else "--data-dir only"


def _facts(task: Task) -> dict[str, str]:
    classes = [f"{value} {label}" for value, label in task.labels.items()]
    if task.label_words:
        classes = [f"{each} -> {word}" for each, word in zip(classes, task.label_words, strict=True)]
    facts = {
        "name": task.name,
        "title": task.title,
        "suites": ", ".join(suites_of(task.name)),
        "source": _source(task),
        "source of lm-bff": _source_text(task.lmbff_source) if task.lmbff_source else "",
        "revision": task.source.revision if isinstance(task.source, HubSource) else "",
        "no copy because": task.source.reason if isinstance(task.source, LocalOnly) else "",
        "label there": (task.source.label or "") if isinstance(task.source, HubSource) else "",
        "with --data-dir": f"DIR/{task.folder or task.name}/{{{task.train},{task.test}}}.jsonl",
        "roles": f"train and dev are cut from {task.train}, test is {task.test}",
        "columns": ", ".join(task.columns),
        "rows labelled -1": "dropped" if task.unlabelled == "drop" else "an error",
        "kind": task.kind.replace("_", " "),
        "classes": ", ".join(classes),
        "candidates": ", ".join(task.choices),
        "methods": ", ".join(task.methods),
        "prompt": task.template,
        "causal prompt": task.causal or "",
        "head input": " | ".join(task.head_inputs),
        "tokens at most": str(task.max_length),
        "of first text": str(task.first_limit or ""),
        "of other texts": str(task.other_limit or ""),
        "metric": task.metric,
        "further metrics": ", ".join(task.further_metrics),
        "shuffles": "accumulate over LM-BFF's seeds under its protocol" if task.accumulates_shuffles else "",
        "learning rates": "; ".join(f"{m}: {', '.join(map(str, r))}" for m, r in task.learning_rates.items()),
        "licence": task.licence,
        "citation": task.citation,
        "version": task.version,
    }
    return {fact: value for fact, value in facts.items() if value}


def _reading(tsv: str | None, data_dir: Path | None) -> Reading:
    """Raises: UserError, for a word that --tsv does not take, or without a folder."""
    given = {name: value for name, value in {"tsv": tsv, "data_dir": data_dir}.items() if value is not None}
    return make_sweep(given, None).reading


def _first_row(task: Task, data_dir: Path | None, reading: Reading) -> dict[str, str]:
    data = load_task_data(task, data_dir, cached_only=True, reading=reading)
    example = data.train[0]
    right = int(example.label) if task.kind != "regression" else None
    words = candidate_texts(task, example)
    texts = dict(zip(task.fields, example.texts, strict=True))
    if words:
        texts[CANDIDATE] = words[right] if right is not None else f"[{' or '.join(words)}]"
    prompt = {
        "first prompt": filled(parse_template(task.template), texts, " [mask]"),
        "its label word": words[right]
        if right is not None
        else f"{words[0]} .. {words[-1]}: {example.label:g}",
    }
    causal = {"first causal": filled(parse_template(task.causal), texts)} if task.causal else {}
    return {
        "rows": f"{len(data.train)} train, {len(data.test)} test",
        **(prompt if task.template else {}),
        **causal,
        "first input": " | ".join(filled(parse_template(text), texts) for text in task.head_inputs),
    }
