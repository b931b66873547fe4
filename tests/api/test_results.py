"""Results and leaderboards in Python: what the tables hold, and their types."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

import momentum_bench as mb
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.reporting import csv_text
from momentum_bench.leaderboards.archive import ARCHIVE, pack
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.rendering.files import contents
from tests.helpers.command_line import run_command
from tests.helpers.synthetic import Scores, fill, make_record, make_spec, sweep_records

SEEDS = (13, 21, 42)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A finished grid of two arms, in which one run diverged and one failed."""
    return grid(tmp_path / "grid")


def grid(folder: Path, task: str = "sst2") -> Path:
    """A results directory that holds a grid of one task."""
    return fill(folder, sweep_records(_scores, seeds=SEEDS, task=task)).output_dir


def _scores(spec: RunSpec) -> Scores:
    status = {(13, 0.1): "diverged", (21, 0.1): "failed"}.get((spec.seed, spec.learning_rate), "done")
    test = 0.8 + (spec.optimizer == "sgdm") * 0.002 + spec.seed / 1e5 * (spec.optimizer == "sgd")
    return Scores(dev_metric=0.7 + spec.learning_rate, test_metric=test, status=status)


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def as_text(table: pd.DataFrame) -> list[dict[str, str]]:
    """A data frame's cells as a CSV of ours writes them."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return read(csv_text(({str(k): v for k, v in row.items()} for row in rows), list(table.columns)))


def test_results_are_the_records_of_a_directory(directory: Path):
    results = mb.load_results(directory)
    assert results.records == Store(directory).records()
    assert results.directory == directory
    assert [r.spec.seed for r in results.failed] == [21, 21]
    assert "(14 done, 2 diverged, 2 failed)" in repr(results)


def test_an_archive_gives_the_same_results(directory: Path, tmp_path: Path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / ARCHIVE).write_bytes(pack(Store(directory).records()))
    of_folder, of_file = mb.load_results(folder), mb.load_results(str(folder / ARCHIVE))
    assert of_folder.records == of_file.records == mb.load_results(directory).records
    assert of_file.directory == folder
    frames = [mb.leaderboard(source).to_pandas() for source in (directory, folder, of_file)]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


def test_what_holds_no_results_is_refused(tmp_path: Path):
    for call in (mb.load_results, mb.leaderboard):
        with pytest.raises(mb.UserError, match="holds no momentum-bench results"):
            call(tmp_path)
        with pytest.raises(mb.UserError, match="holds no momentum-bench results"):
            call(tmp_path / "not there")
    (tmp_path / "text.xz").write_text("no archive")
    with pytest.raises(mb.UserError, match="cannot be read"):
        mb.load_results(tmp_path / "text.xz")
    with pytest.raises(mb.UserError, match="no results are given"):
        mb.leaderboard()
    with pytest.raises(mb.UserError, match=r"found a list; of several, mb\.leaderboard\(\*DIRECTORIES\)"):
        mb.leaderboard([tmp_path])  # type: ignore[arg-type]
    Store(tmp_path / "empty").open()
    with pytest.raises(mb.UserError, match=r"no finished run in .*empty"):
        mb.leaderboard(tmp_path / "empty")


@pytest.mark.parametrize("margin", [0, 1, -0.1, float("nan")])
def test_a_margin_out_of_range_is_refused(directory: Path, margin: float):
    with pytest.raises(mb.UserError, match=r"margin .*: expected a fraction"):
        mb.leaderboard(directory, margin=margin)
    with pytest.raises(mb.UserError, match=r"margin .*: expected a fraction"):
        mb.load_results(directory).leaderboard(margin=margin)


def test_a_run_is_a_row_with_the_columns_of_the_trials(directory: Path):
    table = mb.load_results(directory).to_pandas()
    trials = pd.read_parquet(io.BytesIO(_bytes(contents(build(Store(directory)))["trials.parquet"])))
    assert set(table.columns) <= set(trials.columns)
    assert set(table.columns) >= {*make_spec().model_dump(), "run_id", "status", "dev_metric", "test_metric"}
    trials = trials.set_index("run_id").loc[table["run_id"]].reset_index()
    for name in table.columns.drop("hyperparameters"):
        pairs = zip(table[name], trials[name], strict=True)
        assert all(pd.isna(b) if pd.isna(a) else a == b for a, b in pairs), name
    assert table["hyperparameters"].tolist()[0] in ({}, {"momentum": 0.9})


def _bytes(content: str | bytes) -> bytes:
    assert isinstance(content, bytes)
    return content


def test_types_do_not_depend_on_the_values(directory: Path, tmp_path: Path):
    other = Store(tmp_path / "failed")
    other.open()
    other.write(make_record(make_spec(test_limit=None, max_grad_norm=None), Scores(status="failed")))
    usual, failed = (mb.load_results(folder).to_pandas() for folder in (directory, other.output_dir))
    changing = {name for name in usual if usual[name].isna().all() != failed[name].isna().all()}
    assert changing >= {"test_metric", "best_step", "test_limit", "peak_memory_bytes"}
    assert usual.dtypes.to_dict() == failed.dtypes.to_dict()
    rows, failed_rows = (mb.leaderboard(folder).to_pandas() for folder in (directory, other.output_dir))
    assert rows.dtypes.to_dict() == failed_rows.dtypes.to_dict()
    kinds = {"test_mean": "float64", "n_seeds": "int64", "optimizer_state_bytes": "Int64", "seeds": "str"}
    assert {name: str(rows[name].dtype) for name in kinds} == kinds


def test_the_tables_are_those_of_the_csvs(directory: Path):
    board, files = mb.leaderboard(directory), contents(build(Store(directory)))
    assert as_text(board.to_pandas()) == read(str(files["leaderboard.csv"]))
    assert as_text(board.comparisons_to_pandas()) == read(str(files["comparison.csv"]))
    tables = board.tables()
    assert len(tables) == 8
    for name, table in tables.items():
        assert as_text(table) == read(str(files[f"{name}.csv"])), name
        assert list(table.columns) == str(files[f"{name}.csv"]).splitlines()[0].split(","), name
    assert board.pooled_to_pandas().empty
    assert "mean_difference" in board.pooled_to_pandas()
    assert len(board.rows) == 2
    assert len(board.comparisons) == 1


def test_the_margin_is_used(directory: Path):
    assert mb.leaderboard(directory).comparisons[0].verdict == "equivalent"
    assert mb.leaderboard(directory, margin=0.001).comparisons[0].verdict != "equivalent"
    assert mb.load_results(directory).leaderboard(margin=0.001).margin == 0.001


def test_save_writes_what_the_command_line_writes(directory: Path, tmp_path: Path):
    mb.leaderboard(directory).save(tmp_path / "python")
    done = run_command("leaderboard", "build", directory, "--out", tmp_path / "cli")
    assert done.returncode == 1  # a run failed
    assert "the leaderboard is not whole: sst2: sgd has no result at rate 0.1 on seed 21" in done.stderr
    written = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "python", tmp_path / "cli")
    ]
    assert written[0] == written[1]
    assert Path("index.html") in written[0]


def test_save_writes_over_nothing_of_others(directory: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(mb.UserError, match="would be overwritten"):
        mb.leaderboard(directory).save(str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"


def test_several_directories_make_one_leaderboard(directory: Path, tmp_path: Path):
    other = grid(tmp_path / "other", "trec")
    board = mb.leaderboard(directory, mb.load_results(other))
    assert board.to_pandas()["task"].tolist() == ["sst2", "sst2", "trec", "trec"]


def test_a_directory_that_is_named_twice_counts_once(directory: Path):
    (directory / "runs" / "0123456789abcdef").mkdir()
    once, twice = mb.leaderboard(directory), mb.leaderboard(directory, mb.load_results(directory))
    assert once.notes == twice.notes
    assert "1 run folder(s) have no whole record and were left out" in once.notes
    pd.testing.assert_frame_equal(once.to_pandas(), twice.to_pandas())


def test_a_notebook_shows_a_table_and_runs_nothing_of_a_record(tmp_path: Path):
    html = mb.leaderboard(grid(tmp_path / "hostile", "<script>alert(1)</script>"))._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 3  # two rows and a sentence
    assert "<table" in html
    assert "SGDM" in html


def test_the_text_is_short(directory: Path, tmp_path: Path):
    text = repr(mb.leaderboard(directory))
    assert text.startswith("Leaderboard: 2 rows, 1 comparison, ")
    assert "sst2, made-up/model, prompt, k = 16: sgdm: accuracy 80.2 % on test, 3 seeds" in text
    for task in ("a", "b", "c", "d", "e", "f", "g"):
        grid(tmp_path / "many", task)
    many = repr(mb.leaderboard(tmp_path / "many"))
    assert len(many.splitlines()) == 14
    assert "more lines" in many.splitlines()[-1]
