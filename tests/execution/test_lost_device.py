"""A device after which nothing works ends a process and not a sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from momentum_bench.harness.device_errors import (
    DeviceLostError,
    check_device,
    is_of_the_device,
    is_out_of_memory,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import job as job_file
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.failures_alike import ENOUGH, FailuresAlike
from momentum_bench.harness.execution.job import Job, run_and_store
from momentum_bench.harness.execution.local import execute
from momentum_bench.harness.execution.workers import EXIT_DEVICE_LOST
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models import packing
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.training import scoring
from momentum_bench.harness.training.session import Session
from tests.conftest import ROOT, SOURCES, cli_environment
from tests.helpers.gpu import a_gpu
from tests.helpers.runs import spec_for
from tests.helpers.specs import make_record, make_spec

ASSERTED = torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might ...")
FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    MemoryError(),
]


@pytest.fixture
def job(tiny_model: Path, toy_data: Path, tmp_path: Path) -> Job:
    store = Store(tmp_path / "results")
    store.open()
    return Job(Inputs(str(tiny_model), toy_data), "fp32", store, retry_failed=False)


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_lack_of_memory_is_known_by_all_its_names(error: Exception):
    assert is_out_of_memory(error)
    assert is_of_the_device(error)


def test_what_is_of_the_device_and_what_is_not():
    assert is_of_the_device(ASSERTED)
    assert not is_out_of_memory(ASSERTED)
    assert is_of_the_device(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    for error in (RuntimeError("shapes differ"), ValueError("CUDA error"), OSError(28, "No space left")):
        assert not is_of_the_device(error)


def test_a_run_on_a_lost_device_is_not_recorded(job: Job, monkeypatch: pytest.MonkeyPatch):
    """As CUDA does after a device assert: each later synchronisation raises the error again."""
    with a_gpu() as gpu:
        if gpu.pretended is None:
            pytest.skip("a real device would be lost")
        session = Session(job.inputs, make_accelerator("fp32"))
        spec = spec_for(session)

        def lose(*given: object) -> None:
            assert gpu.pretended is not None
            gpu.pretended.error = ASSERTED
            raise ASSERTED

        monkeypatch.setattr(job_file, "record_of", lose)
        with pytest.raises(DeviceLostError, match=r"cuda no longer works.*device-side assert"):
            run_and_store(spec, job, session, progress=False)
        assert job.store.read(spec.run_id) is None
        others = [spec_for(session, seed=seed) for seed in range(3)]
        with pytest.raises(DeviceLostError):
            list(execute(others, job, session, 1, progress=False, pools=[]))
        assert not job.store.finished(others)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_an_error_that_the_device_survives_is_a_failed_run(job: Job, monkeypatch: pytest.MonkeyPatch):
    with a_gpu():
        session = Session(job.inputs, make_accelerator("fp32"))
        spec = spec_for(session)

        def fail(*given: object) -> None:
            raise FULL[1]

        monkeypatch.setattr(job_file, "record_of", fail)
        record = run_and_store(spec, job, session, progress=False)
    assert record is not None
    assert record.status == "failed"
    assert "AcceleratorError: CUDA error: out of memory. What would help: fewer runs" in str(record.failure)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_on_a_cpu_no_device_is_asked():
    check_device(torch.device("cpu"), ASSERTED)


def test_a_worker_process_ends_with_its_device():
    code = (
        "from momentum_bench.harness.device_errors import DeviceLostError\n"
        "from momentum_bench.harness.execution.workers import ending_with_its_device\n"
        "with ending_with_its_device():\n    raise DeviceLostError('gone')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=cli_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_DEVICE_LOST
    assert "a worker process ends: gone" in done.stderr


def test_first_runs_that_fail_alike_end_the_sweep():
    failed = [
        make_record(status="failed").model_copy(update={"failure": f"no kernel, {n} bytes"}) for n in range(9)
    ]
    watch = FailuresAlike(9)
    for record in failed[: ENOUGH - 1]:
        watch.check(record)
    with pytest.raises(UserError, match=r"first 5 of 9 runs failed alike: no kernel, 4 .*--retry-failed"):
        watch.check(failed[ENOUGH - 1])
    other = failed[3].model_copy(update={"failure": "the disk is slow"})
    for first in ([make_record()], [other]):
        watch = FailuresAlike(9)
        for record in first + failed:
            watch.check(record)
    watch = FailuresAlike(ENOUGH)  # nothing is left to start
    for record in failed[:ENOUGH]:
        watch.check(record)


def test_a_sweep_whose_first_runs_fail_alike_starts_no_more(job: Job, monkeypatch: pytest.MonkeyPatch):
    session, started = Session(job.inputs, make_accelerator("fp32")), []

    def fail(spec: object, *given: object) -> None:
        started.append(spec)
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(job_file, "record_of", fail)
    specs = [make_spec(seed=seed) for seed in range(8)]
    with pytest.raises(UserError, match="the first 5 of 8 runs failed alike: RuntimeError: no kernel image"):
        list(execute(specs, job, session, 1, progress=False, pools=[]))
    assert started == specs[:ENOUGH]


@pytest.mark.parametrize("error", [FULL[0], FULL[1], ASSERTED], ids=str)
def test_an_error_of_the_device_is_no_property_of_the_model(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    """Else one worker of a sweep would pad for ever after, and the others would not."""
    session = Session(job.inputs, make_accelerator("fp32"))

    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(packing, "read", fail)
    with pytest.raises(type(error)):
        session.loaded(spec_for(session))
    monkeypatch.undo()
    assert session.loaded(spec_for(session)).packing is not None


def test_scoring_goes_on_in_smaller_parts(job: Job, monkeypatch: pytest.MonkeyPatch, capsys):
    session = Session(job.inputs, make_accelerator("fp32"))
    parts = session.parts(spec_for(session))
    whole, own, sizes = parts.score(parts.split.test), scoring.logits, []

    def limited(loaded, batch):
        sizes.append(len(batch.labels))
        if len(batch.labels) > 7:
            raise FULL[2]
        return own(loaded, batch)

    monkeypatch.setattr(scoring, "logits", limited)
    in_parts = parts.score(parts.split.test)
    assert max(sizes) > 7 >= min(sizes)
    assert in_parts.predictions == whole.predictions
    assert in_parts.loss == pytest.approx(whole.loss, abs=1e-6)
    assert "examples are scored again in two parts" in capsys.readouterr().err
    monkeypatch.setattr(scoring, "logits", lambda *given: (_ for _ in ()).throw(FULL[2]))
    with pytest.raises(RuntimeError, match="out of memory"):
        parts.score(parts.split.test)
