"""Ranks that share out runs: who does what, alone, and what is left when one dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, PartialState

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.accelerator import make_accelerator
from momentum_bench.harness.launcher import apart, launched, lonely_launch
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import make_sweep
from tests.conftest import SOURCES, cli_environment
from tests.helpers.sweeps import launch, records, small_sweep


def test_a_rank_on_the_second_machine(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "GROUP_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched() == (11, 16, 3)
    with apart():
        assert launched() == (0, 1, 0)
        assert "GROUP_RANK" not in os.environ
    assert launched() == (11, 16, 3)


RANK = """
import os, sys
sys.path.insert(0, {root!r})
import torch
import momentum_bench.harness.execution.one_run
from momentum_bench.harness.cli.main import main
finetune = momentum_bench.harness.execution.one_run.finetune
n_runs = 0
def watched(spec, session, *more):
    global n_runs
    assert not torch.distributed.is_initialized()
    assert session.accelerator.num_processes == 1
    record = finetune(spec, session, *more)
    assert type(session.loaded(spec).model).__name__ == "BertForMaskedLM"
    n_runs += 1
    if n_runs == 2 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
    return record
momentum_bench.harness.execution.one_run.finetune = watched
main(["run", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_ranks_form_no_group_and_a_restart_goes_on_behind_a_rank_that_died(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(root=str(SOURCES)))
    words = small_sweep(tiny_model, toy_data)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", 2, "--max_restarts", 1, script]
    done = launch(*torchrun, *words, "--output-dir", "shared", cwd=tmp_path, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    assert "exitcode: 9" in done.stderr
    assert command_here("run", *words, "--output-dir", "single").returncode == 0
    assert records(tmp_path / "shared") == records(tmp_path / "single")


def test_a_launch_that_stays_alone_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("MASTER_PORT", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    assert lonely_launch() is None
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(SOURCES)!r})\n"
        "from momentum_bench.harness.launcher import lonely_launch\n"
        "print('alone:', lonely_launch())\n"
    )

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", *words, str(script)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=cli_environment())
        return done.stdout

    assert "started this one alone" in said("--num_processes", "2")
    assert "alone: None" in said("--num_processes", "1")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many', expected a whole number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1', expected a whole number"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5', expected a whole number"),
        ({"LOCAL_WORLD_SIZE": "two"}, "LOCAL_WORLD_SIZE is 'two', expected a whole number"),
        ({"RANK": ""}, "RANK is '', expected a whole number"),
        ({"RANK": "3", "WORLD_SIZE": "2"}, "RANK=3 and WORLD_SIZE=2, expected a rank below"),
        ({"RANK": "3"}, "RANK=3 and WORLD_SIZE=1, expected a rank below"),
        ({"WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0, expected a rank below"),
    ],
)
def test_what_no_launcher_sets_is_an_error(command, variables: dict[str, str], message: str):
    done = command("--dry-run", "--task", "sst2", "--data-dir", "nowhere", **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert "unset RANK WORLD_SIZE LOCAL_RANK" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_rank_whose_siblings_never_come_does_all_runs(
    command, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    """As where an old launch left its variables in a shell: no quarter of a grid ends with exit code 0."""
    words = small_sweep(tiny_model, toy_data)
    left_over = command(*words, "--output-dir", "left-over", RANK="3", WORLD_SIZE="4", LOCAL_RANK="3")
    assert left_over.returncode == 0, left_over.stderr
    assert command(*words, "--output-dir", "single").returncode == 0
    assert records(tmp_path / "left-over") == records(tmp_path / "single")
    assert (tmp_path / "left-over" / "leaderboard.csv").is_file()


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_what_is_said_about_a_precision_of_accelerate_that_we_do_not_have_works(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The file is one that `accelerate config` writes, and the command is the one that the message names."""
    config = tmp_path / "config.yaml"
    config.write_text(
        f"compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: {precision}\n"
        "num_machines: 1\nnum_processes: 1\nuse_cpu: true\n"
    )
    sweep = make_sweep({"task": "sst2"}, None)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(UserError) as refused:
        check_launcher(sweep)
    assert "--precision bf16" not in str(refused.value)  # which would be refused too
    assert "type accelerate launch --mixed_precision no ..." in str(refused.value)
    assert "unset ACCELERATE_MIXED_PRECISION" in str(refused.value)
    (tmp_path / "program.py").write_text("import os; print(os.environ['ACCELERATE_MIXED_PRECISION'])")
    launcher = ["accelerate.commands.launch", "--config_file", config, "--mixed_precision", "no"]
    done = launch(*launcher, "program.py", cwd=tmp_path)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", done.stdout.strip())
    check_launcher(sweep)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    check_launcher(sweep)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_USE_CPU", "maybe", "ACCELERATE_USE_CPU is 'maybe', expected true or false"),
        ("ACCELERATE_TORCH_DEVICE", "banana", "The environment says ACCELERATE_TORCH_DEVICE=banana"),
    ],
)
def test_nonsense_for_accelerate_is_a_clear_error_where_a_process_starts(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    """As in studies, in `tasks check` and in workers; `run` finds the first of them before it starts."""
    for state in (AcceleratorState, PartialState):  # as in a process that has no accelerator yet
        monkeypatch.setattr(state, "_shared_state", {})
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        make_accelerator("fp32")
