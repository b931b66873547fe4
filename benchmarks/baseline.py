"""What the baselines share: the arguments of one run, its rows, and the line that it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from momentum_bench.harness import loads
from momentum_bench.harness.models.weights import opened, weight_files


def arguments(description: str) -> argparse.Namespace:
    """One grid point."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model and its tokenizer")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, dev and test.jsonl")
    parser.add_argument("--output", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--learning-rate", type=float, required=True, help="torch's own rate")
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--eval-every", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--bf16", action="store_true", help="autocast")
    return parser.parse_args()


def rows(folder: Path, split: str) -> tuple[list[list[str]], list[int]]:
    """The texts (one list a text field) and labels of a split."""
    lines = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    return [list(of) for of in zip(*(line["texts"] for line in lines), strict=True)], [
        line["label"] for line in lines
    ]


def classifier(folder: Path, n_labels: int) -> Any:
    """The model of a folder under a new classifier, or its own where it has one."""
    config = loads.config_in(folder, num_labels=n_labels)
    with opened(str(folder), weight_files(str(folder), folder)) as weights:
        return loads.model_of_weights("classifier", config, weights)[0]


def report(dev: float, test: float) -> None:
    """The last line of a run's output."""
    print(json.dumps({"dev": dev, "test": test}))
