"""One run, repeated in new processes: as it was asked for, and with deterministic algorithms only."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.one_run import record_of
from momentum_bench.harness.execution.workers import closing_pools, kept_session, new_pool, submit
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.launcher import check_flags
from momentum_bench.harness.records.noise_floor import NoiseFloor, Spread
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal


def measure_noise_floor(spec: RunSpec, inputs: Inputs, repeats: int, workers: int) -> NoiseFloor:
    """Repeat a run in both ways, each in its own processes, and compare the results.

    Args:
        repeats: repetitions in each of the two ways.
        workers: repetitions at a time, each in its own process; no effect on results.

    Raises:
        UserError: several ranks shared the run, or the data, model or optimizer are not those of the run, or
            a process was killed.
    """
    check_flags()  # because a process that cannot start breaks its pool without a word
    if spec.data_parallel_ranks is not None:
        raise UserError(
            f"{spec.data_parallel_ranks} ranks shared run {spec.run_id}, but one process makes each "
            f"repetition: choose a run without --data-parallel"
        )
    as_asked, records = spread(spec, inputs, repeats, workers)
    fixed = spec.model_copy(update={"deterministic": True})
    try:
        deterministic = spread(fixed, inputs, repeats, workers)[0]
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        # torch names the operation that has no deterministic algorithm
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
    """Repeat a run in `workers` new processes: how far the results differ, and the records.

    Raises:
        UserError: the data, model or optimizer are not those of the run, or a process was killed.
        RuntimeError: torch has no deterministic algorithm for an operation, and only these were allowed.
    """
    pool = new_pool(min(workers, repeats), inputs, spec.precision)
    with tempfile.TemporaryDirectory() as folder, closing_pools([pool]):
        paths = [Path(folder) / f"{number}.safetensors" for number in range(repeats)]
        futures = {submit(pool, _repeat, spec, inputs, path): path for path in paths}
        records: list[RunRecord] = []
        reference: dict[str, torch.Tensor] | None = None
        largest = 0.0
        for future in as_completed(futures):
            try:
                record = future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    f"a process that repeated run {spec.run_id} was killed, as the system does when memory "
                    f"runs out, or could not start. Type the same command with --runs-at-a-time 1"
                ) from error
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


def _repeat(spec: RunSpec, inputs: Inputs, path: Path) -> RunRecord:
    """Run once, and write the chosen parameters to a file; after a run, the model holds them."""
    session = kept_session(inputs, spec.precision)
    record = record_of(spec, session, Journal(path.with_suffix("") / "evaluations.jsonl"))
    if record.status == "done":
        live = session.loaded(spec).model.named_parameters()
        save_file({name: value.detach().cpu().clone() for name, value in live}, path)
    return record
