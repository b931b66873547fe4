"""Tune, confirm, and stop when it is decided: through the real command line."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.files import read_record, write_record
from momentum_bench.leaderboards.checking.check import departures
from tests.conftest import ROOT, cli_environment, sentiment_rows, write_rows
from tests.helpers.command_line import run_command
from tests.helpers.processes import plant_in_each_step
from tests.helpers.sweeps import launch, records, small_sweep, table

TABLES = ("leaderboard.csv", "comparison.csv", "pooled.csv")


def confirming(tiny_model: Path, toy_data: Path, *more: object) -> list[str]:
    """A small sweep that tunes on two seeds."""
    words = small_sweep(tiny_model, toy_data)
    place = words.index("--seeds")
    words[place : place + 2] = ["--tune-seeds", "13,21"]
    return [*map(str, words), *map(str, more)]


def without(rows: list[dict[str, str]], *names: str) -> str:
    """The text of a table without some of its columns."""
    text = io.StringIO()
    kept = [name for name in rows[0] if name not in names]
    writer = csv.DictWriter(text, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The tables, without seconds and bytes of the machine."""
    return {name: table(folder / name) for name in TABLES}


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which `sst2` has 40 train and 24 validation sentences of ours."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "sst2" / "train.jsonl", sentiment_rows(40))
    write_rows(folder / "sst2" / "validation.jsonl", sentiment_rows(64)[40:])
    return folder


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, toy_data: Path) -> Path:
    """A finished sweep with three confirming seeds, and both kinds of rates."""
    folder = tmp_path_factory.mktemp("fixed") / "out"
    words = confirming(tiny_model, toy_data, "--confirm-seeds", 3, "--confirm", "own")
    done = run_command("run", *words, "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def test_confirming_seeds_run_at_the_chosen_rates_alone(fixed: Path):
    rows = table(fixed / "leaderboard.csv")
    tuned = [row for row in rows if row["role"] == "tuned"]
    matched = [row for row in rows if row["role"] == "matched"]
    assert {row["seeds"] for row in tuned} == {"13;21"}
    assert {row["seeds"] for row in matched} == {"1000;1001;1002"}
    assert len({row["grid"] for row in matched}) == 1  # one rate for both
    assert {len(row["grid"].split(";")) for row in tuned} == {2}
    questions = {pair["question"]: pair for pair in table(fixed / "comparison.csv")}
    assert set(questions) == {"tuned", "matched", "own"}
    assert questions["matched"]["n_pairs"] == "3"
    assert questions["matched"]["first_learning_rate"] == questions["matched"]["second_learning_rate"]
    assert (questions["tuned"]["verdict"], questions["tuned"]["n_pairs"]) == ("", "2")
    said = " ".join((fixed / "stdout.txt").read_text().split())
    assert "Do SGD and SGDM differ at one effective learning rate" in said
    assert "SGDM minus SGD" in said


def test_the_design_is_written_before_the_first_run_and_is_part_of_the_results(fixed: Path):
    [path] = (fixed / "designs").iterdir()
    design = read_record(path, Design)
    assert design is not None
    assert path.stem == design.design_id
    assert (design.tune_seeds, design.confirm_seeds) == ((13, 21), (1000, 1001, 1002))
    assert (design.looks, design.margin, design.confirm) == ((3,), 0.01, "own")
    first = min((fixed / "runs").glob("*/record.json"), key=lambda record: record.stat().st_mtime_ns)
    assert path.stat().st_mtime_ns < first.stat().st_mtime_ns
    assert departures(fixed) == []


def test_the_workers_of_the_tuning_runs_do_the_confirming_runs(
    tiny_model: Path, toy_data: Path, fixed: Path, tmp_path: Path
):
    """A worker has its libraries, the model and the data already. What it computes is the same."""
    note = f"Path({str(tmp_path)!r}, f'{{os.getpid()}}-{{seed}}').touch()"
    environment = plant_in_each_step(tmp_path, note)
    words = confirming(tiny_model, toy_data, "--confirm-seeds", 3, "--confirm", "own")
    words += ["--runs-at-a-time", "2", "--output-dir", str(tmp_path / "out")]
    done = launch("momentum_bench", "run", *words, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    seen = [path.name.split("-") for path in tmp_path.glob("*-*")]
    assert len({process for process, _ in seen}) == 2
    assert {seed for _, seed in seen} == {"13", "21", "1000", "1001", "1002"}
    assert records(tmp_path / "out") == records(fixed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("margin", 0.05),
        ("tune_seeds", [13]),
        ("confirm_seeds", [1000, 1001]),
        ("looks", [2, 3]),
        ("confirm", "matched"),
    ],
)
def test_a_changed_design_is_found(fixed: Path, tmp_path: Path, field: str, value: object):
    """Whether its name is left as it was, or changed with it."""
    mine = tmp_path / "mine"
    subprocess.run(["cp", "-r", fixed, mine], check=True)
    [path] = (mine / "designs").iterdir()
    design = read_record(path, Design)
    assert design is not None
    changed = design.model_copy(update={field: tuple(value) if isinstance(value, list) else value})
    text = path.read_text()
    path.write_text(text.replace(json.dumps(design.model_dump(mode="json")[field]), json.dumps(value)))
    assert any("design" in line for line in departures(mine))
    path.unlink()
    write_record(mine / "designs" / f"{changed.design_id}.json", changed)
    assert departures(mine)


def test_a_tuning_seed_that_somebody_took_away_is_found(fixed: Path, tmp_path: Path):
    """The tables are built again without it, so that only the design speaks of it."""
    mine = tmp_path / "mine"
    subprocess.run(["cp", "-r", fixed, mine], check=True)
    for path in (mine / "runs").glob("*/record.json"):
        if json.loads(path.read_text())["spec"]["seed"] == 21:
            shutil.rmtree(path.parent)
    run_command("leaderboard", "build", mine, "--out", mine, "--quiet")
    done = run_command("leaderboard", "check", mine)
    assert done.returncode == 1
    assert "of its tuning runs are not there" in done.stdout
    assert "runs that come after them are" in done.stdout


def test_tables_of_a_design_cannot_pass_as_tables_of_an_earlier_form(fixed: Path, tmp_path: Path):
    mine = tmp_path / "mine"
    subprocess.run(["cp", "-r", fixed, mine], check=True)
    path = mine / "comparison.csv"
    rows = table(path)
    path.write_text(without(rows, "question"))
    assert "comparison.csv: column question is missing" in departures(mine)
    path.write_text(without(rows, "level_difference", "level_equivalence"))
    done = run_command("leaderboard", "check", mine)
    assert done.returncode == 0, done.stdout
    assert "note: of an earlier form: comparison.csv; not checked there: level_difference" in done.stderr


def test_what_is_built_elsewhere_carries_its_design(fixed: Path, tmp_path: Path):
    done = run_command("leaderboard", "build", fixed, "--out", tmp_path / "board", "--archive")
    assert done.returncode == 0, done.stderr
    assert departures(tmp_path / "board") == []
    again = run_command("leaderboard", "build", tmp_path / "board", "--json")
    assert [row["role"] for row in json.loads(again.stdout)["rows"]] == [
        row["role"] for row in table(fixed / "leaderboard.csv")
    ]


def test_another_margin_is_named_in_every_comparison(fixed: Path):
    plain = " ".join(run_command("leaderboard", "build", fixed).stdout.split())
    other = " ".join(run_command("leaderboard", "build", fixed, "--margin", "0.5").stdout.split())
    assert "the design's margin was" not in plain
    assert other.count("the design's margin was 1 point") == 3


def test_status_says_what_was_chosen_and_decided(fixed: Path):
    done = run_command("status", fixed, COLUMNS="80")
    text = " ".join(done.stdout.split())
    assert "sst2: dev of the tuning seeds chose the effective rate 0." in text
    assert "sst2: sgdm and sgd at the matched rate, look at 3 seeds" in text
    (lines,) = json.loads(run_command("status", fixed, "--json").stdout)["designs"].values()
    assert all(line in text for line in lines)
    assert len(lines) == 3


def test_typing_it_again_runs_nothing(fixed: Path, tiny_model: Path, toy_data: Path):
    before = tables(fixed)
    words = confirming(tiny_model, toy_data, "--confirm-seeds", 3, "--confirm", "own")
    again = run_command("run", *words, "--output-dir", fixed)
    assert again.returncode == 0, again.stderr
    assert "[1/" not in again.stderr
    assert tables(fixed) == before


def test_a_dry_run_says_what_follows(tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = confirming(tiny_model, toy_data, "--until-decided", "--output-dir", tmp_path / "out", "--dry-run")
    done = run_command("run", *words)
    assert done.returncode == 0, done.stderr
    assert "up to 40 confirming seeds, with looks at 5, 10, 20 and 40" in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_seeds", [2, 15, 40])
def test_a_dry_run_is_readable_at_80_columns(tiny_model: Path, toy_data: Path, tmp_path: Path, n_seeds: int):
    words = small_sweep(tiny_model, toy_data)
    place = words.index("--seeds")
    words[place + 1] = ",".join(map(str, range(n_seeds)))
    done = run_command("run", *words, "--output-dir", tmp_path, "--dry-run", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    for word in ("sgd", "sgdm", "0.01", "0.1", "missing"):
        assert word in done.stdout


def test_a_dry_run_tells_arms_of_one_optimizer_apart(tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = [*small_sweep(tiny_model, toy_data), "--optimizers", "sgd,sgdm:momentum=0.5,sgdm:momentum=0.9"]
    done = run_command("run", *words, "--output-dir", tmp_path, "--dry-run", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "= 12 runs" in " ".join(done.stderr.split())
    assert done.stdout.count("missing") == 12
    table, _, budgets = done.stdout.partition("Search on")
    assert table.count("sgdm momentum=0.5 ") == table.count("sgdm momentum=0.9 ") == 2
    assert budgets.count("sgdm momentum=0.5") == budgets.count("sgdm momentum=0.9") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--looks", "5,10", "--confirm-seeds", "10"], "--looks 5,10 is for --until-decided"),
        (["--tune-seeds", "13"], "is for confirming seeds"),
        (["--until-decided", "--looks", "10,5"], "ascending"),
        (["--until-decided", "--optimizers", "sgd"], "give two or more"),
        (["--until-decided", "--optimizers", "adamw,signsgd"], "--confirm own"),
        (["--confirm-seeds", "2"], "--confirm-seeds"),
        (["--margin", "0"], "--margin"),
        (["--until-decided", "--max-steps", "0"], "without training"),
    ],
)
def test_a_design_that_makes_no_sense_is_refused(
    words: list[str], message: str, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    given = small_sweep(tiny_model, toy_data)
    done = run_command("run", *given, *words, "--output-dir", tmp_path / "out")
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def sequential(tiny_model: Path, toy_data: Path) -> list[str]:
    return confirming(tiny_model, toy_data, "--until-decided", "--looks", "3,5,8", "--max-steps", 30)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, toy_data: Path) -> Path:
    """A finished sweep that ran until it was decided or at its last look."""
    folder = tmp_path_factory.mktemp("sequential") / "out"
    done = run_command("run", *sequential(tiny_model, toy_data), "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_sweep_ends_at_a_look(undisturbed: Path):
    pairs = {pair["question"]: pair for pair in table(undisturbed / "comparison.csv")}
    matched = pairs["matched"]
    assert matched["looks"] == "3;5;8"
    assert matched["look"] in ("3", "5", "8")
    assert matched["seeds"].split(";") == [str(1000 + n) for n in range(int(matched["look"]))]
    assert matched["verdict"] != "inconclusive" or matched["look"] == "8"
    assert departures(undisturbed) == []


@pytest.mark.slow
def test_killed_three_times_it_gives_the_same_tables(
    undisturbed: Path, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    out = tmp_path / "out"
    words = [*sequential(tiny_model, toy_data), "--output-dir", str(out), "--runs-at-a-time", "1"]
    command = [sys.executable, str(ROOT / "harness" / "run.py"), *words]
    n_runs = len(records(undisturbed))
    for kill_at in (2, 10, n_runs - 1):
        process = subprocess.Popen(command, env=cli_environment(), stderr=subprocess.DEVNULL)
        while len(list(out.glob("runs/*/record.json"))) < kill_at:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = run_command("run", *words)
    assert done.returncode == 0, done.stderr
    assert tables(out) == tables(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["workers", "ranks"])
def test_other_executors_look_at_the_same_looks(
    how: str, undisturbed: Path, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = [*sequential(tiny_model, toy_data), "--output-dir", str(tmp_path / "out")]
    if how == "workers":
        done = run_command("run", *words, "--runs-at-a-time", 2)
    else:
        launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", 2)
        program = ROOT / "harness" / "run.py"
        done = launch(*launcher, program, *words, cwd=tmp_path, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr
    assert tables(tmp_path / "out") == tables(undisturbed)
    assert records(tmp_path / "out") == records(undisturbed)
