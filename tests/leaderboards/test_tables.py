"""The tables of a leaderboard: their columns, without rows too, and against what was published earlier."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest

from momentum_bench.harness.reporting import csv_text
from momentum_bench.leaderboards.archive import ARCHIVE, pack, store_of
from momentum_bench.leaderboards.build import board_of
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.rendering.files import write
from momentum_bench.leaderboards.tables import COLUMNS, csv_tables, tables_of
from tests.helpers.published import PUBLISHED, published_board
from tests.helpers.specs import make_record
from tests.helpers.submissions import specs, submission, whole_record

LATER = ("tuning_budget", "sensitivity", "matched_differences", "regret")
"""Tables that leaderboards did not have at first."""


@pytest.mark.parametrize("name", COLUMNS)
def test_every_row_has_the_columns_of_its_table(name: str):
    lines = tables_of(published_board("six-tasks-minilm-head"))[name]
    assert lines
    for line in lines:
        assert tuple(line) == COLUMNS[name]


def test_a_table_without_rows_keeps_its_header():
    one_arm_at_one_rate = board_of([make_record(seed=seed) for seed in (13, 21)])
    files = csv_tables(one_arm_at_one_rate)
    empty = {"comparison", "pooled", "over_tasks", *LATER}
    for name, columns in COLUMNS.items():
        table = pd.read_csv(io.StringIO(files[f"{name}.csv"]))
        assert tuple(table.columns) == columns
        assert table.empty == (name in empty), name
    nothing = csv_tables(board_of([]))
    assert nothing.keys() == {f"{name}.csv" for name in COLUMNS}
    assert all(text.count("\n") == 1 for text in nothing.values())


def test_a_row_with_other_columns_than_its_table_is_a_fault_of_this_code():
    with pytest.raises(ValueError, match=r"columns \['b', 'a'\], its table has \['a', 'b'\]"):
        csv_text([{"b": 1, "a": 2}], ("a", "b"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return submission(tmp_path / "mine", [whole_record(spec) for spec in specs()])


def test_what_was_published_without_later_tables_and_without_headers_passes(mine: Path):
    assert departures(mine) == []
    for name in LATER:
        (mine / f"{name}.csv").unlink()
    assert (mine / "pooled.csv").read_text().count("\n") == 1
    (mine / "pooled.csv").write_text("")
    assert departures(mine) == []
    (mine / "comparison.csv").write_text("")  # it has rows, so it must not be empty
    assert any(line.startswith("comparison.csv") for line in departures(mine))


@pytest.mark.parametrize("name", LATER)
def test_a_changed_cell_of_a_later_table_is_found(mine: Path, name: str):
    path = mine / f"{name}.csv"
    header, first, *others = path.read_text().splitlines()
    cells = first.split(",")
    column = next(c for c in ("mean_difference", "decades", "second_costs_more") if c in COLUMNS[name])
    cells[COLUMNS[name].index(column)] = "0.5"
    path.write_text("\n".join([header, ",".join(cells), *others, ""]))
    [found] = departures(mine)
    assert found.startswith(f"{name}.csv, row 1")
    assert f"column {column}: '0.5'" in found
    path.write_text(header + "\n")
    assert all("is missing" in line for line in departures(mine))


def test_a_published_folder_passes_as_it_is_and_with_the_tables_of_this_version(tmp_path: Path):
    folder = shutil.copytree(PUBLISHED / "digits-batch-size", tmp_path / "digits")
    assert departures(folder) == []
    for name, text in csv_tables(published_board("digits-batch-size")).items():
        (folder / name).write_text(text)
    assert departures(folder) == []


def test_designs_of_an_earlier_version_stay_as_they_are_when_their_board_is_built_again(tmp_path: Path):
    folder = shutil.copytree(PUBLISHED / "digits-momentum", tmp_path / "digits")
    before = {path.name: path.read_bytes() for path in (folder / "designs").iterdir()}
    write(published_board("digits-momentum"), folder, archive=True)
    assert {path.name: path.read_bytes() for path in (folder / "designs").iterdir()} == before
    assert len(before) == 3


def test_an_archive_of_an_earlier_version_stays_as_it_is_when_its_board_is_built_again(tmp_path: Path):
    folder = shutil.copytree(PUBLISHED / "paper-prompt-small", tmp_path / "paper")
    before = (folder / ARCHIVE).read_bytes()
    write(published_board("paper-prompt-small"), folder, archive=True)
    assert (folder / ARCHIVE).read_bytes() == before
    assert pack(store_of(folder).records()) != before  # this version writes fields that it has not
    (folder / ARCHIVE).write_bytes(before[:-40])  # a damaged one is replaced
    write(published_board("paper-prompt-small"), folder, archive=True)
    assert store_of(folder).records() == store_of(PUBLISHED / "paper-prompt-small").records()
