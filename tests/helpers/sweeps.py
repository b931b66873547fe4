"""Small sweeps through the real command line, and what they leave."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import (
    cli_environment,
)

NOT_REPRODUCIBLE = re.compile(r"_seconds$|memory")


def table(path: Path) -> list[dict[str, str]]:
    """A CSV's rows without the columns that may differ between two executions."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not NOT_REPRODUCIBLE.search(k)} for row in rows]


def small_sweep(model: Path, data_dir: Path, *more: object) -> list[object]:
    words = ["--task", "sst2", "--data-dir", data_dir, "--model", model, "--method", "prompt", "--k", 4]
    words += ["--seeds", "13,21", "--learning-rates", "1e-2,1e-1", "--max-steps", 6, "--eval-every", 3]
    # one worker: on runs this short a second one costs more than it gives
    return [*words, "--batch-size", 4, "--workers", 1, *more]


def records(output_dir: Path) -> dict[str, dict]:
    found = {}
    for path in sorted(output_dir.glob("runs/*/record.json")):
        content = json.loads(path.read_text())
        found[path.parent.name] = {k: content[k] for k in ("evaluations", "test", "parameters_hash", "split")}
    return found


def launch(*launcher: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, launcher)],
        cwd=cwd,
        env=cli_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
