"""One run, repeated in fresh processes as it was asked for and with deterministic algorithms alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.noise_floor import NoiseFloor, Spread
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session


def noise_floor(spec: RunSpec, inputs: Inputs, repeats: int, workers: int) -> NoiseFloor:
    """Repeat a run in both ways, each in processes of its own.

    Raises:
        UserError: several ranks shared the run, or data, model or optimizer are not those of the run.
    """
    if spec.data_parallel_ranks is not None:
        raise UserError(
            f"run {spec.run_id} was shared by {spec.data_parallel_ranks} ranks, and repetitions are made by "
            f"one process each: choose a run without --data-parallel"
        )
    as_asked, records = spread(spec, inputs, repeats, workers)
    fixed = spec.model_copy(update={"deterministic": True})
    try:
        deterministic = spread(fixed, inputs, repeats, workers)[0]
    except RuntimeError as error:
        if "deterministic" not in str(error):  # else torch names the operation that has no such algorithm
            raise
        deterministic = Spread(deterministic=True, n_repeats=repeats, failure=str(error).split("\n")[0])
    first = records[0]
    return NoiseFloor(
        spec=spec,
        metric=first.metric,
        device=first.read_back.device if first.read_back else "unknown",
        as_asked=as_asked,
        deterministic=deterministic,
        environment=first.environment,
    )


def spread(spec: RunSpec, inputs: Inputs, repeats: int, workers: int) -> tuple[Spread, list[RunRecord]]:
    """Repeat a run in `workers` fresh processes, and compare what came out."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            min(workers, repeats), get_context("spawn"), _start, (inputs, spec.precision)
        ) as pool,
    ):
        paths = [Path(folder) / f"{number}.safetensors" for number in range(repeats)]
        futures = {pool.submit(_repeat, spec, path): path for path in paths}
        records: list[RunRecord] = []
        reference: dict[str, torch.Tensor] | None = None
        largest = 0.0
        for future in as_completed(futures):
            record = future.result()
            records.append(record)
            if record.status == "done":
                parameters = load_file(futures[future])
                reference = reference or parameters
                largest = max(largest, *(_distance(parameters[name], reference[name]) for name in reference))
                futures[future].unlink()
    return _spread(spec, records, largest), records


def _spread(spec: RunSpec, records: Sequence[RunRecord], largest: float) -> Spread:
    done = [record for record in records if record.best and record.test]
    return Spread(
        deterministic=spec.deterministic is True,
        n_repeats=len(records),
        statuses=tuple(record.status for record in records),
        dev_metrics=tuple(record.best.dev_metric for record in done if record.best),
        test_metrics=tuple(record.test.metric for record in done if record.test),
        n_distinct=len({record.parameters_hash for record in done}),
        largest_parameter_difference=largest,
    )


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max()) if a.numel() else 0.0


_bench: Session  # of this worker process


def _start(inputs: Inputs, precision: str) -> None:
    global _bench
    _bench = Session(inputs, make_accelerator(precision))


def _repeat(spec: RunSpec, path: Path) -> RunRecord:
    """Run once, and leave the chosen parameters, which the model holds after a run, in a file."""
    record = finetune(spec, _bench, Journal(path.with_suffix("") / "evaluations.jsonl"))
    if record.status == "done":
        live = _bench.loaded(spec).model.named_parameters()
        save_file({name: value.detach().cpu().clone() for name, value in live}, path)
    return record
