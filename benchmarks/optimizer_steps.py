"""How long a step of each built-in optimizer takes beside one of SGD: one JSON line.

    python benchmarks/optimizer_steps.py

It is the optimizer's step alone, without forward and backward, on the parameters of a model of the given
shape and random gradients. In each round one step of SGD follows one of the other; medians are over rounds.
AdamW is also measured as torch steps it by default: each part of the update is a pass over the memory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from shapes import SHAPES, random_model  # noqa: E402
from whole_grid import BETA, _hardware, write_line  # noqa: E402

from momentum_bench.harness.optimizers.live import parameter_groups  # noqa: E402
from momentum_bench.harness.optimizers.registry import OPTIMIZERS, adam  # noqa: E402

RATE = 1e-6
IN_SEVERAL_PASSES = "adamw in several passes"


def builders(model: torch.nn.Module) -> dict[str, Callable[[], torch.optim.Optimizer]]:
    """What makes each optimizer for the parameters of a model, by its name."""

    def build(name: str) -> torch.optim.Optimizer:
        entry = OPTIMIZERS[name]
        named = list(model.named_parameters())
        groups = parameter_groups(entry, model, named, (), 0.0)
        return entry.build(groups, RATE, entry.all_hyperparameters(momentum=BETA), 0)

    def in_several_passes() -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=RATE, **adam(OPTIMIZERS["adamw"].constants))

    found = {name: (lambda name=name: build(name)) for name in OPTIMIZERS}
    return found | {IN_SEVERAL_PASSES: in_several_passes}


def seconds(optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """How long one step takes, until the device has done it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = perf_counter()
    optimizer.step()
    wait()
    return perf_counter() - start


def measure(shape: str, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Median seconds of a step of each optimizer and of SGD beside it, and their ratio."""
    model = random_model(shape).to(device)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    build = builders(model)
    sgd, found = build["sgd"](), {}
    for name in build:
        other = build[name]()  # one at a time, because all their states together may not fit
        for optimizer in (other, sgd):
            optimizer.step()  # the first step makes the state
        pairs = [(seconds(other, device), seconds(sgd, device)) for _ in range(rounds)]
        times, beside = (median(of) for of in zip(*pairs, strict=True))
        found[name] = {
            "seconds": round(times, 5),
            "sgd_beside": round(beside, 5),
            "times_sgd": round(times / beside, 2),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--shape", default="minilm", choices=SHAPES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; a run in a sweep has one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="file for the JSON line")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    result = {
        "steps": measure(a.shape, a.rounds, torch.device(a.device)),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "settings": {n: v for n, v in vars(a).items() if n != "output"},
        "hardware": _hardware(),
    }
    write_line(result, a.output)


if __name__ == "__main__":
    main()
