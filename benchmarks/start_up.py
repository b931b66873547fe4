"""How long a user waits before anything happens: one JSON line.

    python benchmarks/start_up.py

`tasks_list_seconds` is a whole `momentum-bench tasks list`. `first_step_seconds` is from the start of the
quick start's `momentum-bench run` until one of its runs has trained a step of 8 examples and scored dev. It
is scored after every step here, on two examples a class, so that little more than the step is in it. Both are
medians, after one round that warms the disk cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-c", "from momentum_bench.harness.cli.main import main; main()"]


def tasks_list_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([*COMMAND, "tasks", "list"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def first_step_seconds() -> float:
    """Raises: RuntimeError, where the command ends before its first step."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        words = ["run", "--k", "2", "--eval-every", "1", "--output-dir", folder]
        started = time.perf_counter()
        process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=said, stderr=said)
        try:
            while not any(path.stat().st_size for path in Path(folder).glob("runs/*/evaluations.jsonl")):
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(said.read().decode())
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = 1 + parser.parse_args().rounds
    line = {
        measure.__name__: round(statistics.median([measure() for _ in range(rounds)][1:]), 2)
        for measure in (tasks_list_seconds, first_step_seconds)
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
