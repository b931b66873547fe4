"""How long a leaderboard of many runs takes to build, and how large its page is: one JSON line.

    python benchmarks/leaderboard_build.py --runs 10000 --test-rows 1000

Records are made up, of the size that real ones have: ten evaluations and so many test rows each. `seconds`
is the processor time of `momentum-bench leaderboard build` (user and system), from its start to its end;
a busy machine stretches `wall_seconds` far more.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from momentum_bench.harness.records.schema import Evaluation, RunRecord, RunSpec  # noqa: E402
from momentum_bench.harness.records.store import Store  # noqa: E402
from tests.helpers.synthetic import ARMS, SEEDS, Scores, make_record, make_spec  # noqa: E402

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""A leaderboard row is a grid of these over the five default seeds: 30 runs."""


def made_up(spec: RunSpec, place: int, n_test: int) -> RunRecord:
    """A record whose scores vary with its place and whose arrays are as long as real ones."""
    right = n_test * (60 + (place * 7919) % 37) // 100
    record = make_record(spec, Scores(0.5 + (place * 31 % 17) / 40, 0.5, right / n_test))
    assert record.test and record.split  # noqa: PT018
    steps = range(100, 1001, 100)
    return record.model_copy(
        update={
            "evaluations": tuple(
                Evaluation(
                    step=step,
                    learning_rate=spec.learning_rate * (1 - step / 1000),
                    train_loss=0.7 / step,
                    dev_metric=0.5 + (place * 31 % 17) / 40 if step == 1000 else 0.5,
                    dev_loss=0.5,
                )
                for step in steps
            ),
            "split": record.split.model_copy(update={"n_test": n_test}),
            "test": record.test.model_copy(
                update={
                    "rows": tuple(range(n_test)),
                    "labels": (1,) * n_test,
                    "predictions": (1,) * right + (0,) * (n_test - right),
                }
            ),
        }
    )


def specs(n: int) -> list[RunSpec]:
    """n specs: tasks of two optimizers, five seeds and six rates."""
    grid = [(s, r, o) for s in SEEDS for r in RATES for o in ARMS]
    return [
        make_spec(
            task=f"task{place // len(grid):03}",
            seed=seed,
            learning_rate=rate,
            optimizer=optimizer,
            hyperparameters=dict(ARMS[optimizer]),
        )
        for place in range(n)
        for seed, rate, optimizer in [grid[place % len(grid)]]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--test-rows", type=int, default=1_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "results"))
        store.open()
        for place, spec in enumerate(specs(arguments.runs)):
            store.write(made_up(spec, place, arguments.test_rows))
        out = Path(folder, "board")
        command = [sys.executable, "-m", "momentum_bench", "leaderboard", "build"]
        started = time.perf_counter()
        subprocess.run(
            [*command, str(store.output_dir), "--out", str(out)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        line = {
            "runs": arguments.runs,
            "test_rows": arguments.test_rows,
            "seconds": round(used.ru_utime + used.ru_stime, 2),
            "wall_seconds": round(wall, 2),
            "peak_memory_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            "page_bytes": (out / "index.html").stat().st_size,
            "all_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        }
        print(json.dumps(line))


if __name__ == "__main__":
    main()
