"""Several ranks on one run, through the real launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Journal
from momentum_bench.harness.seeds import batch_indices, dropout_seed, rank_share
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.training.finetune import finetune
from momentum_bench.harness.training.session import Session
from tests.conftest import ROOT, SOURCES
from tests.helpers.sweeps import launch

RUN = ROOT / "harness" / "run.py"

# What a rank runs: the command line, and at its end the parameters of the last run, written by rank 0.
SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from safetensors.torch import save_file
from momentum_bench.harness.execution import data_parallel, local
from momentum_bench.harness.training.session import Session
from momentum_bench.harness.cli.main import main
from momentum_bench.harness.sharded_tensors import whole
sessions = []
made = Session.__init__
def remember(self, *words):
    sessions.append(self)
    made(self, *words)
Session.__init__ = remember
def keep(session):
    live = session._model[1].model.named_parameters()
    gathered = {{name: whole(p).clone() for name, p in live}}
    if os.environ.get("RANK", "0") == "0":
        save_file(gathered, sys.argv[1])
left = data_parallel.leave
def keep_and_leave(accelerator):
    if accelerator.num_processes > 1:
        keep(next(each for each in reversed(sessions) if each._model))
    left(accelerator)
data_parallel.leave = local.leave = keep_and_leave
try:
    main(["run", *sys.argv[2:]])
finally:
    if os.environ["WORLD_SIZE"] == "1":
        keep(next(each for each in reversed(sessions) if each._model))
"""

FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
}
"""What `accelerate launch` makes of the answers to `accelerate config`."""


def words(model: Path, data: Path, out: str, *more: object) -> list[object]:
    return [
        *("--task", "sst2", "--data-dir", data, "--model", model, "--method", "prompt", "--k", 8),
        *("--seeds", 13, "--learning-rates", "1e-2", "--max-steps", 20, "--eval-every", 20),
        *(
            "--batch-size",
            4,
            "--optimizers",
            "sgdm",
            "--dropout",
            0,
            "--output-dir",
            out,
            "--runs-at-a-time",
            1,
        ),
        *more,
    ]


def records(folder: Path) -> dict[str, dict]:
    """By optimizer, without its version."""
    found = [json.loads(path.read_text()) for path in folder.glob("runs/*/record.json")]
    return {record["spec"]["optimizer"].partition("@")[0]: record for record in found}


def torchrun(ranks: int, script: Path) -> list[object]:
    return ["torch.distributed.run", "--standalone", "--nproc_per_node", ranks, script]


def launched_on(ranks: int, place: Path, sweep: list[object], **environment: str):
    """The parameters after the last run of a sweep that ranks work on."""
    script = place / "script.py"
    script.write_text(SCRIPT.format(root=str(SOURCES)))
    parameters = place / f"{sweep[sweep.index('--output-dir') + 1]}.safetensors"
    done = launch(
        *torchrun(ranks, script), parameters, *sweep, cwd=place, ACCELERATE_USE_CPU="true", **environment
    )
    assert done.returncode == 0, done.stderr
    assert "UserWarning" not in done.stderr
    return load_file(parameters)


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], within: float) -> None:
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - value).abs().max()) for name, value in theirs.items()) < within


def assert_same_run(ours: dict, theirs: dict) -> None:
    assert ours["status"] == theirs["status"] == "done"
    assert ours["test"]["rows"] == theirs["test"]["rows"]
    assert ours["test"]["predictions"] == theirs["test"]["predictions"]
    for one, other in zip(ours["evaluations"], theirs["evaluations"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
def test_ranks_that_share_batches_give_the_run_of_one_process(
    tiny_model: Path, toy_data: Path, tmp_path: Path
):
    one = launched_on(1, tmp_path, words(tiny_model, toy_data, "by1"))
    more = ("--data-parallel", "--gradient-accumulation-steps", 2)
    two = launched_on(2, tmp_path, words(tiny_model, toy_data, "by2", *more))
    assert_close(two, one, within=1e-5)
    single, shared = records(tmp_path / "by1")["sgdm"], records(tmp_path / "by2")["sgdm"]
    assert_same_run(shared, single)
    assert single["read_back"]["layout"]["data_parallel_ranks"] == 1
    assert shared["read_back"]["layout"]["data_parallel_ranks"] == 2
    assert (single["spec"]["data_parallel_ranks"], shared["spec"]["data_parallel_ranks"]) == (None, 2)
    assert sorted(path.name for path in (tmp_path / "by2" / "runs").glob("*/*")) == [
        "lock",
        "record.json",
    ]


OF_EACH_KIND = ("sgdm", "sngm", "sgdf", "torch.optim.SGD:momentum=0.5")
"""The last is a class without promises. One that divides by the size of a gradient would amplify rounding."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "ranks", "in_host_memory"),
    [
        ("prompt", 2, "false"),
        ("head", 2, "false"),
        ("causal", 2, "false"),
        ("head", 2, "true"),
        ("prompt", 1, "true"),
    ],
)
def test_sharded_parameters_give_the_run_of_one_process(
    method: str,
    ranks: int,
    in_host_memory: str,
    tiny_model: Path,
    tiny_decoder: Path,
    toy_data: Path,
    tmp_path: Path,
):
    """And several runs in one launch, each from the pristine model, clipped, with weight decay."""
    model = tiny_decoder if method == "causal" else tiny_model
    more = (
        "--method",
        method,
        "--optimizers",
        ",".join(OF_EACH_KIND),
        "--max-grad-norm",
        0.5,
        "--weight-decay",
        0.01,
    )
    sweep = words(model, toy_data, "by2", *more, "--data-parallel")
    more_environment = {"FSDP_OFFLOAD_PARAMS": in_host_memory, "OMP_NUM_THREADS": "1"}
    parameters = launched_on(ranks, tmp_path, sweep, **FSDP, **more_environment)
    session = Session(Inputs(str(model), toy_data), make_accelerator("fp32"))
    for name in (name.partition(":")[0] for name in OF_EACH_KIND):
        sharded = records(tmp_path / "by2")[name]
        spec = RunSpec.model_validate_json(json.dumps(sharded["spec"]))
        alone = finetune(
            spec.model_copy(update={"data_parallel_ranks": None}),
            session,
            Journal(tmp_path / "evaluations.jsonl"),
        )
        single = json.loads(alone.model_dump_json())
        assert_same_run(sharded, single)
        # the same settings, but for updates in one pass, which parameters in parts do not have
        if name == "sgdm":
            for group in single["read_back"]["param_groups"]:
                assert group["fused"]
                group["fused"] = None
        for fact in ("param_groups", "state_tensors", "optimizer_state_bytes", "n_trainable_parameters"):
            assert sharded["read_back"][fact] == single["read_back"][fact]
        layout = sharded["read_back"]["layout"]
        assert layout["fsdp2_units"] == (3 if method == "causal" else 4)  # BERT's tables too
        part = single["read_back"]["n_trainable_parameters"] / ranks
        assert part <= layout["parameters_on_rank_0"] < 1.2 * part  # rows that do not divide are on rank 0
        assert layout["parameters_in"] == "cpu"
        assert layout["data_parallel_ranks"] == ranks
        assert layout["padding"] == single["read_back"]["layout"]["padding"] == "none"
        assert sharded["clipped_fraction"] == single["clipped_fraction"] > 0
    live = dict(session.loaded(spec).model.named_parameters())
    assert_close(parameters, {name: p.detach() for name, p in live.items()}, within=1e-5)


@pytest.mark.slow
def test_an_optimizer_that_cannot_step_on_parts_is_named(tiny_model: Path, toy_data: Path, tmp_path: Path):
    more = ("--optimizers", "sgd,torch.optim.Adafactor", "--data-parallel")
    sweep = words(tiny_model, toy_data, "results", *more)
    done = launch(*torchrun(2, RUN), *sweep, cwd=tmp_path, ACCELERATE_USE_CPU="true", **FSDP)
    assert done.returncode != 0
    assert "torch.optim.Adafactor@" in done.stderr
    assert "cannot step where each rank holds a part of every parameter (FSDP): " in done.stderr
    assert "momentum_bench/harness" not in done.stderr  # no traceback of ours
    assert records(tmp_path / "results").keys() == {"sgd"}


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "sharding"), [(2, {}), (1, FSDP)])
def test_ranks_that_were_not_joined_do_not_run(
    ranks: int, sharding: dict[str, str], tiny_model: Path, toy_data: Path, tmp_path: Path
):
    """Also a single one that was to keep its parameters in host memory."""
    sweep = words(tiny_model, toy_data, "results", "--data-parallel")
    without = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "false"}
    done = launch(*torchrun(ranks, RUN), *sweep, cwd=tmp_path, **without, **sharding)
    assert done.returncode != 0
    assert f"{ranks} rank(s) were started, but accelerate joined 0 on cpu" in done.stderr
    assert f"ACCELERATE_USE_CPU=true torchrun --nproc_per_node {ranks}" in done.stderr
    assert not records(tmp_path / "results")


def test_the_ranks_parts_are_the_batch():
    rows = batch_indices(13, 5, 40, 12)
    assert [row for rank in range(3) for row in rank_share(rows, rank, 3)] == rows


def test_ranks_draw_other_masks_and_rank_0_those_of_a_single_process():
    seeds = {dropout_seed(13, step, rank) for step in range(20) for rank in range(8)}
    assert len(seeds) == 160


def test_what_does_not_divide_or_was_not_started_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="does not divide into equal parts for 3 ranks"):
        make_sweep({"task": "sst2", "data_parallel_ranks": 3}, None)
    with pytest.raises(UserError, match="all ranks work on one run at a time"):
        make_sweep({"task": "sst2", "data_parallel_ranks": 2, "runs_at_a_time": 3}, None)
    sweep = make_sweep({"task": "sst2", "data_parallel_ranks": 4}, None)
    with pytest.raises(
        UserError, match=r"is 4, and 1 rank\(s\) were started: type torchrun --nproc_per_node 4"
    ):
        check_launcher(sweep)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launcher(sweep)
    monkeypatch.setenv("WORLD_SIZE", "1")
    alone = make_sweep({"task": "sst2", "data_parallel_ranks": 1}, None)
    with pytest.raises(UserError, match="there is one rank"):
        check_launcher(alone)
    for name, value in FSDP.items():
        monkeypatch.setenv(name, value)
    check_launcher(alone)  # its parameters may be in host memory
