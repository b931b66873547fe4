"""A run that was interrupted, or that ran out of memory, ends in the record of an undisturbed one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from momentum_bench.harness.device_errors import is_out_of_memory
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.sweeps.grids import hyperparameters
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training import checkpoints, finetune, steps
from momentum_bench.harness.training.memory import BatchTooLargeError
from momentum_bench.harness.training.session import Session
from tests.helpers.runs import spec_for


@pytest.fixture
def session(tiny_model: Path, toy_data: Path) -> Session:
    return Session(Inputs(str(tiny_model), toy_data), make_accelerator("fp32"))


@pytest.fixture
def run(session: Session, tmp_path: Path) -> Callable[..., RunRecord]:
    """A run whose folder lasts through the test; `crash_at` ends it when it begins that step."""

    def call(spec: RunSpec, every: int | None = None, crash_at: int | None = None) -> RunRecord:
        journal = Journal(tmp_path / spec.run_id / "evaluations.jsonl", every)
        with pytest.MonkeyPatch.context() as patch:
            batches = finetune.batch_indices

            def crashing(seed: int, step: int, n: int, size: int) -> list[int]:
                if step == crash_at:
                    raise KeyboardInterrupt
                return batches(seed, step, n, size)

            patch.setattr(finetune, "batch_indices", crashing)
            return finetune.finetune(spec, session, journal)

    return call


@pytest.fixture
def steps_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are really run, as they come."""
    seen: list[int] = []
    batches = finetune.batch_indices

    def noting(seed: int, step: int, n: int, size: int) -> list[int]:
        seen.append(step)
        return batches(seed, step, n, size)

    monkeypatch.setattr(finetune, "batch_indices", noting)
    return seen


def content(record: RunRecord) -> dict[str, Any]:
    return record.model_dump(exclude={"costs"})


def checkpoint_of(spec: RunSpec, tmp_path: Path) -> Path:
    return tmp_path / spec.run_id / "checkpoint.safetensors"


def interrupted(run: Callable[..., RunRecord], spec: RunSpec, every: int, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(spec, every, at)


TWO_NOW = [
    n if n in ("sgdm", "adamw") else pytest.param(n, marks=pytest.mark.slow) for n in sorted(OPTIMIZERS)
]


@pytest.mark.parametrize("name", TWO_NOW)
def test_a_run_goes_on_to_the_same_bits(run, session: Session, steps_run: list[int], name: str):
    used = hyperparameters(make_sweep({"task": "sst2", "optimizers": name}, None), name)
    spec = spec_for(session, optimizer=name, hyperparameters=used, weight_decay=0.01)
    undisturbed = run(spec)
    assert undisturbed.status == "done"
    interrupted(run, spec, every=2, at=5)  # steps count from 0: the last checkpoint is after 4 of them
    steps_run.clear()
    resumed = run(spec, every=2)
    assert steps_run == [4, 5]
    assert content(resumed) == content(undisturbed)
    assert resumed.costs is not None


def test_interrupted_again_and_again(run, session: Session, steps_run: list[int], tmp_path: Path):
    spec = spec_for(session, optimizer="sgdm", method="prompt", eval_every=1, max_grad_norm=None)
    undisturbed = run(spec)
    for at in (1, 2, 3, 5):
        interrupted(run, spec, every=1, at=at)
    steps_run.clear()
    assert content(run(spec, every=1)) == content(undisturbed)
    assert steps_run == [5]
    # what `status` reads is whole, too
    lines = (tmp_path / spec.run_id / "evaluations.jsonl").read_text().splitlines()
    assert [f'"step":{step},' in line for step, line in enumerate(lines, 1)] == [True] * 6


def test_after_the_last_step_only_test_is_scored_again(run, session: Session, steps_run: list[int]):
    spec = spec_for(session)
    undisturbed = run(spec, every=3)
    steps_run.clear()
    assert content(run(spec, every=3)) == content(undisturbed)
    assert steps_run == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other run", "other versions", "other layout"])
def test_a_checkpoint_that_would_not_go_on_to_the_same_bits_is_not_used(
    run, session: Session, steps_run: list[int], tmp_path: Path, monkeypatch, capsys, damage: str
):
    spec = spec_for(session, optimizer="sgdm")
    undisturbed = run(spec)
    with monkeypatch.context() as patch:
        if damage == "other versions":
            patch.setattr(checkpoints, "environment", lambda: {"torch": "another"})
        if damage == "other layout":
            halved = finetune._finetune
            patch.setattr(finetune, "_finetune", lambda *given: halved(*given[:-1], 2))
        interrupted(run, spec, every=2, at=5)
    path = checkpoint_of(spec, tmp_path)
    whole = path.read_bytes()
    if damage == "flipped":
        place = len(whole) - 100  # within the tensors
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    elif damage == "cut":
        path.write_bytes(whole[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other run":
        other = spec_for(session, optimizer="sgdm", seed=21)
        interrupted(run, other, every=2, at=5)
        path.write_bytes(checkpoint_of(other, tmp_path).read_bytes())
    steps_run.clear()
    assert content(run(spec, every=2)) == content(undisturbed)
    assert steps_run[0] == 0
    assert "starting over" in capsys.readouterr().err


def test_a_checkpoint_takes_its_place_at_once(run, session: Session, tmp_path: Path, monkeypatch):
    spec = spec_for(session)
    interrupted(run, spec, every=2, at=3)
    before = checkpoint_of(spec, tmp_path).read_bytes()

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(spec, every=2)
    assert checkpoint_of(spec, tmp_path).read_bytes() == before
    names = {path.name for path in checkpoint_of(spec, tmp_path).parent.iterdir()}
    assert names == {"checkpoint.safetensors", "evaluations.jsonl"}


def test_safetensors_writes_into_a_folder_that_holds_nothing_else(
    run, session: Session, tmp_path: Path, monkeypatch
):
    """Where it is killed, it leaves a file of its own name, which then lies in that folder alone."""
    seen = []

    def killed(tensors: object, name: Path, *more: object) -> None:
        seen.append([path.name for path in name.parent.iterdir()] == [name.name])
        (name.parent / ".tmp7rtVdR").write_text("half")
        raise KeyboardInterrupt

    spec = spec_for(session)
    folder = checkpoint_of(spec, tmp_path).parent
    folder.mkdir()
    (folder / ".tmpnotes").write_text("mine")
    monkeypatch.setattr(checkpoints, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        run(spec, every=2)
    assert seen == [True]
    assert {path.name for path in folder.iterdir()} == {"evaluations.jsonl", ".tmpnotes"}


def test_an_optimizer_that_keeps_what_no_checkpoint_holds_is_refused(run, session: Session, monkeypatch):
    def build(groups: list, rate: float, hyperparameters: dict, seed: int) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(groups, lr=rate)
        optimizer.generator = torch.Generator()  # type: ignore[attr-defined]
        return optimizer

    monkeypatch.setitem(OPTIMIZERS, "sgd", dataclasses.replace(OPTIMIZERS["sgd"], build=build))
    assert run(spec_for(session)).status == "done"
    with pytest.raises(UserError, match="sgd keeps a Generator in generator"):
        run(spec_for(session), every=2)


def memory_for(n: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Let a forward of more than n training examples fail as if memory had run out; the sizes tried."""
    tried: list[int] = []
    forward = steps.logits

    def limited(loaded, batch):
        tried.append(len(batch.labels))
        if len(batch.labels) > n:
            raise error
        return forward(loaded, batch)

    monkeypatch.setattr(steps, "logits", limited)
    return tried


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_without_memory_micro_batches_are_halved_and_the_global_batch_stays(
    run, session: Session, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    asked = run(spec_for(session, gradient_accumulation_steps=2))
    spec = spec_for(session)
    tried = memory_for(2, monkeypatch, error)
    record = run(spec)
    assert tried == [4] + [2, 2] * spec.max_steps
    assert record.status == "done"
    assert record.read_back is not None
    assert record.read_back.layout["gradient_accumulation_steps"] == 2
    # the very run of a user who asks for that accumulation, dropout masks included
    assert content(record) == content(asked) | {"spec": spec.model_dump()}


def test_micro_batches_of_unequal_size_weigh_as_many_examples_as_they_have(
    run, session: Session, monkeypatch: pytest.MonkeyPatch
):
    spec = spec_for(session, batch_size=5, dropout=0.0, optimizer="sgdm")
    run(spec)
    whole = {name: p.detach().clone() for name, p in session.loaded(spec).model.named_parameters()}
    tried = memory_for(3, monkeypatch, MemoryError())
    record = run(spec)
    assert tried[:3] == [5, 3, 2]
    assert record.read_back is not None
    assert record.read_back.layout["gradient_accumulation_steps"] == 2
    for name, parameter in session.loaded(spec).model.named_parameters():
        torch.testing.assert_close(parameter.detach(), whole[name], rtol=1e-4, atol=1e-6)


def test_memory_that_runs_out_late_gives_one_layout_from_the_first_step(
    run, session: Session, steps_run: list[int], monkeypatch: pytest.MonkeyPatch
):
    asked = run(spec_for(session, gradient_accumulation_steps=2))
    forward, spec = steps.logits, spec_for(session)

    def limited(loaded, batch):
        if len(batch.labels) > 2 and steps_run[-1] == 4:
            raise MemoryError
        return forward(loaded, batch)

    monkeypatch.setattr(steps, "logits", limited)
    steps_run.clear()
    record = run(spec, every=2)
    assert steps_run == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]  # no checkpoint of the other layout is used
    assert content(record) == content(asked) | {"spec": spec.model_dump()}


def test_one_example_that_does_not_fit_fails_the_run(run, session: Session, monkeypatch: pytest.MonkeyPatch):
    tried = memory_for(0, monkeypatch, OUT_OF_MEMORY[0])
    with pytest.raises(BatchTooLargeError, match="CUDA out of memory"):
        run(spec_for(session))
    assert tried == [4, 2, 1]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    others = (RuntimeError("shapes differ"), OSError(28, "No space left on device"), ValueError("memory"))
    assert not any(map(is_out_of_memory, others))
