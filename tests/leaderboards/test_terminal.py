"""The leaderboard and `status` on a terminal: narrow, without Unicode, without room, and with odd names."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.leaderboards.build import Leaderboard, board_of
from momentum_bench.leaderboards.rendering.terminal import print_board
from tests.conftest import ROOT, cli_environment
from tests.helpers.synthetic import Scores, fill, sweep_records

MARKUP = "run[red]x"
END = "[/b]"
ODD = {"task": END, "model": f":bomb:{MARKUP}\x1b[2J"}


def by_seed(spec: RunSpec) -> Scores:
    return Scores(test_metric=spec.seed / 200)


def printed(board: Leaderboard, width: int, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_board(board, Console(width=width, file=file))
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode(encoding)


def test_names_are_no_markup_and_no_escape_sequences():
    text = printed(board_of(sweep_records(by_seed, arms={"sgd": {}, MARKUP: {}}, **ODD)), 200)
    assert f"{END}, :bomb:{MARKUP}?[2J by prompt" in text
    assert f"{END}: {MARKUP} minus" in text or f"{END}: SGD minus {MARKUP}" in text
    assert "\x1b" not in text


def test_status_shows_names_as_they_are(tmp_path: Path):
    fill(tmp_path, sweep_records(by_seed, arms={MARKUP: {}}, **ODD))
    done = CliRunner().invoke(app, ["status", str(tmp_path)], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.exception
    assert f":bomb:{MARKUP}?[2J by prompt" in done.stdout
    lines = [line for line in done.stdout.splitlines() if END in line]
    assert [line.split()[:2] for line in lines if not line.startswith("Search on")] == [[END, MARKUP]] * 3
    assert [MARKUP in line for line in lines if line.startswith("Search on")] == [True]
    assert "\x1b" not in done.stdout


def without_spaces(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("width", [20, 40, 60, 80])
@pytest.mark.parametrize("n_arms", [2, 5])
def test_nothing_is_cut_however_narrow_the_terminal(width: int, n_arms: int):
    names = ("sgd", "sgdm", "qhm", "nesterov", "an_optimizer_of_somebodys_own@0123456789ab")
    board = board_of(sweep_records(by_seed, arms={name: {} for name in names[:n_arms]}))
    wide, narrow = printed(board, 300), printed(board, width)
    assert max(map(len, narrow.splitlines())) <= width
    assert "…" not in narrow
    rows = [row.columns for row in board.rows]
    for row in rows:
        assert row["optimizer"] in without_spaces(narrow)
        assert f"{100 * row['test_mean']:.1f}" in narrow
    for header in (
        "optimizer",
        "test (sd)",
        "±95 %",
        "worst",
        "dev",
        "chosen rates",
        "edge",
        "div.",
        "state",
    ):
        assert header in wide
        assert all(word in narrow for word in header.split())
    if n_arms == 5:
        assert {pair.verdict for pair in board.comparisons} == {"not learned"}
        assert without_spaces(narrow).count("notlearned") == 10


@pytest.mark.parametrize("columns", ["20", "40"])
def test_status_cuts_nothing_on_a_narrow_terminal(tmp_path: Path, columns: str):
    name = "an_optimizer_of_somebodys_own@0123456789ab"
    fill(tmp_path, sweep_records(by_seed, arms={name: {}}))
    done = CliRunner().invoke(app, ["status", str(tmp_path)], env={"COLUMNS": columns})
    assert done.exit_code == 0
    assert without_spaces(done.stdout).count(name) == 3 + 1  # one for each rate, and one for the budget
    assert done.stdout.count("done") == 15 + 1
    assert "…" not in done.stdout


def test_a_terminal_that_knows_ascii_alone():
    text = printed(board_of(sweep_records(by_seed)), 100, "ascii")
    assert "+-95 %" in text
    assert "SGDM minus SGD" in text


COMMAND = "import sys; from momentum_bench.harness.cli.main import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "results"
    fill(folder, sweep_records(by_seed, model="modèle-\u4efb"))
    return folder


@pytest.mark.parametrize(
    "words",
    [["leaderboard", "build"], ["leaderboard", "build", "--format", "markdown"], ["status"]],
    ids=lambda words: words[-1],
)
def test_texts_that_the_terminal_cannot_show_are_escaped(results: Path, words: list[str]):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, str(results)],
        cwd=ROOT,
        env=cli_environment(PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0"),
        capture_output=True,
        encoding="ascii",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert r"mod\xe8le-\u4efb" in done.stdout
    assert "sgdm" in done.stdout


@pytest.mark.parametrize(
    "words", [["--version"], ["leaderboard", "build"], ["status"], ["--help"]], ids=lambda words: words[-1]
)
def test_a_full_disk_behind_stdout_is_one_line_and_no_success(results: Path, words: list[str]):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                COMMAND,
                *words,
                *([str(results)] if words[-1] in ("build", "status") else []),
            ],
            cwd=ROOT,
            env=cli_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: stdout cannot be written: No space left on device. Make room, or print to another place"
    ]
