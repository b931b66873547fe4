"""Numbers that papers printed, beside which ours may be read. They enter no statistic of ours.

`reference/published.csv` has a line for each: fractions, `k` rows a class (0: no training), and the
standard deviation over `n_seeds` seeds as printed. `ddof` says whether the source divides by n (0) or
n - 1 (1), and is empty where that is not known. `test_std_ddof1` is comparable with ours, which divide
by n - 1: `test_std_reported * sqrt((n - ddof) / (n - 1))`; empty where ddof is.

Sources: Malladi et al. 2023 (MeZO, arXiv 2305.17333), Table 18; its code takes numpy's std, ddof 0.
Gao et al. 2021 (LM-BFF), as the AMuLaP paper of 2022 reprints it in its Table 2.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from momentum_bench.leaderboards.rows import Row

FILE = Path(__file__).parent / "reference" / "published.csv"

MODEL_NAMES = {"FacebookAI/roberta-large": "roberta-large"}
"""The papers' names of models that the hub has under an organisation's name."""

ADAPTER_NAMES = {"lora": "LoRA"}

KEY = ("task", "model", "method", "k", "metric")
"""What a published line must share with a row of ours to be shown."""


def published() -> list[dict[str, str]]:
    """All lines of the file, in its order."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def matching(rows: Iterable[Row]) -> list[dict[str, str]]:
    """The published lines that have a row of ours with the same task, model, method, k and metric."""
    ours = {_key(row) for row in rows}
    return [line for line in published() if tuple(line[name] for name in KEY) in ours]


def _key(row: Row) -> tuple[str, ...]:
    model = str(row.columns["model"])
    values = row.columns | {"model": MODEL_NAMES.get(model, model), "method": _method(row)}
    if not row.setting["max_steps"]:
        values["k"] = 0
    return tuple(str(values[name]) for name in KEY)


def _method(row: Row) -> str:
    """A row's method as the papers' tables name it: `zero-shot prompt`, `prompt LoRA`."""
    zero_shot = [] if row.setting["max_steps"] else ["zero-shot"]
    adapter = ADAPTER_NAMES.get(row.setting["peft"], row.setting["peft"])
    frozen = row.setting["freeze"] and f"with frozen {row.setting['freeze']}"
    return " ".join([*zero_shot, row.columns["method"], *filter(None, (adapter, frozen))])
