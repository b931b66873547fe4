"""End to end, through the real command line in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from momentum_bench.harness.records.store import Store
from tests.conftest import (
    MINILM,
    ROOT,
    cli_environment,
    needs_quickstart,
    sentiment_rows,
    write_rows,
)
from tests.helpers.command_line import run_command
from tests.helpers.processes import plant_in_each_step, wait_until
from tests.helpers.sweeps import launch, records, small_sweep, table


def test_a_sweep_gives_a_leaderboard_and_is_never_run_twice(
    command, command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = small_sweep(tiny_model, toy_data)
    first = command(*words, "--output-dir", "one", "--runs-at-a-time", 2)
    assert first.returncode == 0, first.stderr
    assert "SGDM minus SGD" in first.stdout
    assert "\r" not in first.stderr  # no progress bar where there is no terminal
    rows = table(tmp_path / "one" / "leaderboard.csv")
    assert [row["optimizer"] for row in rows] == ["sgd", "sgdm"]
    for row in rows:
        assert row["seeds"] == "13;21"
        assert len(row["learning_rates"].split(";")) == 2
        assert (row["n_seeds"], row["n_runs"], row["n_missing"]) == ("2", "4", "0")
        assert row["model"] == "local:tiny-bert"
        assert 0 <= float(row["test_mean"]) <= 1
    assert int(rows[0]["optimizer_state_bytes"]) == 0 < int(rows[1]["optimizer_state_bytes"])
    (pair,) = table(tmp_path / "one" / "comparison.csv")
    assert pair["choice"] == "bagged"
    assert float(pair["plain_mean_difference"]) == pytest.approx(
        float(rows[1]["test_mean"]) - float(rows[0]["test_mean"]), abs=1e-9
    )

    # the same sweep elsewhere, by other workers: the same bytes but for seconds and memory
    other = command_here("run", *words, "--output-dir", "two")
    assert other.returncode == 0, other.stderr
    for name in ("leaderboard.csv", "comparison.csv"):
        assert table(tmp_path / "one" / name) == table(tmp_path / "two" / name)
    assert records(tmp_path / "one") == records(tmp_path / "two")

    # one run alone is that run inside the sweep
    alone = [*small_sweep(tiny_model, toy_data, "--optimizers", "sgdm"), "--output-dir", "three"]
    alone[alone.index("13,21")], alone[alone.index("1e-2,1e-1")] = "21", "1e-1"
    mine = {
        tmp_path / "three" / name for name in (".env.tmpl", "config/.secrets.tmpl", "plots/.tmpnotes", "lock")
    }
    for path in mine | {tmp_path / "three" / ".tmp.driveupload" / "part"}:  # no sweep harms what lies there
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert command_here("run", *alone).returncode == 0
    assert {path.read_text() for path in mine} == {"mine"}
    ((run_id, record),) = records(tmp_path / "three").items()
    assert records(tmp_path / "one")[run_id] == record

    # finished runs are not run again; a larger grid runs only what is new
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "one").glob("runs/*/record.json")}
    again = command_here("run", *words, "--output-dir", "one")
    assert again.returncode == 0
    assert "8 of them already there" in again.stderr
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "one").glob("runs/*/record.json")} == before
    less = ("--output-dir", "one", "--optimizers", "sgd", "--seeds", "13,42", "--dry-run")
    dry = command_here("run", *words, *less)
    assert dry.returncode == 0
    assert "1 task(s) x 1 optimizers x 2 rates x 2 seeds = 4 runs" in dry.stderr
    assert (dry.stdout.count("done"), dry.stdout.count("missing")) == (2, 2)
    assert len(records(tmp_path / "one")) == 8

    # the printed board is that of the sweep that was typed, the files are of all runs
    part = command_here("run", *words, "--output-dir", "one", "--seeds", 21, "--json")
    assert part.returncode == 0, part.stderr
    document = json.loads(part.stdout)
    assert [row["seeds"] for row in document["rows"]] == ["21", "21"]
    assert document["notes"][0] == (
        "one holds 4 run(s) of other sweeps, which are not in this table: "
        "`momentum-bench leaderboard build one` shows all"
    )
    assert {row["seeds"] for row in table(tmp_path / "one" / "leaderboard.csv")} == {"13;21"}


SECRETS = {
    "HF_TOKEN": "hf_planted_0",
    "WANDB_API_KEY": "planted_1_1111",
    "MLFLOW_TRACKING_PASSWORD": "planted_2_2222",
    "AWS_SECRET_ACCESS_KEY": "planted_3_3333",
}


def test_no_secret_no_path_and_no_host_is_stored_or_printed(
    command, command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    """One of the runs even fails with a message that quotes every secret."""
    environment = plant_in_each_step(
        tmp_path,
        "if seed == 21:\n"
        f"    raise RuntimeError('401 ' + ' '.join(os.environ[name] for name in {list(SECRETS)}))",
    )
    words = small_sweep(tiny_model, toy_data, "--learning-rates", "0.1", "--checkpoint-every", 3)
    done = command(*words, **environment, **SECRETS)
    assert done.returncode == 1
    assert "RuntimeError: 401 [HF_TOKEN] [WANDB_API_KEY]" in done.stderr
    status = command_here("status", "results", **SECRETS)
    assert status.returncode == 0, status.stderr
    shown = [done.stdout, done.stderr, status.stdout]
    written = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert len(written) > 10
    for content in [path.read_bytes() for path in written] + [text.encode() for text in shown]:
        for secret in SECRETS.values():
            assert secret.encode() not in content
    for path in written:
        for place in (str(tmp_path), str(tiny_model.parent), os.uname().nodename):
            assert place.encode() not in path.read_bytes(), path


def test_a_sweep_file_and_both_spellings_of_flags(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    file = tmp_path / "sweep.toml"
    file.write_text(
        f'task = "sst2"\nmodel = "{tiny_model}"\ndata_dir = "{toy_data}"\nmethod = "head"\nk = 4\n'
        "seeds = [13]\nlearning_rates = [0.1]\nmax_steps = 2\nruns_at_a_time = 1\n"
    )
    done = command_here("run", "--sweep", file, "--batch_size", 2, "--output_dir=out")
    assert done.returncode == 0, done.stderr
    (sgd, _) = table(tmp_path / "out" / "leaderboard.csv")
    assert sgd["protocol"] == "mezo batch_size=2 max_steps=2"
    assert sgd["test_std"] == ""  # one seed has no standard deviation


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "sst2"], "cannot be had from the hub"),
        (["--task", "snlli"], "Did you mean snli"),
        (["--learning-rate", "1"], "here it is --learning-rates"),
        (["--batch-size", "many"], "should be a valid integer"),
        (["--k", "10000"], "fewer than two classes with dev rows"),
        (["--batch-size", "0"], "--batch-size"),
        (["--momentum", "1.0"], "--momentum"),
        (["--learning-rates", "0.1,0.1"], "0.1 is given more than once"),
        (["--model", "./empty"], "no config.json"),
        (["--task", "trec"], "no folder"),
        (["--data-dir", "broken"], "train.jsonl, line 2"),
        (["--output-dir", "broken/sst2/train.jsonl/x"], "cannot be written"),
        (["--output-dir", "old"], "written by protocol version 0"),
    ],
)
def test_a_users_mistake_is_one_message_and_nothing_else(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path, words: list[str], message: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "sst2").mkdir(parents=True)
    (tmp_path / "broken" / "sst2" / "train.jsonl").write_text('{"sentence": "a", "label": 0}\n{oops\n')
    write_rows(tmp_path / "broken" / "sst2" / "validation.jsonl", sentiment_rows(4))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "momentum-bench.json").write_text('{"protocol_version": 0}')
    base = [] if words == ["--task", "sst2"] else small_sweep(tiny_model, toy_data)
    done = command_here("run", *base, *words)
    assert done.returncode == 2
    assert message in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()
    assert not list(tmp_path.glob("**/runs"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "to_all", [pytest.param(signal.SIGINT, id="ctrl-c"), pytest.param(None, id="sigterm")]
)
def test_an_interruption_keeps_what_is_finished_and_the_next_start_goes_on(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path, to_all: signal.Signals | None
):
    # The first run ends. Each run that is at work then, or begins later, stays at its step.
    environment = plant_in_each_step(
        tmp_path,
        "while list(Path('out').glob('runs/*/record.json')):\n"
        "    Path('at_work').touch()\n"
        "    time.sleep(0.05)",
    )
    words = small_sweep(tiny_model, toy_data, "--output-dir", "out")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "harness" / "run.py"), *map(str, words), "--runs-at-a-time", "2"],
        cwd=tmp_path,
        env=cli_environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell has its background jobs ignore Ctrl-C, and what they start inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with ExitStack() as at_end:
        at_end.callback(process.kill)
        wait_until((tmp_path / "at_work").exists, process)
        if to_all:
            os.killpg(process.pid, to_all)  # as a terminal does: to the workers too
        else:
            process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    kept = records(tmp_path / "out")
    assert 1 <= len(kept) <= 2

    done = command_here("run", *words)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} of them already there" in done.stderr
    assert len(records(tmp_path / "out")) == 8
    assert kept.items() <= records(tmp_path / "out").items()
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith(".") or name.endswith(".tmp")]
    assert {"leaderboard.csv", "comparison.csv", "index.html"} <= names


def test_a_run_that_fails_is_a_result_and_the_others_go_on(
    command, command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    """A defect planted in one run of the grid: the sweep ends, says so, and exits with 1."""
    environment = plant_in_each_step(tmp_path, "if seed == 21 and step == 1: raise RuntimeError('planted')")
    words = small_sweep(tiny_model, toy_data, "--optimizers", "sgd", "--learning-rates", "0.1")
    done = command(*words, **environment)
    assert done.returncode == 1
    assert (
        "1 run(s) failed, the first: sst2 sgd lr 0.1 seed 21: failed (RuntimeError: planted)" in done.stderr
    )
    assert "sst2: sgd has no result at rate 0.1 on seed 21 (failed)." in done.stdout
    (row,) = table(tmp_path / "results" / "leaderboard.csv")
    assert (row["n_failed"], row["n_seeds"], row["seeds"]) == ("1", "1", "13")
    again = command_here("run", *words)
    assert again.returncode == 1  # it is a result: not run again unasked
    assert command_here("run", *words, "--retry-failed").returncode == 0
    assert {r.status for r in Store(tmp_path / "results").records()} == {"done"}


@pytest.mark.slow
def test_several_processes_on_one_directory_do_each_run_once(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    # One process stays in the middle of its first run; the others begin no step before it does.
    environment = plant_in_each_step(
        tmp_path,
        "while 'STAYS' in os.environ and step == 3:\n"
        "    Path('at_work').touch()\n"
        "    time.sleep(0.05)\n"
        "while 'STAYS' not in os.environ and not Path('at_work').exists():\n"
        "    time.sleep(0.05)",
    )
    with (tmp_path / "sitecustomize.py").open("a") as code:
        code.write(
            "from momentum_bench.harness.records.store import Store\nwrite = Store.write\n"
            "def noting(store, record):\n"
            "    write(store, record)\n"
            "    with open('written.txt', 'a') as file: file.write(f'{record.spec.run_id}\\n')\n"
            "Store.write = noting\n"
        )
    words = [*map(str, small_sweep(tiny_model, toy_data)), "--output-dir", "shared"]
    command = [sys.executable, str(ROOT / "harness" / "run.py"), *words]
    with ExitStack() as at_end:
        processes = []
        for more in ({"STAYS": "1"}, {}, {}):
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=cli_environment(**environment, **more),
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            at_end.callback(process.kill)
        wait_until((tmp_path / "at_work").exists, *processes)
        processes[0].kill()  # what it held is taken over
        errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes[1:]] == [0, 0], errors
    assert len(records(tmp_path / "shared")) == 8
    written = (tmp_path / "written.txt").read_text().split()
    assert len(written) == len(set(written)) == 8  # none twice, and none by the killed one
    assert command_here("run", *words[:-1], "single").returncode == 0
    assert records(tmp_path / "shared") == records(tmp_path / "single")
    assert table(tmp_path / "shared" / "leaderboard.csv") == table(tmp_path / "single" / "leaderboard.csv")


@pytest.mark.slow
def test_torchrun_shares_out_the_runs(command_here, tiny_model: Path, toy_data: Path, tmp_path: Path):
    """With workers of its own in each rank."""
    words = small_sweep(tiny_model, toy_data)
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", 2, ROOT / "harness" / "run.py"]
    more = ("--output-dir", "shared", "--runs-at-a-time", 2)
    shared = launch(*launcher, *words, *more, cwd=tmp_path, ACCELERATE_USE_CPU="true")
    assert shared.returncode == 0, shared.stderr
    assert shared.stderr.count("2 process(es) on cpu, 2 worker(s)") == 2
    assert command_here("run", *words, "--output-dir", "single").returncode == 0
    assert records(tmp_path / "shared") == records(tmp_path / "single")
    assert table(tmp_path / "shared" / "leaderboard.csv") == table(tmp_path / "single" / "leaderboard.csv")


@pytest.mark.slow
def test_accelerate_launch_works_and_its_contradictions_are_found(
    tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = small_sweep(tiny_model, toy_data, "--seeds", 13, "--learning-rates", "0.1", "--max-steps", 2)
    launcher = ["accelerate.commands.launch", "--cpu"]
    done = launch(*launcher, ROOT / "harness" / "run.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wrong = launch(*launcher, "--mixed_precision", "bf16", ROOT / "harness" / "run.py", *words, cwd=tmp_path)
    assert wrong.returncode != 0
    assert "mixed_precision=bf16, but this sweep has --precision fp32" in wrong.stderr


@needs_quickstart
def test_the_quick_start_in_small(command_here, tmp_path: Path):
    words = [
        "--seeds",
        13,
        "--learning-rates",
        0.3,
        "--max-steps",
        3,
        "--k",
        4,
        "--test-limit",
        20,
        "--runs-at-a-time",
        1,
    ]
    done = command_here("run", *words)
    assert done.returncode == 0, done.stderr
    for row in table(tmp_path / "results" / "leaderboard.csv"):
        assert (row["task"], row["model"], row["method"]) == ("bbc_news", MINILM, "head")


PAPER = "sst2,sst5,trec,snli,mnli,rte"


@pytest.mark.slow
@needs_quickstart
def test_the_tasks_of_the_paper_by_head(command_here, data_dir: Path, tmp_path: Path):
    words = ["--task", PAPER, "--data-dir", data_dir, "--model", MINILM, "--method", "head", "--k", 4]
    words += [
        "--seeds",
        13,
        "--learning-rates",
        0.1,
        "--max-steps",
        1,
        "--test-limit",
        10,
        "--runs-at-a-time",
        1,
    ]
    done = command_here("run", *words)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "results" / "leaderboard.csv")
    assert sorted({row["task"] for row in rows}) == sorted(PAPER.split(","))


@pytest.mark.slow
def test_the_tasks_of_the_paper_by_prompt(command_here, data_dir: Path, splade_tiny: Path, tmp_path: Path):
    """And, on TREC, that the whole chain trains: chance is 0.17 there. No claim about momentum."""
    words = ["--task", PAPER, "--data-dir", data_dir, "--model", splade_tiny, "--method", "prompt"]
    words += ["--runs-at-a-time", 1]
    short = ["--seeds", 13, "--learning-rates", 0.01, "--max-steps", 2, "--test-limit", 10, "--k", 4]
    done = command_here("run", *words, *short)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "results" / "leaderboard.csv")
    assert len(rows) == 12
    assert {row["model"] for row in rows} == {"local:splade-tiny"}
    words[1] = "trec"
    longer = ["--seeds", 13, "--learning-rates", 0.3, "--max-steps", 60, "--k", 32]
    assert command_here("run", *words, *longer, "--output-dir", "learned").returncode == 0
    for row in table(tmp_path / "learned" / "leaderboard.csv"):
        assert float(row["test_mean"]) > 0.35


def test_the_console_script_is_the_same_command():
    script = shutil.which("momentum-bench", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("not installed")
    done = subprocess.run([script, "run", "--help"], capture_output=True, text=True, check=True)
    assert "--learning-rates" in done.stdout


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("--lr", "--learning-rates"),
        ("--model_name_or_path=x", "--model"),
        ("--mixed_precision", "--precision"),
        ("--seed", "--seeds"),
        ("--output_path", "--output-dir"),
    ],
)
def test_the_names_of_other_programs_are_explained(typed: str, ours: str, tmp_path: Path):
    done = run_command("run", "--task", "sst2", typed, "1")
    assert done.returncode == 2
    assert f"here it is {ours} (" in done.stderr
    file = tmp_path / "sweep.toml"
    name = typed.removeprefix("--").partition("=")[0]
    file.write_text(f"{name} = 1\n")
    done = run_command("run", "--sweep", file)
    assert done.returncode == 2
    assert f"unknown name '{name}'. Did you mean {ours.removeprefix('--').replace('-', '_')}?" in done.stderr
