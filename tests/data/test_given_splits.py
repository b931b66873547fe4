"""Splits that others have drawn: `--splits given`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from momentum_bench.harness.data.examples import Example
from momentum_bench.harness.data.export import jsonl_texts, lmbff_texts, write_texts
from momentum_bench.harness.data.lmbff import LAYOUTS
from momentum_bench.harness.data.load import load_task_data
from momentum_bench.harness.data.splits import draw_split
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.inputs import Reading
from momentum_bench.tasks import get_task, task_names
from tests.conftest import sentiment_rows, write_rows
from tests.helpers.command_line import run_command
from tests.helpers.lmbff import write_all
from tests.helpers.sweeps import records, small_sweep, table

GIVEN = Reading(given_k=4)


def rows_of(task: str, folder: Path, seed: int, reading: Reading) -> dict[str, list]:
    data = load_task_data(get_task(task), folder, reading=reading)
    few = draw_split(data, 4, seed, "lm-bff")
    return {
        "train": [data.train[i] for i in few.train],
        "dev": [data.train[i] for i in few.dev],
        "test": data.test,
    }


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("lm-bff"))


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name in task_names()])
def test_files_of_lmbffs_script_are_the_split_that_we_draw(name: str, made_up: Path, tmp_path: Path):
    write_texts(tmp_path, lmbff_texts(get_task(name), made_up, 4, (13, 87), None))
    for seed in (13, 87):
        drawn = rows_of(name, made_up, seed, Reading())
        if LAYOUTS[name].suffix == "csv":  # pandas, in the script, takes the text `None` for a missing one
            drawn = {part: [_as_pandas_writes(row) for row in rows] for part, rows in drawn.items()}
        assert rows_of(name, tmp_path, seed, GIVEN) == drawn


def _as_pandas_writes(row: Example) -> Example:
    return row._replace(texts=tuple("" if text == "None" else text for text in row.texts))


@pytest.mark.parametrize("name", ["sst2", "stsb", "trec"])
def test_files_of_tasks_split_are_the_split_that_we_draw(name: str, made_up: Path, tmp_path: Path):
    write_texts(tmp_path, jsonl_texts(get_task(name), made_up, 4, (13, 21), "lm-bff", None))
    assert rows_of(name, tmp_path, 21, GIVEN) == rows_of(name, made_up, 21, Reading())


def fewglue(folder: Path) -> Path:
    """One split for all seeds, in files as FewGLUE calls them."""
    rows = [{"premise": f"p {i}", "hypothesis": f"h {i}", "label": str(i % 2)} for i in range(20)]
    for name, part in {"train": rows[:8], "val": rows[8:12], "validation": rows[12:]}.items():
        write_rows(folder / "rte" / f"{name}.jsonl", as_rte(part))
    return folder


def as_rte(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    names = get_task("rte").columns
    return [dict(zip(names, (r["premise"], r["hypothesis"], int(r["label"])), strict=True)) for r in rows]


def test_one_folder_is_the_split_of_all_seeds(tmp_path: Path):
    folder = fewglue(tmp_path)
    assert rows_of("rte", folder, 13, GIVEN) == rows_of("rte", folder, 1000, GIVEN)
    found = rows_of("rte", folder, 13, GIVEN)
    assert [len(found[part]) for part in ("train", "dev", "test")] == [8, 4, 8]


def test_another_division_is_other_data(tmp_path: Path):
    data = load_task_data(get_task("rte"), fewglue(tmp_path), reading=GIVEN)
    assert data.origin == "folder, given splits"
    path = tmp_path / "rte" / "train.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join(others))
    dev = tmp_path / "rte" / "val.jsonl"
    dev.write_text(first + dev.read_text())
    again = load_task_data(get_task("rte"), tmp_path, reading=GIVEN)
    assert again.fingerprint != data.fingerprint


def load_and_draw(task: str, folder: Path, k: int, seed: int) -> None:
    draw_split(load_task_data(get_task(task), folder, reading=Reading(given_k=k)), k, seed, "mezo")


def refused(task: str, folder: Path, k: int = 4, seed: int = 13) -> str:
    with pytest.raises(UserError) as error:
        load_and_draw(task, folder, k, seed)
    return str(error.value)


def test_what_is_missing_or_there_twice_is_named(tmp_path: Path):
    assert "no folder rte/ or RTE/ in" in refused("rte", tmp_path)
    folder = fewglue(tmp_path)
    assert "--k 16: the given training rows of rte have 4 rows of a class: type --k 4" in refused(
        "rte", folder, k=16
    )
    (folder / "rte" / "dev.jsonl").write_text((folder / "rte" / "val.jsonl").read_text())
    assert "has several dev files, keep one: ['dev.jsonl', 'val.jsonl']" in refused("rte", folder)
    for name in ("dev", "val"):
        (folder / "rte" / f"{name}.jsonl").unlink()
    assert "has no dev file: --splits given reads train, dev and test files" in refused("rte", folder)
    (folder / "RTE").mkdir()
    assert "keep one of them" in refused("rte", folder)


def test_seeds_and_ks_that_are_not_there_are_named(made_up: Path, tmp_path: Path):
    write_texts(tmp_path, lmbff_texts(get_task("rte"), made_up, 4, (13, 87), None))
    assert "no given split for seed 21: the folders are for --seeds 13,87" in refused(
        "rte", tmp_path, seed=21
    )
    assert "has no folder 16-SEED: its splits are for k = 4" in refused("rte", tmp_path, k=16)


def test_seeds_with_other_test_rows_are_refused(made_up: Path, tmp_path: Path):
    write_texts(tmp_path, jsonl_texts(get_task("sst2"), made_up, 4, (13, 21), "lm-bff", None))
    path = tmp_path / "sst2" / "4-21" / "test.jsonl"
    path.write_text(path.read_text().replace("plain", "other", 1))
    assert "differ: all seeds are scored on the same rows" in refused("sst2", tmp_path)
    for seed in (13, 21):
        (tmp_path / "sst2" / f"4-{seed}" / "test.jsonl").rename(tmp_path / "sst2" / "test.jsonl")
    assert rows_of("sst2", tmp_path, 21, GIVEN)["test"]


def test_dev_rows_that_are_training_rows_and_one_class_alone_are_refused(tmp_path: Path):
    folder = fewglue(tmp_path)
    train, dev = folder / "rte" / "train.jsonl", folder / "rte" / "val.jsonl"
    whole = dev.read_text()
    dev.write_text("".join(train.read_text().splitlines(keepends=True)[:4]))
    assert "4 of 4 dev rows are training rows too" in refused("rte", folder)
    dev.write_text("".join(whole.splitlines(keepends=True)[::2]))
    assert "the given dev rows of rte are of one class" in refused("rte", folder)
    train.write_text("".join(train.read_text().splitlines(keepends=True)[::2]))
    assert "have no row of" in refused("rte", folder)


@pytest.mark.slow
def test_a_sweep_on_given_splits_is_the_sweep_on_drawn_ones(tiny_model: Path, toy_data: Path, tmp_path: Path):
    drawn = run_command("run", *small_sweep(tiny_model, toy_data), "--output-dir", tmp_path / "drawn")
    assert drawn.returncode == 0, drawn.stderr
    split = (
        "tasks",
        "split",
        "sst2",
        "--k",
        4,
        "--seeds",
        "13,21",
        "--format",
        "jsonl",
        "--protocol",
        "mezo",
    )
    assert run_command(*split, "--data-dir", toy_data, "--out", tmp_path / "files").returncode == 0
    words = small_sweep(tiny_model, tmp_path / "files", "--splits", "given")
    given = run_command("run", *words, "--output-dir", tmp_path / "given")
    assert given.returncode == 0, given.stderr
    assert "splits=given" in " ".join(given.stdout.split())
    mine, theirs = records(tmp_path / "given"), records(tmp_path / "drawn")
    assert not set(mine) & set(theirs)  # other runs, because others have drawn
    for ours, other in zip(_sorted(mine), _sorted(theirs), strict=True):
        assert ours["split"].pop("origin") == "folder, given splits"
        assert other["split"].pop("origin") == "folder"
        assert ours == other
    scores = [
        [row["test_mean"] for row in table(tmp_path / name / "leaderboard.csv")]
        for name in ("given", "drawn")
    ]
    assert scores[0] == scores[1]
    assert run_command("leaderboard", "check", tmp_path / "given").returncode == 0

    row_id = table(tmp_path / "given" / "leaderboard.csv")[0]["row_id"]
    shown = run_command("reproduce", row_id[:8], tmp_path / "given")
    assert 'splits = "given"' in shown.stdout, shown.stderr
    words = ("--run", tmp_path / "again", "--data-dir", tmp_path / "files", "--model", tiny_model)
    again = run_command("reproduce", row_id[:8], tmp_path / "given", *words)
    assert again.returncode == 0, again.stdout + again.stderr

    words = words_of_design(tiny_model, tmp_path / "files")
    confirmed = run_command("run", *words, "--output-dir", tmp_path / "more")
    assert confirmed.returncode == 2
    assert "no given split for seed 1000" in " ".join(confirmed.stderr.split())
    assert not (tmp_path / "more").exists()


def words_of_design(model: Path, data_dir: Path) -> list[object]:
    words = small_sweep(model, data_dir, "--splits", "given", "--confirm-seeds", 3)
    words[words.index("--seeds")] = "--tune-seeds"
    return words


def _sorted(found: dict[str, dict]) -> list[dict]:
    return sorted(
        found.values(), key=lambda record: json.dumps(record["evaluations"]) + record["parameters_hash"]
    )


def test_tasks_check_takes_given_splits_and_other_words_are_refused(tiny_model: Path, tmp_path: Path):
    rows = sentiment_rows(40)
    for name, part in {"train": rows[:8], "dev": rows[8:16], "test": rows[16:]}.items():
        write_rows(tmp_path / "sst2" / "4-21" / f"{name}.jsonl", part)
    words = ("--data-dir", tmp_path, "--model", tiny_model, "--k", 4, "--splits", "given")
    checked = run_command("tasks", "check", "sst2", *words)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "16 train and dev rows of all given splits" in " ".join(checked.stdout.split())
    for wrong, message in {
        ("--task", "sst2", "--splits", "given"): "--splits given is about files of a folder: add --data-dir",
        ("--task", "sst2", "--splits", "drawn", "--data-dir", tmp_path): "given",
        ("--task", "digits", "--splits", "given", "--data-dir", tmp_path): "is for tasks of text",
    }.items():
        done = run_command("run", *wrong, "--output-dir", tmp_path / "out")
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split()), done.stderr
