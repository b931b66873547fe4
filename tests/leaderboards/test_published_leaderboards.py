"""The archive of a leaderboard's records, model cards, and the leaderboards that this project publishes."""

from __future__ import annotations

import io
import lzma
import os
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.arms import parse_arm
from momentum_bench.harness.records.files import record_text
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.reporting import plot_style, svg_text
from momentum_bench.harness.sweeps.confirming import confirming_runs, questions, standing
from momentum_bench.harness.sweeps.grids import hyperparameters, rates
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.sweeps.request import Sweep
from momentum_bench.leaderboards import archive
from momentum_bench.leaderboards.archive import ARCHIVE, ArchivedStore, pack, store_of
from momentum_bench.leaderboards.build import board_of, build
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.printable import file_stem
from momentum_bench.leaderboards.rendering.files import write
from momentum_bench.leaderboards.rendering.model_card import model_index
from momentum_bench.leaderboards.rendering.page import page
from momentum_bench.leaderboards.rendering.plots import STYLE, board_plots, forest
from tests.conftest import ROOT
from tests.helpers.command_line import run_command
from tests.helpers.published import BOARDS, draws_as_published, published_board
from tests.helpers.submissions import specs, whole_record
from tests.helpers.synthetic import Scores, fill, sweep_records

PUBLISHED = sorted((ROOT / "leaderboards" / "published").glob("*/"))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Tables and archive of a small leaderboard, without its runs."""
    board = build(fill(tmp_path / "results", [whole_record(spec) for spec in specs()]))
    write(board, tmp_path / "kept", archive=True)
    return tmp_path / "kept"


def test_an_archive_replaces_the_records(kept: Path, tmp_path: Path):
    results = tmp_path / "results"
    archived, stored = store_of(kept), store_of(results)
    assert isinstance(archived, ArchivedStore)
    assert isinstance(stored, Store)
    assert archived.records() == stored.records()
    assert archived.run_folders() == stored.run_folders()
    files = [results / "runs" / name / "record.json" for name in stored.run_folders()]
    assert list(archive.lines(kept / ARCHIVE)) == [path.read_bytes() for path in files]
    assert departures(kept) == []
    done = CliRunner().invoke(app, ["leaderboard", "check", str(kept)])
    assert done.exit_code == 0
    words = ["leaderboard", "build", str(kept), "--archive", "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(app, words).exit_code == 0
    for path in kept.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(kept)).read_bytes() == path.read_bytes()
    (row, _) = build(Store(results)).rows
    done = CliRunner().invoke(app, ["reproduce", row.row_id, str(kept)])
    assert "the row has task sst2 in version 1a2b3c" in done.stderr  # the made-up version was read


def rewrite(kept: Path, old: bytes, new: bytes) -> None:
    text = lzma.decompress((kept / ARCHIVE).read_bytes())
    assert old in text
    (kept / ARCHIVE).write_bytes(lzma.compress(text.replace(old, new, 1)))


def test_what_build_writes_can_be_checked(kept: Path, tmp_path: Path):
    done = run_command("leaderboard", "build", kept, "--out", tmp_path / "board")
    assert done.returncode == 0, done.stderr
    done = run_command("leaderboard", "check", tmp_path / "board")
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_changed_in_an_archive_is_found(kept: Path):
    whole = (kept / ARCHIVE).read_bytes()
    rewrite(kept, b'"seed": 13', b'"seed": 14')
    assert any("its checksum does not fit" in line for line in departures(kept))
    (kept / ARCHIVE).write_bytes(whole)
    rewrite(kept, b"{", b"[")
    assert any(line.startswith("runs/line-0/record.json: is not a record") for line in departures(kept))
    lines = lzma.decompress(whole).splitlines(keepends=True)
    (kept / ARCHIVE).write_bytes(lzma.compress(b"".join([*lines, lines[0]])))
    assert any("an earlier line of the archive has this run" in line for line in departures(kept))
    (kept / ARCHIVE).write_bytes(lzma.compress(b"".join(lines[:-1])))
    assert any("the records give" in line for line in departures(kept))
    for damaged in (whole[:-20], b"no archive", b""):
        (kept / ARCHIVE).write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            departures(kept)


COMMANDS = [["leaderboard", "check"], ["leaderboard", "build"], ["reproduce", "0"]]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1])
def test_an_archive_of_many_lines_makes_no_folders(
    kept: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*given: object, **more: object) -> None:
        raise AssertionError("a folder is made")

    monkeypatch.setattr(os, "mkdir", refuse)
    (kept / ARCHIVE).write_bytes(lzma.compress(b"\n" * 40_000))
    done = CliRunner().invoke(app, [*command, str(kept)])
    assert done.exit_code in (1, 2)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    (kept / ARCHIVE).write_bytes(lzma.compress(b"\n" * 2**24))
    assert (kept / ARCHIVE).stat().st_size < 3_000
    done = CliRunner().invoke(app, [*command, str(kept)])
    assert done.exit_code == 2
    assert "was not read to its end: it has more than 100,000 records. Nothing was written" in done.stderr


@pytest.mark.parametrize(
    ("name", "bound", "message"),
    [
        ("MOST_LINES", 3, "was not read to its end: it has more than 3 records. Nothing was written"),
        ("LARGEST_LINE", 2**9, "was not read to its end: a record has more than 0.000488281 MiB"),
        ("LARGEST_TOTAL", 2**12, "was not read to its end: all records have more than 0.00390625 MiB"),
        ("MOST_MEMORY", 2**20, "cannot be read: unpacking it takes more than 1 MiB of memory. Nothing was"),
    ],
)
def test_each_bound_of_an_archive_is_named(
    kept: Path, name: str, bound: int, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archive, name, bound)
    for read in (departures, store_of):
        with pytest.raises(UserError, match=message):
            read(kept)


@pytest.mark.parametrize("name", ["MOST_LINES", "LARGEST_LINE", "LARGEST_TOTAL"])
def test_what_could_not_be_read_again_is_not_packed(name: str, monkeypatch: pytest.MonkeyPatch):
    records = [whole_record(spec) for spec in specs()]
    sizes = [len(record_text(record)) for record in records]
    largest = {"MOST_LINES": len(sizes), "LARGEST_LINE": max(sizes), "LARGEST_TOTAL": sum(sizes)}[name]
    monkeypatch.setattr(archive, name, largest)
    pack(records)
    monkeypatch.setattr(archive, name, largest - 1)
    with pytest.raises(UserError, match=r"the records do not fit into an archive: .* Leave out --archive"):
        pack(records)


@given(content=st.lists(st.sampled_from([b"\n", b"\r", b"a", b"\xff\x00", b"long line " * 20])).map(b"".join))
@example(content=b"")
def test_lines_are_those_of_the_text_wherever_a_piece_ends(content: bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "PIECE", 7)
        pieces = archive.unpacked(io.BytesIO(lzma.compress(content)))
        assert list(archive.bounded_lines(Path("file"), pieces)) == list(io.BytesIO(content))


def test_what_follows_the_end_of_an_archive_is_refused(kept: Path):
    whole = (kept / ARCHIVE).read_bytes()
    for more in (b"x", whole):
        (kept / ARCHIVE).write_bytes(whole + more)
        with pytest.raises(UserError, match="cannot be read: something follows its end"):
            departures(kept)


def test_an_archive_that_is_a_link_out_of_the_folder_is_not_followed(kept: Path, tmp_path: Path):
    (kept / ARCHIVE).unlink()
    (tmp_path / "elsewhere").write_bytes(b"not read, so that nobody sees that it is no archive")
    (kept / ARCHIVE).symlink_to(tmp_path / "elsewhere")
    assert departures(kept)[0] == f"{ARCHIVE} is a symbolic link that leads out of the folder"


def test_a_run_that_an_archive_holds_twice_counts_once_and_one_of_another_version_not(kept: Path):
    lines = lzma.decompress((kept / ARCHIVE).read_bytes()).splitlines(keepends=True)
    records = store_of(kept).records()
    (kept / ARCHIVE).write_bytes(lzma.compress(b"".join([*lines, lines[0], b"torn"])))
    assert store_of(kept).records() == records
    notes = build(store_of(kept)).notes
    assert any(note.startswith("2 record(s) cannot be read and do not count") for note in notes)
    spec = records[0].spec.model_copy(update={"protocol_version": 2})
    (kept / ARCHIVE).write_bytes(pack([records[1], records[0].model_copy(update={"spec": spec})]))
    done = CliRunner().invoke(app, ["leaderboard", "build", str(kept)])
    assert done.exit_code == 2
    assert "holds runs of protocol version 2, and this is version 1" in done.stderr


def test_an_archive_does_not_depend_on_the_order_of_records():
    records = [whole_record(spec) for spec in specs()]
    assert pack(records) == pack(reversed(records))


def test_a_model_card_names_what_was_trained_and_how():
    def score(spec: RunSpec) -> Scores:
        return Scores(test_metric=0.75 if spec.optimizer == "sgd" else 0.5)

    diverged = sweep_records(lambda spec: Scores(status="diverged"), task="cr", arms={"sgd": {}})
    records = [*sweep_records(score), *sweep_records(score, task="gone", model="other"), *diverged]
    cards = list(yaml.safe_load_all(model_index(board_of(records))))
    assert [card["model-index"][0]["name"] for card in cards] == ["other", "made-up/model"]
    assert cards[0]["model-index"][0]["results"][0]["dataset"] == {"type": "gone", "name": "gone"}
    (result,) = cards[1]["model-index"][0]["results"]  # a diverged run has no score
    assert result["dataset"]["type"] == "nyu-mll/glue"
    assert result["dataset"]["split"] == "validation"
    sgd, sgdm = result["metrics"]
    assert (sgd["type"], sgd["value"], sgdm["value"]) == ("accuracy", 0.75, 0.5)
    assert sgdm["args"]["hyperparameters"] == "momentum=0.9"
    assert sgd["args"]["n_seeds"] == 5


def test_a_model_card_of_one_seed_has_no_number_that_is_none():
    board = board_of(sweep_records(lambda spec: Scores(test_metric=0.5), seeds=(13,)))
    text = model_index(board)
    assert ".nan" not in text
    ((card,),) = [card["model-index"] for card in yaml.safe_load_all(text)]
    (sgd, _) = card["results"][0]["metrics"]
    assert "test_std" not in sgd["args"]
    assert sgd["name"] == "accuracy, by prompt with sgd, k = 16, one seed"


def cells(sweep: Sweep) -> set[tuple]:
    """The runs of a sweep, as far as they are known without data and model."""
    return {
        (
            *(task, seed, sweep.batch_size, parse_arm(optimizer).name, rate),
            tuple(hyperparameters(sweep, optimizer).items()),
        )
        for task, seed, optimizer in product(sweep.task, sweep.grid_seeds, sweep.optimizers)
        for rate in rates(sweep, task, optimizer)
    }


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_what_this_project_publishes_follows_from_its_records_and_sweeps(folder: Path):
    sweeps = [make_sweep({}, path) for path in sorted(folder.glob("*.toml"))]
    assert sweeps
    if not (folder / "leaderboard.csv").exists():
        pytest.skip("its sweep is not run yet")
    assert not (folder / "runs").exists()  # the archive replaces them
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5_000_000
    store = store_of(folder)
    records = {record.spec.run_id: record for record in store.records()}
    standings = [standing(design, records) for design in store.designs()]
    if not all(now.has_ended for now in standings):
        # the board grows: it is kept so that any machine goes on, and lacks nothing but runs to come
        assert all(": no run of seed " in line for line in departures(folder))
        had_a_look = all(
            now.has_ended or any(found.n_seeds for found in now.replayed.pairs.values()) for now in standings
        )
        assert (f"`{folder.name}`" in (ROOT / "docs" / "findings.md").read_text()) == had_a_look
        return
    assert departures(folder) == []
    specs = [record.spec for record in records.values()]
    planned, confirming = set(), set()
    for design, now in zip(store.designs(), standings, strict=True):
        of_design = {
            spec.run_id
            for task in design.tasks
            for question in questions(design, task, now.tuned[task.task])
            for pair in confirming_runs(design, task, question, len(design.confirm_seeds))
            for spec in pair
        }
        assert bool(of_design & records.keys()) == bool(design.confirm_seeds)
        confirming |= set(design.confirm_seeds)
        planned |= of_design
    assert {spec.run_id for spec in specs if spec.seed in confirming} <= planned
    tuning = [spec for spec in specs if spec.seed not in confirming]
    found = {
        (s.task, s.seed, s.batch_size, s.optimizer, s.learning_rate, tuple(s.hyperparameters.items()))
        for s in tuning
    }
    assert len(found) == len(tuning)
    assert found == set.union(*map(cells, sweeps))
    fields = RunSpec.model_fields.keys() & Sweep.model_fields.keys() - {"task"}
    for spec in specs:
        settings = {name: getattr(spec, name) for name in fields}
        assert any(settings == {name: getattr(sweep, name) for name in fields} for sweep in sweeps)
    page = (folder / "index.html").read_text()
    for line in (folder / "leaderboard.csv").read_text().splitlines()[1:]:
        assert line.split(",")[-2] in page  # the row's id


@pytest.mark.parametrize("name", BOARDS)
def test_the_page_of_a_published_board_is_as_this_version_writes_it(name: str):
    """Its text with the plots that lie there, and the plot that says most.

    Its page follows from its archive. One that `run --archive` wrote also names runs that are still planned,
    so before a board that grows is committed, it is built once more from its own folder.
    """
    board, folder = published_board(name), ROOT / "leaderboards" / "published" / name
    stems = {plot: file_stem(plot) for plot in board_plots(board, lambda figure: "")}
    plots = {plot: (folder / "plots" / f"{stem}.svg").read_text() for plot, stem in stems.items()}
    again = f"momentum-bench leaderboard build {folder} --archive --out {folder}"
    assert page(board, plots, stems) == (folder / "index.html").read_text(), again
    assert {path.stem for path in (folder / "plots").iterdir()} == set(stems.values())
    if board.comparisons and draws_as_published():
        with plot_style(STYLE):
            assert svg_text(forest(board)) == plots["forest"]


def test_something_is_published():
    assert PUBLISHED
