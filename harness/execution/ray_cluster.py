"""Runs on a Ray cluster: Ray places them, packs several on a GPU, and repeats what was lost with a node.

Only `--executor ray` loads this file. A run's specification and its record travel as JSON text, and only the
driver (this process) writes to the results directory, so the nodes need no common disk. Ray itself moves
functions and arguments between the nodes of its cluster by cloudpickle, and these nodes trust each other.
None of this is kept, and no record is ever unpickled.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from pathlib import Path
from types import ModuleType
from typing import Any

from momentum_bench import harness
from momentum_bench.harness.data.find_task import find_task
from momentum_bench.harness.errors import UserError, first_line
from momentum_bench.harness.execution.failures_alike import FailuresAlike
from momentum_bench.harness.execution.job import Job, run_and_store
from momentum_bench.harness.execution.local import SECONDS_BETWEEN_LOOKS
from momentum_bench.harness.execution.workers import ending_with_its_device, kept_session
from momentum_bench.harness.inputs import Inputs, Reading
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.training.cuda_graphs import check_recordable

MAX_RETRIES = 3
"""How often a group of runs starts again, on any node, when its node or process has died."""

GROUPS_PER_PLACE = 4
"""How many groups follow one another on one place. Ray starts a new process for each group on a GPU, and
this process loads the model again. But with many groups, a lost node costs less, and all places end at about
the same time."""

SECONDS_TO_ANSWER = 10

OBJECT_STORE_BYTES = 100 * 2**20
"""For a cluster that is started here. It is small, because only text travels."""


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            "--executor ray needs Ray, which is not installed: pip install 'momentum-bench[cluster]'"
        ) from error


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray's module, connected to a cluster.

    Args:
        address: as `ray start` printed it, or "auto"; None: a new cluster on this machine, which ends with
            the sweep.

    Raises:
        UserError: Ray is not installed, or there is no cluster at that address.
    """
    ray = _ray()
    own: dict[str, Any] = (
        {} if address else {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    )
    on_sigterm = signal.getsignal(signal.SIGTERM)
    root = str(Path(harness.__path__[0]).parent.parent)
    try:
        _check_answers(address)
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="error",
            # workers on this machine import the driver's checkout; on other nodes, the installed package
            runtime_env={
                "env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
            },
            **own,
        )
    except Exception as error:  # the class that Ray raises where its processes are slow to start
        raise UserError(_no_cluster(address, first_line(error))) from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced it by its own
    try:
        yield ray
    finally:
        ray.shutdown()


def _no_cluster(address: str | None, reason: str) -> str:
    if address is None:
        return (
            f"Ray could not start a cluster on this machine ({reason}). Type the same command again when the "
            f"machine is less busy, or start a cluster with `ray start --head` and add --ray-address auto"
        )
    return (
        f"--ray-address {address}: no cluster answers there ({reason}). Start one with `ray start --head`, "
        f"or leave --ray-address out"
    )


def _check_answers(address: str | None) -> None:
    """Raises: OSError or ValueError, where nothing listens at HOST:PORT. Ray would try for minutes."""
    if address and address not in ("auto", "local") and "://" not in address:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()


def execute_on_ray(
    specs: Sequence[RunSpec], job: Job, address: str | None, runs_per_gpu: int | None
) -> Iterator[RunRecord]:
    """Run all specs on a cluster and store their records. Yields each when it comes back.

    This waits for a run that another process on this results directory holds, as `execute` does.

    Args:
        runs_per_gpu: how many runs share one GPU; None: each run has one GPU, or none where the cluster
            has none.

    Raises:
        UserError: there is no cluster, no node of it has what a run needs, or the first runs fail alike.
            Finished runs are kept.
    """
    with connected(address) as ray:
        needs = _needs(ray, specs, runs_per_gpu)
        waiting, watch = list(specs), FailuresAlike(len(specs))
        while waiting:
            done: set[str] = set()
            for record in _one_pass(ray, waiting, job, needs):
                done.add(record.spec.run_id)
                watch.check(record)
                yield record
            waiting = [spec for spec in waiting if spec.run_id not in done]
            if waiting:
                time.sleep(SECONDS_BETWEEN_LOOKS)


def _needs(ray: Any, specs: Sequence[RunSpec], runs_per_gpu: int | None) -> dict[str, float]:
    """Processors and GPUs of a run, as Ray's options; checked, for Ray would wait for them for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = max(node.get("GPU", 0) for node in nodes)
    cpus = max(node.get("CPU", 0) for node in nodes)
    needs = {
        "num_cpus": max(spec.threads_per_run for spec in specs),
        # Ray counts GPUs in steps of 0.0001; rounded up, the last of several runs would not fit
        "num_gpus": min(1, gpus) if runs_per_gpu is None else 10_000 // runs_per_gpu / 10_000,
    }
    if needs["num_gpus"] > gpus or needs["num_cpus"] > cpus:
        raise UserError(
            f"a run needs {needs['num_cpus']} processor(s) and {needs['num_gpus']:g} GPU(s), and the best of "
            f"{len(nodes)} node(s) has {cpus:g} and {gpus:g}: change --threads-per-run or --runs-at-a-time"
        )
    return needs


def _places(ray: Any, needs: dict[str, float]) -> int:
    """How many runs the cluster can do at a time now."""
    total = 0
    for node in (node["Resources"] for node in ray.nodes() if node["Alive"]):
        at_once = node.get("CPU", 0) / needs["num_cpus"]
        if needs["num_gpus"]:
            at_once = min(at_once, node.get("GPU", 0) / needs["num_gpus"])
        total += int(at_once + 1e-9)
    return max(1, total)


def _one_pass(ray: Any, specs: Sequence[RunSpec], job: Job, needs: dict[str, float]) -> Iterator[RunRecord]:
    """Do the runs that no other process holds.

    Ray gets a group when a place becomes free. So no process holds the runs that still wait.
    """
    size = max(1, len(specs) // (GROUPS_PER_PLACE * _places(ray, needs)))
    groups = [specs[start : start + size] for start in range(0, len(specs), size)]
    run_group = ray.remote(_run_group).options(**needs, max_retries=MAX_RETRIES, num_returns="streaming")
    inputs = _as_text(job.inputs)
    # for each group that Ray has: its runs that have not come back, and the claims on them
    under_way: dict[Any, tuple[dict[str, RunSpec], ExitStack]] = {}
    try:
        while groups or under_way:
            while groups and len(under_way) <= _places(ray, needs):
                claims = ExitStack()
                mine, there = _claimed(groups.pop(0), job, claims)
                yield from there
                if mine:
                    texts = [spec.model_dump_json() for spec in mine.values()]
                    under_way[run_group.remote(inputs, job.precision, texts)] = mine, claims
                else:
                    claims.close()
            if not under_way:
                continue
            ready, _ = ray.wait(list(under_way), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
            for group in ready:
                mine, claims = under_way[group]
                yield from _stored(_next(ray, group, mine, job), mine, job)
                if not mine:
                    claims.close()
                    del under_way[group]
    finally:
        for _, claims in under_way.values():
            claims.close()


def _claimed(
    specs: Sequence[RunSpec], job: Job, claims: ExitStack
) -> tuple[dict[str, RunSpec], list[RunRecord]]:
    """Claim those runs that nobody holds: the runs to do, and the records of those that are done."""
    mine: dict[str, RunSpec] = {}
    there: list[RunRecord] = []
    for spec in specs:
        if claims.enter_context(job.store.claim(spec)):
            record = job.store.read(spec.run_id)
            if record and not (job.retry_failed and record.status == "failed"):
                there.append(record)
            else:
                mine[spec.run_id] = spec
    return mine, there


def _stored(records: Sequence[RunRecord], mine: dict[str, RunSpec], job: Job) -> Iterator[RunRecord]:
    """Store the records of runs that are not stored yet: a repeated group sends its first ones again."""
    for record in records:
        if mine.pop(record.spec.run_id, None) is not None:
            job.store.set_aside_damaged(record.spec.run_id)
            job.store.write(record)
            yield record


def _next(ray: Any, group: Any, mine: dict[str, RunSpec], job: Job) -> list[RunRecord]:
    """The next record of a group, or records that say `failed` where the cluster cannot do its runs."""
    try:
        return [RunRecord.model_validate_json(ray.get(next(group)))]
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError | OSError):  # that node has other inputs: the sweep cannot go on
            raise UserError(f"on a node of the cluster: {error.cause}") from error
        raise
    except (StopIteration, ray.exceptions.RayError) as error:  # its nodes or processes died too often
        reason = f"lost {MAX_RETRIES + 1} times by the cluster: {first_line(error)}"
        return [
            RunRecord(
                spec=spec,
                metric=find_task(spec.task, job.inputs.task_file).metric,
                status="failed",
                failure=reason,
            )
            for spec in mine.values()
        ]


Places = tuple[str, str | None, str | None, tuple[str, ...] | None, str | None, tuple[str | int | None, ...]]


def _as_text(inputs: Inputs) -> Places:
    """The model, the device and the other inputs.

    Paths are whole, because a node's processes start in another folder. They are the same on every node.
    """
    folder = Path(inputs.model).expanduser()
    model = str(folder.resolve()) if folder.is_dir() else inputs.model
    data_dir, task_file = (
        None if path is None else str(path.resolve()) for path in (inputs.data_dir, inputs.task_file)
    )
    files = inputs.optimizer_file
    optimizer_files = None if files is None else tuple(str(file.resolve()) for file in files)
    return model, inputs.device, data_dir, optimizer_files, task_file, astuple(inputs.reading)


def _from_text(places: Places) -> Inputs:
    model, device, data_dir, optimizer_files, task_file, reading = places
    return Inputs(
        model,
        None if data_dir is None else Path(data_dir),
        None if optimizer_files is None else tuple(map(Path, optimizer_files)),
        None if task_file is None else Path(task_file),
        device,
        Reading(*reading),  # type: ignore[arg-type]  # each field has its own type
    )


def _run_group(inputs: Places, precision: str, texts: list[str]) -> Iterator[str]:
    """On a node: do runs one after the other, and send each record as soon as it is there."""
    # Ray keeps this process between groups
    session = kept_session(_from_text(inputs), precision)
    for text in texts:
        spec = RunSpec.model_validate_json(text)
        with tempfile.TemporaryDirectory() as folder:
            job = Job(session.inputs, precision, Store(Path(folder)), retry_failed=False)
            check_recordable(spec, session)
            with ending_with_its_device():  # Ray then starts the group again, on any node
                record = run_and_store(spec, job, session, progress=False)
            assert record is not None  # no other process knows this folder
        yield record.model_dump_json()
