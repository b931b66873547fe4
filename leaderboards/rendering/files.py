"""The files of a leaderboard: CSVs, one parquet of all runs, the page and its plots."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.files import (
    check_no_links,
    disk_errors,
    read_record,
    record_text,
    write_atomically,
)
from momentum_bench.harness.records.schema import RunRecord, canonical_json
from momentum_bench.harness.records.store import DESIGNS, Store
from momentum_bench.harness.reporting import png_bytes, svg_text
from momentum_bench.leaderboards.archive import ARCHIVE, ArchivedStore, pack
from momentum_bench.leaderboards.build import Leaderboard, build
from momentum_bench.leaderboards.printable import file_stem
from momentum_bench.leaderboards.rendering.page import page
from momentum_bench.leaderboards.rendering.plots import board_plots
from momentum_bench.leaderboards.rows import Row
from momentum_bench.leaderboards.tables import csv_tables

FIRST_FILES = ("leaderboard.csv", "comparison.csv", "index.html")
"""Files that every leaderboard has and that a person opens first."""

LONGEST_HEADER = 2**16
"""Bytes that are read of a table's first line."""


def write(board: Leaderboard, output_dir: Path, png: bool = False, archive: bool = False) -> None:
    """Write all files of a leaderboard. All are made before the first is written, and each is replaced whole.

    Args:
        output_dir: where the files go; it is made if it is not there.
        png: write each plot as PNG too.
        archive: write all records in one file next to the tables.

    Raises:
        UserError: the directory cannot be written; it holds no leaderboard of ours but files with these
            names; or a link in it leads elsewhere.
    """
    files = contents(board, png, archive)
    check_no_links(output_dir, files)
    try:
        _check_nothing_is_lost(output_dir, files)
        if ARCHIVE in files and _has_the_records(output_dir / ARCHIVE, board):
            del files[ARCHIVE]  # what was published stays as it is, byte for byte
        for design in board.designs:
            name = f"{DESIGNS}/{design.design_id}.json"
            if name in files and read_record(output_dir / name, Design) == design:
                del files[name]
        for name, content in files.items():
            path = output_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{output_dir} cannot be written: {error.strerror or error}") from error


def _has_the_records(archive: Path, board: Leaderboard) -> bool:
    """Whether an archive holds just the runs of a leaderboard, maybe as an earlier version wrote them."""
    if not archive.is_file():
        return False
    try:
        store = ArchivedStore(archive.parent, archive)
    except UserError:  # it is damaged, and is replaced
        return False
    whole = {record.spec.run_id: record for record in store.records()}
    return whole == _runs(board) and len(store.run_folders()) == len(whole)


def _runs(board: Leaderboard) -> dict[str, RunRecord]:
    return {run.spec.run_id: run for row in board.rows for run in row.runs}


def write_board(store: Store) -> None:
    """Write the leaderboard of all finished runs of a results directory into it.

    Raises:
        UserError: the disk is full, read-only or gone; see also `write`.
    """
    # another process may write the same files at the end of its sweep
    with disk_errors(store.output_dir), store.alone():
        store.clear_finished()
        write(build(store), store.output_dir)


def save(board: Leaderboard, folder: Path, png: bool = False, archive: bool = False) -> None:
    """Write a leaderboard into any folder; see `write`.

    Where the folder has no runs, their records are written too, because `leaderboard check` computes the
    tables again from them.
    """
    there = Store(folder)
    # a sweep of that folder may write the same files at its end
    with disk_errors(folder), there.alone() if there.exists else nullcontext():
        write(board, folder, png, archive or not (folder / "runs").is_dir())


def check_folder(folder: Path) -> None:
    """Check before a long sweep that a leaderboard can be written into a folder, which is made.

    Raises:
        UserError: it cannot be written, or it holds no leaderboard of ours but files with these names.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    _check_nothing_is_lost(folder, (*FIRST_FILES, ARCHIVE))


def _check_nothing_is_lost(output_dir: Path, names: Iterable[str]) -> None:
    if Store(output_dir).exists or _holds_leaderboard(output_dir):
        return
    if found := [name for name in names if (output_dir / name).exists()]:
        raise UserError(
            f"{output_dir} holds no leaderboard, and its {found[0]} would be overwritten: nothing was "
            f"written. Choose another directory"
        )


def _holds_leaderboard(output_dir: Path) -> bool:
    """Whether a leaderboard was written here before; the columns of its first table tell."""
    path = output_dir / "leaderboard.csv"
    if not path.is_file():  # it may be a FIFO, which would wait for a writer
        return False
    with path.open("rb") as file:
        return b"row_id" in file.readline(LONGEST_HEADER).rstrip().split(b",")


def contents(board: Leaderboard, png: bool = False, archive: bool = False) -> dict[str, str | bytes]:
    """All files of a leaderboard, by path. Equal records give equal CSVs, plots and page.

    The files are the CSVs of `csv_tables`, `trials.parquet` (one line for each run), `plots/*.svg` and
    `index.html`.

    Args:
        png: each plot is there as `plots/*.png` too.
        archive: all records are there in one file.

    Raises:
        UserError: the records do not fit into an archive.
    """
    plots = board_plots(board, svg_text)
    stems = {name: file_stem(name) for name in plots}
    files: dict[str, str | bytes] = {**csv_tables(board), "trials.parquet": _parquet(board.rows)}
    files |= {f"plots/{stems[name]}.svg": plot for name, plot in plots.items()}
    if png:
        files |= {f"plots/{stems[name]}.png": plot for name, plot in board_plots(board, png_bytes).items()}
    if archive:
        files[ARCHIVE] = pack(_runs(board).values())
        files |= {f"{DESIGNS}/{each.design_id}.json": record_text(each) for each in board.designs}
    return files | {"index.html": page(board, plots, stems)}


def _parquet(rows: Iterable[Row]) -> bytes:
    """All runs of the leaderboard, one line for each, sorted by row, then seed, then learning rate."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = []
    for row in rows:
        chosen = set(row.chosen_ids)
        lines += [_trial(run, row.row_id, chosen) for run in row.runs]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(lines), content)
    return content.getvalue()


def _trial(run: RunRecord, row_id: str, chosen: set[str]) -> dict[str, Any]:
    run_id = run.spec.run_id
    spec = run.spec.model_dump(mode="json")
    spec["hyperparameters"] = canonical_json(spec["hyperparameters"])
    best, test, costs, split, live = run.best, run.test, run.costs, run.split, run.read_back
    return {
        "run_id": run_id,
        "row_id": row_id,
        **spec,
        "status": run.status,
        "failure": run.failure,
        "chosen": run_id in chosen,
        "metric": run.metric,
        "best_step": run.best_step,
        "dev_metric": best.dev_metric if best else None,
        "dev_loss": best.dev_loss if best else None,
        "test_metric": test.metric if test else None,
        "test_loss": test.loss if test else None,
        "clipped_fraction": run.clipped_fraction,
        "parameters_hash": run.parameters_hash,
        "split_hash": split.content_hash if split else None,
        "n_train": split.n_train if split else None,
        "n_dev": split.n_dev if split else None,
        "n_test": split.n_test if split else None,
        "torch_learning_rate": live.torch_learning_rate if live else None,
        "optimizer_state_bytes": live.optimizer_state_bytes if live else None,
        "layout": canonical_json(live.layout) if live else None,
        "device": live.device if live else None,
        "train_seconds": costs.train_seconds if costs else None,
        "dev_seconds": costs.dev_seconds if costs else None,
        "test_seconds": costs.test_seconds if costs else None,
        "peak_memory_bytes": costs.peak_memory_bytes if costs else None,
        "environment": canonical_json(run.environment),
    }
