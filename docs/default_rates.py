"""Writes docs/default-rates.md, how the default rates did in one sweep: `python docs/default_rates.py`.

What the sweep found is in default_rates.csv. `python docs/default_rates.py RESULTS` writes that file again
from the results directory of such a sweep; the page says how the sweep is run.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.optimizers.registry import FROM_LIBRARIES, OPTIMIZERS
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.selection import DevResult, by_choice, dev_result
from momentum_bench.harness.records.store import Store

DOCS = Path(__file__).resolve().parent
PAGE, FOUND = DOCS / "default-rates.md", DOCS / "default_rates.csv"
COLUMNS = ("run_id", "optimizer", "learning_rate", "dev_metric", "dev_loss")

METHOD = "head"
"""Of the sweep."""

NAMES = {path: name for name, path in FROM_LIBRARIES.items()}


def defaults(name: str) -> tuple[float, ...]:
    """The six default rates of an optimizer for a head."""
    return tuple(sorted(find_optimizer(name)[1].default_rates[METHOD]))


def short_name(record: RunRecord) -> str:
    """The optimizer of a run without its version; a class of a library by our name for it."""
    name = record.spec.optimizer.partition("@")[0]
    return NAMES.get(name, name)


def trials() -> dict[str, list[DevResult]]:
    """What dev said of each optimizer at each rate, by rate, in the order of the registry."""
    by_name: dict[str, list[DevResult]] = {}
    with FOUND.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = (float(row[name]) for name in COLUMNS[2:])
            by_name.setdefault(row["optimizer"], []).append(DevResult(row["run_id"], *numbers))
    return {name: by_name[name] for name in (*OPTIMIZERS, *FROM_LIBRARIES)}


def is_inside(of: list[DevResult]) -> bool:
    """Whether the best rate has a worse one on either side."""
    return of[0] is not min(of, key=by_choice) is not of[-1]


HEAD = """# Default learning rates

Each optimizer has six default rates for each method. The reasons for them are in
`harness/optimizers/entry.py` and `registry.py`, next to the numbers. This page shows how those for a head
did in one sweep: `bbc_news` on the embedded model, 16 examples a class, seed 13, 40 steps of 8 examples.
Each cell is the accuracy on dev (80 examples) and, after it, the loss on dev. The best is bold: by
accuracy, then by loss. Test rows play no part.

Seven optimizers share one axis, that of effective rates. Their grids are one grid, so that they have the
same search:

"""

SHARED_END = """
Three of them are best at 1, the largest of the defaults, so 3 was tried too. It is worse. So for every
optimizer the best rate has a worse one on either side, and the grid stays as it is for all seven.

The others have rates of their own:

"""

REPEAT = """
**What this does not show.** It is one task, one small model and one seed: enough to see that no grid lies
in the wrong decade, not enough to call one optimizer better. The rates for a prompt and for a decoder come
from the literature alone. They are meant for large models; on the small masked model that pip carries,
prompts want larger ones, and the published board `paper-prompt-small` goes from 0.003 to 1. In your own
sweep, look whether the best rate is on an edge: the tables say so, and `--extend-grid` goes on.

To repeat the sweep (about 20 minutes on two cores), and to write this page from it:

```bash
words="--k 16 --seeds 13 --max-steps 40 --eval-every 20 --test-limit 10 --output-dir rates"
run() { momentum-bench run $words "$@"; }
run --optimizers sgd,sgdm,sgdm_ema,sgd_matched,nesterov,qhm,random_scaling \\
    --learning-rates 0.003,0.01,0.03,0.1,0.3,1
run --optimizers sgd,sgdm,sgdm_ema,nesterov,qhm --learning-rates 3
run --optimizers sgdf,sngm,signsgd,signum,adamw,nadam,muon,lion
run --optimizers schedule_free_sgd --lr-schedule constant
python docs/default_rates.py rates && python docs/default_rates.py
```

`docs/default_rates.csv` has the numbers and the ids of the runs.
"""


def table(of: dict[str, list[DevResult]]) -> Iterator[str]:
    """A table of optimizers that were tried at the same rates."""
    rates = sorted({trial.learning_rate for found in of.values() for trial in found})
    yield f"| optimizer | {' | '.join(f'{rate:g}'.replace('e-0', 'e-') for rate in rates)} |"
    yield f"|---|{'---:|' * len(rates)}"
    for name, found in of.items():
        best = min(found, key=by_choice)
        cells = {t.learning_rate: f"{t.dev_metric:.3f}, {t.dev_loss:.2f}" for t in found}
        cells[best.learning_rate] = f"**{cells[best.learning_rate]}**"
        yield f"| `{name}` | {' | '.join(cells.get(rate, '') for rate in rates)} |"


def page() -> str:
    """The text of the page."""
    found = trials()
    shared = {name: of for name, of in found.items() if name in OPTIMIZERS and not OPTIMIZERS[name].own_rate}
    others = {name: of for name, of in found.items() if name not in shared}
    parts = []
    # optimizers with the same grid make one table
    for _, names in groupby(sorted(others, key=defaults), defaults):
        parts.append("\n".join(table({name: others[name] for name in names})) + "\n")
    return HEAD + "\n".join(table(shared)) + "\n" + SHARED_END + "\n".join(parts) + REPEAT


def write(results: Path) -> None:
    """Write default_rates.csv from the records of a sweep."""
    found = [(short_name(record), dev_result(record)) for record in Store(results).records()]
    found.sort(key=lambda of: (of[0], of[1].learning_rate))
    with FOUND.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([r.run_id, name, r.learning_rate, r.dev_metric, r.dev_loss] for name, r in found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write(Path(sys.argv[1]))
    else:
        PAGE.write_text(page(), encoding="utf-8")
