"""Several ranks on one run, through the real launcher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harness.errors import UserError
from harness.sampling import batch_indices, dropout_seed, rank_share
from harness.sweep import check_launcher, make_sweep
from tests.conftest import ROOT
from tests.test_cli import launch

# What a rank runs: the command line, and at its end the parameters of the last run, written by rank 0.
SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from safetensors.torch import save_file
import harness.executor, harness.workbench
from harness.cli import main
benches = []
made = harness.workbench.Workbench.__init__
def remember(self, *words):
    benches.append(self)
    made(self, *words)
harness.workbench.Workbench.__init__ = remember
try:
    main(["run", *sys.argv[2:]])
finally:
    if os.environ.get("RANK", "0") == "0":
        live = benches[-1]._model[1].model.named_parameters()
        save_file({{name: p.detach().clone() for name, p in live}}, sys.argv[1])
"""


def words(model: Path, data: Path, out: str, *more: object) -> list[object]:
    return [
        *("--task", "sst2", "--data-dir", data, "--model", model, "--method", "prompt", "--k", 8),
        *("--seeds", 13, "--learning-rates", "1e-2", "--max-steps", 20, "--eval-every", 20),
        *("--batch-size", 4, "--optimizers", "sgdm", "--dropout", 0, "--output-dir", out, "--workers", 1),
        *more,
    ]


def record(folder: Path) -> dict:
    (path,) = folder.glob("runs/*/record.json")
    return json.loads(path.read_text())


def test_ranks_that_share_batches_give_the_run_of_one_process(
    tiny_model: Path, toy_data: Path, tmp_path: Path
):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT)))
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node"]
    for ranks, more in ((1, ()), (2, ("--data-parallel", "--gradient-accumulation-steps", 2))):
        sweep = words(tiny_model, toy_data, f"by{ranks}", *more)
        done = launch(
            *torchrun, ranks, script, f"{ranks}.safetensors", *sweep, cwd=tmp_path, ACCELERATE_USE_CPU="true"
        )
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / f"{ranks}.safetensors") for ranks in (1, 2))
    assert max(float((two[name] - value).abs().max()) for name, value in one.items()) < 1e-5
    single, shared = record(tmp_path / "by1"), record(tmp_path / "by2")
    assert shared["test"]["rows"] == single["test"]["rows"]
    assert shared["test"]["predictions"] == single["test"]["predictions"]
    for ours, theirs in zip(shared["evaluations"], single["evaluations"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert single["read_back"]["layout"]["data_parallel_ranks"] == 1
    assert shared["read_back"]["layout"]["data_parallel_ranks"] == 2
    assert (single["spec"]["data_parallel_ranks"], shared["spec"]["data_parallel_ranks"]) == (None, 2)
    assert sorted(path.name for path in (tmp_path / "by2" / "runs").glob("*/*")) == [
        "lock",
        "record.json",
    ]


def test_the_ranks_parts_are_the_batch():
    rows = batch_indices(13, 5, 40, 12)
    assert [row for rank in range(3) for row in rank_share(rows, rank, 3)] == rows


def test_ranks_draw_other_masks_and_rank_0_those_of_a_single_process():
    seeds = {dropout_seed(13, step, rank) for step in range(20) for rank in range(8)}
    assert len(seeds) == 160


def test_what_does_not_divide_or_was_not_started_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="does not divide into equal parts for 3 ranks"):
        make_sweep({"task": "sst2", "data_parallel_ranks": 3}, None)
    sweep = make_sweep({"task": "sst2", "data_parallel_ranks": 4}, None)
    with pytest.raises(UserError, match=r"is 4, and 1 rank\(s\) were started: torchrun --nproc_per_node 4"):
        check_launcher(sweep)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launcher(sweep)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UserError, match="there is one rank"):
        check_launcher(make_sweep({"task": "sst2", "data_parallel_ranks": 1}, None))
