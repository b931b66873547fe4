"""Numbers that papers printed, for comparison with ours. No statistic of ours uses them.

`reference/published.csv` has one line for each number. Scores are fractions, `k` counts rows per class (0: no
training), and `test_std_reported` is the standard deviation over `n_seeds` seeds as printed. `ddof` is 0 if
the source divides by n and 1 if it divides by n - 1; it is empty if that is not known. `test_std_ddof1` can
be compared with our standard deviations, which divide by n - 1. It is
`test_std_reported * sqrt((n - ddof) / (n - 1))`, and empty if `ddof` is empty.

Sources: Malladi et al. 2023 (MeZO, arXiv 2305.17333), Table 18; its code uses numpy's std with ddof 0.
Gao et al. 2021 (LM-BFF), as reprinted in Table 2 of the AMuLaP paper of 2022.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from momentum_bench.leaderboards.rows import Row

FILE = Path(__file__).parent / "reference" / "published.csv"

MODEL_NAMES = {"FacebookAI/roberta-large": "roberta-large"}
"""The papers' names of models whose hub names begin with an organisation."""

ADAPTER_NAMES = {"lora": "LoRA"}

KEY = ("task", "model", "method", "k", "metric")
"""A published line is shown if a row of ours has the same values of these."""


def published_lines() -> list[dict[str, str]]:
    """All lines of the file, in their order."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def matching(rows: Iterable[Row]) -> list[dict[str, str]]:
    """The published lines for which a row has the same task, model, method, k and metric."""
    ours = {_key(row) for row in rows}
    return [line for line in published_lines() if tuple(line[name] for name in KEY) in ours]


def _key(row: Row) -> tuple[str, ...]:
    model = str(row.columns["model"])
    values = row.columns | {"model": MODEL_NAMES.get(model, model), "method": _method(row)}
    if not row.setting["max_steps"]:
        values["k"] = 0
    return tuple(str(values[name]) for name in KEY)


def _method(row: Row) -> str:
    """A row's method by the name that the papers' tables use: `zero-shot prompt`, `prompt LoRA`."""
    zero_shot = [] if row.setting["max_steps"] else ["zero-shot"]
    adapter = ADAPTER_NAMES.get(row.setting["peft"], row.setting["peft"])
    frozen = row.setting["freeze"] and f"with frozen {row.setting['freeze']}"
    return " ".join([*zero_shot, row.columns["method"], *filter(None, (adapter, frozen))])
