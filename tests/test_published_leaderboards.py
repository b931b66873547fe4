"""Leaderboards that are kept: the archive of their records, model cards, and what this project publishes."""

from __future__ import annotations

import lzma
from itertools import product
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.records import RunSpec
from harness.store import Store
from harness.sweep import Sweep, hyperparameters, make_sweep, rates
from leaderboards import archive
from leaderboards.archive import ARCHIVE, pack, unpacked
from leaderboards.build import board_of, build
from leaderboards.checking import departures
from leaderboards.model_card import model_index
from leaderboards.outputs import write
from tests.conftest import ROOT
from tests.synthetic import Scores, fill, sweep_records
from tests.test_checking import specs, whole_record

PUBLISHED = sorted((ROOT / "leaderboards" / "published").glob("*/"))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Tables and archive of a small leaderboard, without its runs."""
    board = build(fill(tmp_path / "results", [whole_record(spec) for spec in specs()]))
    write(board, tmp_path / "kept", archive=True)
    return tmp_path / "kept"


def test_an_archive_stands_for_the_records(kept: Path, tmp_path: Path):
    results = tmp_path / "results"
    with unpacked(kept) as folder:
        assert Store(folder).records() == Store(results).records()
        for name in Store(results).run_folders():
            path = f"runs/{name}/record.json"
            assert (folder / path).read_bytes() == (results / path).read_bytes()
    assert not folder.exists()
    with unpacked(results) as folder:
        assert folder == results
    assert departures(kept) == []
    done = CliRunner().invoke(app, ["leaderboard", "check", str(kept)])
    assert done.exit_code == 0
    words = ["leaderboard", "build", str(kept), "--archive", "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(app, words).exit_code == 0
    for path in kept.rglob("*.*"):
        assert (tmp_path / "again" / path.relative_to(kept)).read_bytes() == path.read_bytes()
    (row, _) = build(Store(results)).rows
    done = CliRunner().invoke(app, ["reproduce", row.row_id, str(kept)])
    assert "the row is of task sst2 in version 1a2b3c" in done.stderr  # which is made up, and read


def rewrite(kept: Path, old: bytes, new: bytes) -> None:
    text = lzma.decompress((kept / ARCHIVE).read_bytes())
    assert old in text
    (kept / ARCHIVE).write_bytes(lzma.compress(text.replace(old, new, 1)))


def test_what_is_changed_in_an_archive_is_found(kept: Path, monkeypatch: pytest.MonkeyPatch):
    whole = (kept / ARCHIVE).read_bytes()
    rewrite(kept, b'"seed": 13', b'"seed": 14')
    assert any("its checksum does not fit" in line for line in departures(kept))
    (kept / ARCHIVE).write_bytes(whole)
    rewrite(kept, b"{", b"[")
    assert any(line.startswith("runs/line-0/record.json: is no record") for line in departures(kept))
    lines = lzma.decompress(whole).splitlines(keepends=True)
    (kept / ARCHIVE).write_bytes(lzma.compress(b"".join([*lines, lines[0]])))
    assert any("it is in another run's folder" in line for line in departures(kept))
    (kept / ARCHIVE).write_bytes(lzma.compress(b"".join(lines[:-1])))
    assert any("the records give" in line for line in departures(kept))
    for damaged in (whole[:-20], b"no archive", b""):
        (kept / ARCHIVE).write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            departures(kept)
    (kept / ARCHIVE).write_bytes(whole)
    monkeypatch.setattr(archive, "LARGEST_TOTAL", 5_000)
    with pytest.raises(UserError, match="is larger than records are"):
        departures(kept)


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
    (result,) = cards[1]["model-index"][0]["results"]  # what diverged has no score
    assert result["dataset"]["type"] == "nyu-mll/glue"
    assert result["dataset"]["split"] == "validation"
    sgd, sgdm = result["metrics"]
    assert (sgd["type"], sgd["value"], sgdm["value"]) == ("accuracy", 0.75, 0.5)
    assert sgdm["args"]["hyperparameters"] == "momentum=0.9"
    assert sgd["args"]["n_seeds"] == 5


def cells(sweep: Sweep) -> set[tuple]:
    """What a sweep runs, as far as it can be said without its data and model."""
    return {
        (task, seed, sweep.batch_size, optimizer, rate, tuple(hyperparameters(sweep, optimizer).items()))
        for task, seed, optimizer in product(sweep.task, sweep.seeds, sweep.optimizers)
        for rate in rates(sweep, task, optimizer)
    }


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_what_this_project_publishes_follows_from_its_records_and_sweeps(folder: Path):
    sweeps = [make_sweep({}, path) for path in sorted(folder.glob("*.toml"))]
    assert sweeps
    if not (folder / "leaderboard.csv").exists():
        pytest.skip("its sweep is not run yet")
    assert departures(folder) == []
    assert not (folder / "runs").exists()  # the archive stands for them
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5_000_000
    with unpacked(folder) as results:
        specs = [record.spec for record in Store(results).records()]
    found = {
        (s.task, s.seed, s.batch_size, s.optimizer, s.learning_rate, tuple(s.hyperparameters.items()))
        for s in specs
    }
    assert len(found) == len(specs)
    assert found == set.union(*map(cells, sweeps))
    fields = RunSpec.model_fields.keys() & Sweep.model_fields.keys() - {"task"}
    for spec in specs:
        settings = {name: getattr(spec, name) for name in fields}
        assert any(settings == {name: getattr(sweep, name) for name in fields} for sweep in sweeps)
    page = (folder / "index.html").read_text()
    for line in (folder / "leaderboard.csv").read_text().splitlines()[1:]:
        assert line.split(",")[-2] in page  # the row's id


def test_something_is_published():
    assert PUBLISHED
