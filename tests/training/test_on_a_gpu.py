"""Whole runs on a GPU: a real one where there is one, else one that is pretended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from momentum_bench.harness.encoding import texts
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.execution.plan_sweep import SweepEvents, plan_sweep
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.models.loaded import LoadedModel
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training import cuda_graphs, text_setup
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from tests.conftest import cli_environment
from tests.helpers.gpu import Gpu, a_gpu
from tests.helpers.pretended_gpu import PretendedGpu, pretended_gpu, why_not
from tests.helpers.runs import spec_for
from tests.helpers.tickets import IMAGE_SOURCE, write_shades

pytestmark = pytest.mark.usefixtures("one_thread")


def run_here(inputs: Inputs, folder: Path, **changes: Any) -> RunRecord:
    """A run on the device that this process has now."""
    AcceleratorState._reset_state(reset_partial_state=True)
    session = Session(inputs, make_accelerator(changes.get("precision", "fp32")))
    settings = {"max_steps": 6, "eval_every": 3, "learning_rate": 0.03, "dropout": 0.0} | changes
    return finetune(spec_for(session, **settings), session, Journal(folder / "e.jsonl"))


def on_gpu(inputs: Inputs, folder: Path, **changes: Any) -> tuple[RunRecord, Gpu]:
    with a_gpu() as gpu:
        record = run_here(inputs, folder, **changes)
    assert record.read_back.device == "cuda"
    return record, gpu


@pytest.fixture(autouse=True)
def device_is_reset() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def same(a: RunRecord, b: RunRecord) -> None:
    for one, other in zip(a.evaluations, b.evaluations, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, abs=1e-4)
        assert other.dev_loss == pytest.approx(one.dev_loss, abs=1e-4)
    assert b.test.predictions == a.test.predictions
    assert b.clipped_fraction == a.clipped_fraction


TEXT = [
    {"method": "prompt", "optimizer": "sgd"},
    {"method": "head", "optimizer": "sgdm"},
]


@pytest.fixture
def inputs(tiny_model: Path, toy_data: Path) -> Inputs:
    return Inputs(str(tiny_model), toy_data)


@pytest.mark.parametrize("changes", TEXT, ids=lambda c: c["method"])
def test_the_run_of_a_cpu_is_that_of_a_gpu_and_that_of_recorded_steps(
    inputs: Inputs, tmp_path: Path, changes: dict[str, Any]
):
    changes = {"max_steps": 12} | changes
    plain = run_here(inputs, tmp_path, **changes)
    assert plain.read_back.device == "cpu"
    launched, _ = on_gpu(inputs, tmp_path, **changes)
    same(plain, launched)
    recorded, gpu = on_gpu(inputs, tmp_path, cuda_graphs=True, **changes)
    same(plain, recorded)
    assert gpu.recordings is None or 0 < gpu.recordings < gpu.replays


@pytest.mark.parametrize("recorded", [None, True], ids=["launched", "recorded"])
def test_a_decoder_that_scores_label_words(
    tiny_decoder: Path, toy_data: Path, tmp_path: Path, recorded: bool | None
):
    inputs = Inputs(str(tiny_decoder), toy_data)
    plain = run_here(inputs, tmp_path, method="causal")
    assert plain.read_back.layout["candidates"] == "at one place"
    same(plain, on_gpu(inputs, tmp_path, method="causal", cuda_graphs=recorded)[0])


def test_a_decoder_that_scores_candidates(
    tiny_decoder: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(texts, "_at_one_place", lambda encoded: encoded)
    inputs = Inputs(str(tiny_decoder), toy_data)
    plain = run_here(inputs, tmp_path, method="causal")
    assert "candidates" not in plain.read_back.layout
    same(plain, on_gpu(inputs, tmp_path, method="causal")[0])


def test_a_diverged_run_is_recorded_alike_on_all_devices(inputs: Inputs, tmp_path: Path):
    """On a GPU the loss is looked at less often, so the loop goes on after it is lost."""
    changes = {"learning_rate": 1e30, "max_grad_norm": 1e-3, "max_steps": 8, "eval_every": 8}
    changes |= {"optimizer": "sgdm", "hyperparameters": {"momentum": 0.9}, "weight_decay": 0.1}
    plain = run_here(inputs, tmp_path, **changes)
    assert plain.status == "diverged"
    assert plain.failure
    assert "not finite at step" in plain.failure
    there, _ = on_gpu(inputs, tmp_path, **changes)
    assert (there.failure, there.clipped_fraction) == (plain.failure, plain.clipped_fraction)


def test_what_a_record_says_of_a_gpu_s_arithmetic(inputs: Inputs, tmp_path: Path):
    record, _ = on_gpu(inputs, tmp_path)
    assert record.read_back.convolution_precision == "ieee"
    assert record.read_back.matmul_precision == "highest"
    assert record.read_back.layout["cudnn_attention"] == "off"
    plain = run_here(inputs, tmp_path)
    assert plain.read_back.convolution_precision is None
    assert "cudnn_attention" not in plain.read_back.layout


def test_images(tmp_path: Path):
    write_shades(tmp_path)
    task_file = tmp_path / "shades.py"
    task_file.write_text(IMAGE_SOURCE)
    inputs = Inputs("task:shades", tmp_path, task_file=task_file)
    plain, launched = of_images(inputs, tmp_path), None
    with a_gpu():
        launched = of_images(inputs, tmp_path)
    same(plain, launched)


def of_images(inputs: Inputs, folder: Path, **changes: Any) -> RunRecord:
    """A run of the image task, which is planned as a sweep plans it."""
    sweep = make_sweep(
        {"task_file": str(inputs.task_file), "data_dir": str(inputs.data_dir), "seeds": "13", "k": 0}, None
    )
    planned = plan_sweep(sweep.model_copy(update={"output_dir": folder / "results"}), SweepEvents())
    AcceleratorState._reset_state(reset_partial_state=True)
    session = Session(planned.inputs, make_accelerator("fp32"))
    spec = planned.specs[0].model_copy(update=changes)
    return finetune(spec, session, Journal(folder / "e.jsonl"))


def first_now(cases: list[dict[str, Any]]) -> list[Any]:
    """The first case, and the others as slow tests."""
    return [cases[0], *(pytest.param(case, marks=pytest.mark.slow) for case in cases[1:])]


def waits_of_a_step(inputs: Inputs, folder: Path, **changes: Any) -> Counter[str]:
    """How often the host waits in the nine steps that a run of 12 has and a run of 3 has not, by place."""
    seen = [on_gpu(inputs, folder, max_steps=n, eval_every=n, **changes)[1].waits for n in (3, 12)]
    assert seen[0]  # they are counted
    assert not seen[0] - seen[1]
    return seen[1] - seen[0]


OTHERS: list[dict[str, Any]] = [
    {"method": "prompt", "gradient_accumulation_steps": 2},
    {"method": "head", "gradient_accumulation_steps": 2},
    {"method": "prompt", "peft": "lora"},
    {"method": "head", "peft": "ia3"},
    {"method": "prompt", "freeze": "encoder"},
    {"method": "head", "freeze": "embeddings"},
    {"method": "prompt", "checkpoint_activations": True},
]


@pytest.mark.parametrize("changes", first_now(OTHERS), ids=str)
def test_no_step_of_these_waits_either(inputs: Inputs, tmp_path: Path, changes: dict[str, Any]):
    assert waits_of_a_step(inputs, tmp_path, **changes) == {}


def test_no_step_with_images_waits(tmp_path: Path):
    write_shades(tmp_path)
    task_file = tmp_path / "shades.py"
    task_file.write_text(IMAGE_SOURCE)
    inputs = Inputs("task:shades", tmp_path, task_file=task_file)
    seen = []
    for n in (3, 12):
        with a_gpu() as gpu:
            of_images(inputs, tmp_path, max_steps=n, eval_every=n)
        seen.append(gpu.waits)
    assert seen[1] - seen[0] == {}


MASKS_LOOKED_AT: list[dict[str, Any]] = [
    {"method": "prompt", "peft": "prefix"},
    {"method": "head", "peft": "prefix"},
    {"method": "prompt", "peft": "prompt"},
    {"method": "head", "peft": "prompt"},
    {"method": "prompt", "padded": True},
    {"method": "head", "padded": True},
]
"""transformers looks whether the mask of a padded batch hides anything, once in each forward pass
(`_ignore_bidirectional_mask_sdpa` in its `masking_utils`)."""


@pytest.mark.parametrize("changes", first_now(MASKS_LOOKED_AT), ids=str)
def test_a_padded_step_waits_once_in_the_library(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
):
    if changes.get("padded"):
        pad_all(monkeypatch)
    waits = waits_of_a_step(inputs, tmp_path, **{n: v for n, v in changes.items() if n != "padded"})
    assert list(waits.values()) == [9]
    assert "_local_scalar_dense" in next(iter(waits))


DECODERS: list[dict[str, Any]] = [
    {"method": "causal"},
    {"method": "head"},
    {"method": "causal", "peft": "lora"},
    {"method": "causal", "peft": "prefix"},
    {"method": "head", "peft": "prefix"},
    {"method": "causal", "gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("changes", first_now(DECODERS), ids=str)
def test_no_step_of_a_decoder_waits(
    tiny_decoder: Path, toy_data: Path, tmp_path: Path, changes: dict[str, Any]
):
    assert waits_of_a_step(Inputs(str(tiny_decoder), toy_data), tmp_path, **changes) == {}


def pad_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no model takes packed rows."""

    def padded(loaded: LoadedModel, *_: Any, **__: Any) -> LoadedModel:
        return replace(loaded, why_padded="this test pads")

    monkeypatch.setattr(text_setup, "with_packing", padded)


@pytest.mark.parametrize("recorded", [False, True], ids=["launched", "recorded"])
@pytest.mark.parametrize("changes", TEXT, ids=lambda c: c["method"])
def test_no_step_waits_for_the_gpu(inputs: Inputs, tmp_path: Path, changes: dict[str, Any], recorded: bool):
    """The host waits at evaluations and at the end, and so as often in 12 steps as in 3."""
    waits = []
    for steps in (3, 12):
        settings = {"max_steps": steps, "eval_every": steps, "cuda_graphs": recorded or None}
        waits.append(on_gpu(inputs, tmp_path, **changes | settings)[1].waits)
    assert waits[1] - waits[0] == {}
    assert waits[0]  # they are counted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_gives_the_losses_of_its_steps_launched_one_by_one(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
):
    changes = {"optimizer": "sgdm", "hyperparameters": {"momentum": 0.9}, "dropout": 0.1}
    changes |= {"cuda_graphs": True, "precision": precision, "max_steps": 12, "eval_every": 6}
    graphs, gpu = on_gpu(inputs, tmp_path, **changes)
    assert graphs.read_back.autocast_dtype == (None if precision == "fp32" else "bfloat16")
    assert gpu.recordings is None or gpu.replays > gpu.recordings

    def do_now(recorder: Any, work: cuda_graphs.Work) -> tuple[Callable[[], None], tuple[torch.Tensor, ...]]:
        places = [torch.full((), torch.nan, device="cuda") for _ in range(2)]

        def replay() -> None:
            for place, result in zip(places, work(), strict=True):
                place.copy_(result)

        return replay, tuple(places)

    monkeypatch.setattr(cuda_graphs.Recorder, "record", do_now)
    launched, _ = on_gpu(inputs, tmp_path, **changes)
    assert [e.train_loss for e in graphs.evaluations] == pytest.approx(
        [e.train_loss for e in launched.evaluations], abs=1e-4
    )


def test_tests_run_on_the_cpu_where_there_is_a_gpu():
    assert os.environ["ACCELERATE_USE_CPU"] == cli_environment()["ACCELERATE_USE_CPU"] == "true"
    with a_gpu():
        assert make_accelerator("fp32").device.type == "cuda"
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ["ACCELERATE_USE_CPU"] = "true"
        assert make_accelerator("fp32").device.type == "cpu"


class TestThePretendedGpu:
    """What makes it worth its name: it refuses what a GPU refuses."""

    @pytest.fixture(autouse=True)
    def pretended(self) -> Iterator[PretendedGpu]:
        if torch.cuda.is_available():
            pytest.skip("there is a real GPU here")
        if reason := why_not():
            pytest.skip(reason)
        with pretended_gpu() as gpu:
            yield gpu

    def test_a_tensor_of_the_cpu_among_its_own(self):
        ours = torch.ones(3, device="cuda")
        assert (ours.device.type, ours.is_cuda) == ("cuda", True)
        with pytest.raises(RuntimeError, match="same device"):
            ours + torch.ones(3)
        assert (ours + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a scalar of the CPU is allowed

    def test_a_generator_of_the_cpu(self):
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device="cuda", generator=torch.Generator())

    def test_what_waits_is_counted(self, pretended: PretendedGpu):
        ours = torch.ones(3).to("cuda", non_blocking=True)
        assert not pretended.waits
        for wait in (lambda: ours.cpu(), lambda: ours.sum().item(), lambda: ours.to("cuda").cpu()):
            before = pretended.waits.total()
            wait()
            assert pretended.waits.total() == before + 1
        torch.ones(3).to("cuda")
        torch.empty(0).to("cuda")  # there is nothing to wait for
        assert pretended.waits.total() == 4

    def test_a_recording_has_no_effect_and_a_replay_has(self):
        weight, rate = torch.ones(2, device="cuda"), torch.full((), 1.0, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            total = weight.mul_(2).add_(rate).sum()
        assert weight.tolist() == [1, 1]
        graph.replay()
        assert weight.tolist() == [3, 3]
        assert total.item() == 6
        rate.fill_(10)
        graph.replay()
        assert weight.tolist() == [16, 16]
        assert total.item() == 32

    def test_nothing_waits_while_it_records(self):
        ours = torch.ones(2, device="cuda")
        with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            ours.sum().item()
