"""The command line's `tasks`: what there is to ask, and what each task is. Starts without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from harness.errors import UserError
from harness.exits import plain_errors
from harness.kinds import candidate_texts
from harness.sources import load_task_data
from tasks import HubSource, LocalOnly, Task, TextFolders, UnknownTaskError, get_task, suites_of, task_names
from tasks.task import CANDIDATE, filled, parse_template

app = typer.Typer(no_args_is_help=True, help="The tasks: list them, show one.")


@app.command("list")
def list_tasks() -> None:
    """List all tasks: a table on a terminal, tab-separated lines elsewhere."""
    header = ("name", "classes", "metric", "source", "suites", "title")
    rows = []
    for name in task_names():
        task = get_task(name)
        metric = ";".join((task.metric, *task.further_metrics))
        rows.append(
            (name, str(len(task.labels)), metric, _source(task), ";".join(suites_of(name)), task.title)
        )
    if sys.stdout.isatty():
        table = Table(*header, box=box.SIMPLE)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:
        for row in (header, *rows):
            print("\t".join(row))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A task's name", show_default=False)],
    data_dir: Annotated[
        Path | None, typer.Option(help="Fill the template with a row from DIR/TASK", show_default=False)
    ] = None,
) -> None:
    """Print all that is known of a task; with --data-dir, also what a model is given of a real row."""
    with plain_errors("nothing was written"):
        try:
            task = get_task(name)
        except UnknownTaskError as error:
            raise UserError(str(error)) from None
        facts = _facts(task) | (_first_row(task, data_dir) if data_dir else {})
        for fact, value in facts.items():
            print(f"{fact:<17}{value}")


def _source(task: Task) -> str:
    source = task.source
    if isinstance(source, HubSource):
        config = f" ({source.config})" if source.config else ""
        return f"{source.id}{config}" + ("" if source.revision == "main" else f" @ {source.revision}")
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


def _first_row(task: Task, data_dir: Path) -> dict[str, str]:
    data = load_task_data(task, data_dir)
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
