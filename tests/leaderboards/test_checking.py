"""A whole folder of records and tables passes the check, and each change in it is named."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.leaderboards.checking import folder as checked_folder
from momentum_bench.leaderboards.checking.check import departures
from tests.conftest import ROOT, cli_environment
from tests.helpers.submissions import (
    Change,
    first_record,
    forge,
    specs,
    submission,
    whole_record,
)
from tests.helpers.synthetic import fill


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return submission(tmp_path_factory.mktemp("whole"), [whole_record(spec) for spec in specs()])


@pytest.fixture
def mine(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(whole, tmp_path / "mine")


def test_what_is_whole_passes(whole: Path, mine: Path):
    assert departures(whole) == []
    (mine / "momentum-bench.json").unlink()  # a submission need not have it
    shutil.rmtree(mine / "tasks")
    (mine / "pooled.csv").unlink()
    assert departures(mine) == []


def hardly_differ(before: str, after: str, place: int) -> bool:
    """Whether the number at a place of two texts is the same but for the digits that scipy may round."""
    start, end = re.search(r"[^,\n]*$", before[:place]).start(), re.search(r"[,\n]|$", before[place:]).start()
    try:
        one, other = (float(text[start : place + end]) for text in (before, after))
    except ValueError:
        return False
    return math.isclose(one, other, rel_tol=1e-8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_digit_anywhere_is_found_and_its_file_named(whole: Path, data: st.DataObject):
    names = ["leaderboard.csv", "comparison.csv"]
    name = data.draw(st.sampled_from([*names, *names, str(first_record(whole).relative_to(whole))]))
    text = (whole / name).read_text()
    place = data.draw(st.sampled_from([i for i, letter in enumerate(text) if letter.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[place]]))
    assume(not hardly_differ(text, text[:place] + digit + text[place + 1 :], place))
    try:
        (whole / name).write_text(text[:place] + digit + text[place + 1 :])
        found = departures(whole)
    finally:
        (whole / name).write_text(text)
    assert any(line.startswith(name) for line in found), found
    assert all(line.isprintable() for line in found)


def test_a_changed_cell_is_named_by_row_and_column(mine: Path):
    path = mine / "leaderboard.csv"
    lines = path.read_text().splitlines()
    place = lines[0].split(",").index("search_seconds")
    cells = lines[2].split(",")
    cells[place] = "1"
    path.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n")
    (line,) = departures(mine)
    assert line.startswith("leaderboard.csv, row 2 (sst2 sgdm momentum=0.9), column search_seconds: '1', ")


def with_cell(path: Path, column: str, change: Callable[[str], str]) -> str:
    """Change a cell of the first row that has a number there; returns the number before."""
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    place = lines[0].index(column)
    row = next(row for row in lines[1:] if row[place])
    before, row[place] = row[place], change(row[place])
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    return before


@pytest.mark.parametrize("column", ["ci_low", "p_difference", "p_within_margin"])
def test_the_last_digits_of_what_scipy_computes_depend_on_its_version(column: str, tmp_path: Path):
    board = shutil.copytree(ROOT / "leaderboards" / "published" / "digits-batch-size", tmp_path / "board")
    path = board / "comparison.csv"
    before = with_cell(path, column, lambda text: repr(float(text) * (1 + 5e-9)))
    assert path.read_text() != (ROOT / "leaderboards/published/digits-batch-size/comparison.csv").read_text()
    assert departures(board) == []
    with_cell(path, column, lambda _: repr(float(before) * (1 + 5e-8)))
    [line] = departures(board)
    assert f"column {column}: " in line


def test_the_last_digits_of_other_numbers_count(mine: Path):
    with_cell(mine / "leaderboard.csv", "search_seconds", lambda text: repr(float(text) * (1 + 5e-9)))
    [line] = departures(mine)
    assert "column search_seconds: " in line


def test_rows_and_columns_that_are_missing_or_added(mine: Path):
    path = mine / "leaderboard.csv"
    head, sgd, sgdm = path.read_text().splitlines()
    path.write_text(f"{head}\n{sgd}\n")
    assert departures(mine) == ["leaderboard.csv: the row of sst2 sgdm momentum=0.9 is missing"]
    path.write_text("\n".join([head, sgd, sgdm, sgd]) + "\n")
    assert departures(mine) == ["leaderboard.csv, row 3: no such row follows from the records"]
    path.write_text("\n".join([head, sgdm, sgd]) + "\n")
    assert departures(mine) == ["leaderboard.csv: rows in another order, or other quotes or line ends"]
    path.write_text("\n".join([f"{head},extra", f"{sgd},1", f"{sgdm},1"]) + "\n")
    assert departures(mine) == ["leaderboard.csv: column extra is not a leaderboard's"]
    path.write_text("\n".join([head, sgd + ",1", sgdm]) + "\n")
    (line,) = departures(mine)
    assert "row 1 has" in line
    path.unlink()
    assert departures(mine) == ["leaderboard.csv is not there"]


def test_another_margin_is_a_departure(mine: Path):
    assert any("column margin" in line for line in departures(mine, margin=0.02))


def swap_dev_rows(fields: dict[str, Any]) -> None:
    """Other dev rows that give the same score."""
    for name in ("labels", "predictions"):
        fields["dev"][name] = [1 - value for value in fields["dev"][name]]


def test_a_record_without_dev_predictions_is_one_of_an_older_version(mine: Path):
    """The record is right; only what rests on the dev predictions of all runs does not follow any more."""
    for change in (lambda fields: fields.update(dev=None), lambda fields: fields.pop("dev")):
        forge(mine, change)
        assert not [line for line in departures(mine) if line.startswith("runs")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["test"].update(metric=0.99), "test.metric 0.99, labels and predictions give"),
        (lambda f: f["test"]["predictions"].pop(), "test.predictions: 49 of them"),
        (lambda f: f["test"]["rows"].__setitem__(0, 1), "test.rows: a row is there more than once"),
        (lambda f: f["test"]["rows"].__setitem__(0, -1), "test.rows: values from -1 to"),
        (lambda f: f["test"]["labels"].__setitem__(0, 0), "other test rows and labels than the other runs"),
        (lambda f: f["evaluations"][-1].update(dev_metric=0.99), "dev_metric at best_step 0.99, labels and"),
        (lambda f: f["dev"]["predictions"].pop(), "dev.predictions: 99 of them, the split has 100 dev rows"),
        (lambda f: f["dev"]["predictions"].__setitem__(0, -1), "dev.predictions: values from -1 to 1"),
        (lambda f: f["dev"].update(questions=[1]), "dev.questions: 1 of them for 100 rows"),
        (swap_dev_rows, "other dev labels than the other runs on the same data"),
        (lambda f: f.update(status="diverged"), "status diverged with dev"),
        (lambda f: f["split"].update(content_hash="x"), "other split.content_hash than the other runs"),
        (lambda f: f.update(best_step=500), "best_step 500, the evaluations give 1000"),
        (lambda f: f.update(best_step=501), "best_step 501 is not a step that was evaluated"),
        (lambda f: f["evaluations"][0].update(step=499), "evaluations at steps"),
        (lambda f: f["evaluations"].pop(), "status done with a last evaluation at step 500 of 1000"),
        (lambda f: f.update(test=None), "status done without test"),
        (lambda f: f.update(status="diverged"), "status diverged with test"),
        (lambda f: f.update(failure="why"), "status done with failure"),
        (lambda f: f.update(metric="guess"), "metric 'guess', expected one of"),
        (lambda f: f["spec"].update(protocol_version=99), "protocol version 99, and this is version"),
        (lambda f: f["spec"].update(protocol="\x1b[2J"), "protocol '?[2J', expected one of"),
        (lambda f: f["spec"].update(eval_every=0), "eval_every 0, expected 1 or more"),
        (lambda f: f["spec"].update(max_steps=10**12), "max_steps 1000000000000, expected 0 to"),
        (lambda f: f["spec"].update(seed=7), "it is in another run's folder"),
        (lambda f: f["spec"].update(seed="13"), "spec.seed: Input should be a valid integer"),
        (lambda f: f["read_back"].update(thoughts=1), "read_back.thoughts: Extra inputs are not permitted"),
        (lambda f: f["spec"].pop("k"), "spec.k: Field required"),
        (lambda f: f["read_back"].update(torch_learning_rate=5.0), "read_back.torch_learning_rate 5.0, "),
        (lambda f: f["read_back"].update(state_tensors=["exp_avg"]), "read_back.state_tensors"),
        (lambda f: f["read_back"]["param_groups"][0].update(momentum=0.5), "param_groups.0.momentum 0.5"),
        (lambda f: f["read_back"]["param_groups"][0].update(lr=0.5), "param_groups.0.lr 0.5"),
        (lambda f: f["read_back"]["param_groups"][0].update(weight_decay=0.1), "weight_decay 0.1"),
        (lambda f: f["read_back"].update(autocast_dtype="bfloat16"), "read_back.autocast_dtype bfloat16"),
        (lambda f: f["spec"]["hyperparameters"].update(nu=1.0), "hyperparameters ["),
        (lambda f: f["read_back"].update(trained=["a"]), "read_back.trained ('a',), the spec says peft None"),
        (lambda f: f["read_back"].update(adapter={"r": 8}), "read_back.adapter {'r': 8"),
        (lambda f: f["spec"].update(freeze="encoder"), "read_back.trained None, the spec says"),
        (lambda f: f["costs"].update(train_seconds=-1.0), "costs: a negative number"),
    ],
)
def test_a_forged_record_with_a_fitting_checksum(mine: Path, change: Change, message: str):
    file = forge(mine, change)
    found = departures(mine)
    assert any(message in line for line in found), found
    assert any(line.startswith(file) for line in found)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value, with each key or index in it."""
    if not isinstance(value, dict | list) or not value:
        return []
    keys = list(value) if isinstance(value, dict) else [0, len(value) - 1]
    return [(value, key) for key in keys] + [p for key in keys for p in places(value[key])]


JUNK = (None, True, 0, -1, 0.5, 1e308, 10**400, 2**63, "", "\ud800", "=1\n", [], [[]], {}, {"a": 1})


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_record_holds_there_is_a_departure_and_no_traceback(whole: Path, data: st.DataObject):
    path = first_record(whole)
    text = path.read_text()

    def spoil(fields: dict[str, Any]) -> None:
        holder, key = data.draw(st.sampled_from(places(fields)))
        holder[key] = data.draw(st.sampled_from([junk for junk in JUNK if junk != holder[key]]))

    try:
        forge(whole, spoil)
        found = departures(whole)
    finally:
        path.write_text(text)
    assert all(line.isprintable() for line in found)


def test_numbers_that_make_no_table(tmp_path: Path):
    records = [whole_record(spec) for spec in specs()]
    costs = records[0].costs
    assert costs
    endless = costs.model_copy(update={"train_seconds": 1.7e308})
    fill(tmp_path, [record.model_copy(update={"costs": endless}) for record in records])
    (line,) = departures(tmp_path)
    assert line.startswith("no leaderboard can be built from these records: OverflowError")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is nested too deeply"),
        ('{"a":' * 100_000, "is nested too deeply"),
        ("[]", "expected an object, found list"),
        ("{", "is not a record: JSONDecodeError"),
        ('{"spec": NaN}', "is not a record: ValueError"),
        ('{"spec": 1e999}', "is not a record: ValueError"),
        ('{"\\ud800": 1}', "is not whole"),
        ("\xff", "is not a record: UnicodeDecodeError"),
    ],
)
def test_what_is_not_a_record(mine: Path, text: str, message: str):
    path = first_record(mine)
    path.write_bytes(text.encode("latin-1"))
    found = departures(mine)
    assert any(line.startswith(f"runs/{path.parent.name}/record.json") and message in line for line in found)
    assert Store(mine).read(path.parent.name) is None


def test_large_files_are_not_read(mine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checked_folder, "LARGEST_BYTES", 100_000)
    path = first_record(mine)
    os.truncate(path, 100_001)
    assert any(f"{path.parent.name}/record.json is larger than" in line for line in departures(mine))


def test_links_that_lead_out_are_refused(mine: Path, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    path = first_record(mine)
    path.unlink()
    path.symlink_to(outside)
    (mine / "comparison.csv").rename(tmp_path / "comparison.csv")
    (mine / "comparison.csv").symlink_to("../comparison.csv")
    (mine / "pooled.csv").unlink()
    (mine / "pooled.csv").symlink_to("leaderboard.csv")  # inside the folder, but with the wrong content
    found = departures(mine)
    refused = [line for line in found if line.endswith("is a symbolic link that leads out of the folder")]
    assert [line.split()[0] for line in refused] == [
        "comparison.csv",
        f"runs/{path.parent.name}/record.json",
    ]
    assert any(line.startswith("pooled.csv") for line in found)
    assert "secret" not in "".join(found)


def test_runs_that_are_missing_or_failed(tmp_path: Path):
    records = [whole_record(spec) for spec in specs()]
    failed = RunRecord(spec=records[0].spec, metric="accuracy", status="failed", failure="no luck")
    folder = submission(tmp_path, [failed, *records[1:-1]])
    (folder / "runs" / ("0" * 16)).mkdir()
    found = departures(folder)
    assert f"runs/{failed.spec.run_id}/record.json: the run failed (no luck)" in found[0] + found[1]
    assert "runs/0000000000000000/record.json: is not there" in found
    assert any("sst2 sgdm momentum=0.9): no run of seed 42 at rate 0.1" in line for line in found)
    assert len(found) == 3


def test_the_command_ends_with_0_where_all_fits_and_with_1_where_not(mine: Path):
    done = CliRunner().invoke(app, ["leaderboard", "check", str(mine)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no departure(s) found" in done.stderr
    forge(mine, lambda fields: fields["test"].update(metric=0.99))
    code = "from momentum_bench.harness.cli.main import main; main()"
    real = subprocess.run(
        [sys.executable, "-c", code, "leaderboard", "check", str(mine)],
        cwd=ROOT,
        env=cli_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert real.returncode == 1
    assert "test.metric 0.99" in real.stdout
    assert "Traceback" not in real.stderr


def test_without_runs_there_is_nothing_to_check(tmp_path: Path):
    with pytest.raises(UserError, match="has no folder runs/ and no records"):
        departures(tmp_path)
