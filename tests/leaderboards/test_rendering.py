"""The tables, page and plots that a leaderboard writes and prints, through the real command line."""

from __future__ import annotations

import csv
import io
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock, Timeout
from rich.console import Console
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.harness.records.store import LOCK, Store
from momentum_bench.harness.reporting import csv_text, svg_text
from momentum_bench.leaderboards.archive import ARCHIVE
from momentum_bench.leaderboards.build import board_of, build
from momentum_bench.leaderboards.printable import file_stem
from momentum_bench.leaderboards.rendering.cells import signed
from momentum_bench.leaderboards.rendering.files import contents, write
from momentum_bench.leaderboards.rendering.model_card import model_index
from momentum_bench.leaderboards.rendering.paper_table import latex, markdown, paper_tables
from momentum_bench.leaderboards.rendering.plots import board_plots, forest, forest_labels
from momentum_bench.leaderboards.rendering.terminal import print_board
from tests.conftest import ROOT, SOURCES, cli_environment
from tests.helpers.synthetic import SEEDS, Scores, fill, sweep_records

EVIL = '=1+1<script>alert("$x$")</script>/../../up'
SVG = "{http://www.w3.org/2000/svg}"


def score(spec: RunSpec) -> Scores:
    """SGDM wins on sst5 and equals SGD on the rest; the largest rate diverges for seed 13."""
    if spec.learning_rate == 0.1 and spec.seed == 13:
        return Scores(status="diverged")
    place = SEEDS.index(spec.seed)
    test = 0.8 + 0.01 * place + (spec.optimizer == "sgdm") * (0.001 * (place - 2))
    test += 0.03 * (spec.optimizer == "sgdm" and spec.task == "sst5")
    return Scores(0.9 if spec.learning_rate == 0.01 else 0.8, 0.5, test)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tasks, one of which has a hostile name."""
    folder = tmp_path_factory.mktemp("runs") / "results"
    fill(folder, [r for task in ("sst2", "sst5", "trec", EVIL) for r in sweep_records(score, task=task)])
    return folder


@pytest.fixture(scope="module")
def built(runs: Path) -> Path:
    """The files of that leaderboard."""
    out = runs.parent / "board"
    write(build(Store(runs)), out)
    return out


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; stderr's last line says whether torch was loaded."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from momentum_bench.harness.cli.main import main\n"
        "main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_command_builds_everything_without_torch(runs: Path, built: Path, tmp_path: Path):
    done = command("leaderboard", "build", runs, "--out", tmp_path / "out", "--png")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
    assert "SGDM scores higher" in done.stdout
    assert "equivalent within 1 point" in done.stdout
    pictures = sorted((tmp_path / "out" / "plots").glob("*.png"))
    assert [p.stem for p in pictures] == [p.stem for p in sorted((built / "plots").glob("*.svg"))]
    for path in pictures:
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
    (tmp_path / "out" / ARCHIVE).unlink()  # the records, so that the folder can be checked
    files = {path.relative_to(built) for path in built.rglob("*") if path.is_file()}
    assert files == {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for name in files:  # two processes write the same bytes
        assert (built / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_two_machines_write_the_same_bytes(runs: Path, tmp_path: Path):
    """As far as one machine can act as two: they differ in hash seed, time zone, language, threads, umask,
    folder, matplotlibrc, and in the order in which the records were written."""
    records = build(Store(runs)).rows
    shuffled = [run for row in records for run in row.runs]
    random.Random(7).shuffle(shuffled)
    fill(tmp_path / "shuffled", shuffled)
    circumstances = [
        (runs, "022", {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}),
        (
            tmp_path / "shuffled",
            "077",
            {"PYTHONHASHSEED": "2", "TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "OMP_NUM_THREADS": "3"},
        ),
    ]
    written = []
    for place, (folder, umask, environment) in enumerate(circumstances):
        cwd = tmp_path / f"cwd{place}"
        cwd.mkdir()
        (cwd / "matplotlibrc").write_text(f"font.size: {8 + place}\nlines.linewidth: {1 + place}\n")
        code = "from momentum_bench.harness.cli.main import main; main()"
        words = [sys.executable, "-c", code, "leaderboard", "build", str(folder), "--out", "out", "--archive"]
        done = subprocess.run(
            ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *words],
            cwd=cwd,
            env=cli_environment(PYTHONPATH=str(SOURCES), **environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        files = [path for path in (cwd / "out").rglob("*") if path.is_file()]
        written.append({str(path.relative_to(cwd)): path.read_bytes() for path in files})
    assert written[0].keys() == written[1].keys()
    assert [name for name in written[0] if written[0][name] != written[1][name]] == []


def test_the_margin_can_be_chosen(runs: Path):
    done = command("leaderboard", "build", runs, "--margin", "0.0001")
    assert done.returncode == 0
    assert "equivalent within" not in done.stdout


@pytest.mark.parametrize("words", [["--margin", "1"], ["--margin", "0"], ["--margin", "nan"]])
def test_a_margin_that_is_not_allowed(runs: Path, words: list[str]):
    done = command("leaderboard", "build", runs, *words)
    assert done.returncode == 2
    assert "error: --margin" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_results_is_an_error_and_writes_nothing(tmp_path: Path):
    done = command("leaderboard", "build", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "holds no momentum-bench results" in done.stderr
    assert not (tmp_path / "out").exists()
    fill(tmp_path / "empty", [])
    done = command("leaderboard", "build", tmp_path / "empty", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "no finished run" in done.stderr
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_an_error(runs: Path, tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    done = command("leaderboard", "build", runs, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_whose_files_would_be_overwritten_is_refused(runs: Path, tmp_path: Path):
    out = tmp_path / "site"
    for name in ("index.html", "leaderboard.csv", "plots/mine.svg"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("name,score\nmine,1\n")
    done = command("leaderboard", "build", runs, "--out", out)
    assert done.returncode == 2
    assert f"{out} holds no leaderboard, and its leaderboard.csv would be overwritten" in done.stderr
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        *("index.html", "leaderboard.csv", "plots/mine.svg")
    }
    assert (out / "index.html").read_text() == "name,score\nmine,1\n"
    for name in ("index.html", "leaderboard.csv"):
        (out / name).unlink()
    write(build(Store(runs)), out)
    (out / "index.html").write_text("of an earlier build")
    write(build(Store(runs)), out)  # a leaderboard is built again in its place
    assert (out / "index.html").read_text() != "of an earlier build"
    assert (out / "plots/mine.svg").read_text() == "name,score\nmine,1\n"


def test_a_board_waits_for_the_sweep_of_the_directory_that_it_is_written_to(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two processes that write the same files at once would each remove the other's temporary files."""
    locked = []
    store = fill(tmp_path / "results", sweep_records(score))

    def noting(*given: object) -> None:
        with pytest.raises(Timeout), FileLock(store.output_dir / LOCK, blocking=False):
            pass
        locked.append(given)

    monkeypatch.setattr("momentum_bench.leaderboards.rendering.files.write", noting)
    words = ["leaderboard", "build", str(runs), "--out", str(store.output_dir)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert len(locked) == 1


def test_csvs_hold_the_rows_and_pairs(built: Path):
    rows = read_csv(built / "leaderboard.csv")
    assert len(rows) == 8
    assert [row["optimizer"] for row in rows] == ["sgd", "sgdm"] * 4
    pairs = {row["task"]: row for row in read_csv(built / "comparison.csv")}
    assert pairs["sst5"]["verdict"] == "b better"
    assert pairs["sst2"]["verdict"] == "equivalent"
    assert read_csv(built / "tasks" / "sst5.csv") == [row for row in rows if row["task"] == "sst5"]
    (pooled,) = read_csv(built / "pooled.csv")
    assert pooled["n_tasks"] == "4"


def test_a_formula_in_a_csv_is_text():
    text = csv_text([{"a": "=1+1", "b": "-x", "c": -0.5, "d": "@y", "e": "plain", "f": "+z"}], "abcdef")
    assert text == "a,b,c,d,e,f\n'=1+1,'-x,-0.5,'@y,plain,'+z\n"


def test_a_name_out_of_a_record_leads_nowhere(built: Path):
    assert file_stem("sst2") == "sst2"
    for name in (EVIL, "../up", "a/b", "/etc/passwd", "..", "", ".hidden", "x" * 300):
        stem = file_stem(name)
        assert stem != name
        assert "/" not in stem
        assert not stem.startswith(".")
        assert 0 < len(stem) < 100
    assert file_stem("a/b") != file_stem("a_b")
    assert {path.parent.name for path in built.rglob("*.csv")} == {"board", "tasks"}


def test_every_run_is_a_line_of_the_parquet(built: Path):
    trials = pd.read_parquet(built / "trials.parquet")
    assert len(trials) == 4 * 2 * 3 * 5
    assert trials["run_id"].is_unique
    assert (trials["status"] == "diverged").sum() == 4 * 2
    rows = pd.read_csv(built / "leaderboard.csv").set_index("row_id")
    means = trials[trials["chosen"]].groupby("row_id")["test_metric"].mean()
    assert means.to_dict() == pytest.approx(rows["test_mean"].to_dict())


class Page(HTMLParser):
    """The tags with their attributes. Each tag must be closed in its turn."""

    VOID = frozenset({"meta", "input", "br", "link", "img"})

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_alone_and_is_well_formed(built: Path):
    text = (built / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == 8
    assert names.count("template") == 12  # three plots of four settings
    assert names.count("script") == 1
    identifiers = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href"):
            target = attrs.get(name)
            if target is None:
                continue
            assert target.startswith(("#", "plots/")), (tag, target)
            if target.startswith("#"):
                assert target[1:] in identifiers
            else:
                assert (built / target).is_file()
    words = " ".join(page.text)
    assert "sgdm better" in words
    assert "equivalent" in words
    rows = read_csv(built / "leaderboard.csv")
    for row in rows:  # the provenance has the runs
        assert all(run in words for run in row["chosen_runs"].split(";"))


def test_text_out_of_records_is_escaped_in_page_and_plots(built: Path):
    text = (built / "index.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    plots = list((built / "plots").glob("*.svg"))
    assert len(plots) == 13
    for plot in plots:
        root = ET.fromstring(plot.read_text())
        assert root.tag == f"{SVG}svg"
        assert not root.findall(f".//{SVG}script")


def test_plots_show_both_arms_the_choice_and_divergence(built: Path):
    (plot,) = (built / "plots").glob("curves-sst2-*.svg")
    texts = ["".join(t.itertext()) for t in ET.fromstring(plot.read_text()).iter(f"{SVG}text")]
    assert {"sgd", "sgdm", "effective learning rate", "test accuracy in %"} <= set(texts)
    assert texts.count("x1") == 2  # one seed of each arm diverged at the largest rate
    assert {"0.001", "0.01", "0.1"} <= set(texts)


def plot_texts(built: Path, pattern: str) -> list[str]:
    (plot,) = (built / "plots").glob(pattern)
    return ["".join(t.itertext()) for t in ET.fromstring(plot.read_text()).iter(f"{SVG}text")]


def test_plots_of_the_tuning_budget_and_of_matched_differences(built: Path):
    texts = plot_texts(built, "budget-sst2-*.svg")
    assert {"sgd", "sgdm", "number of learning rates tried", "1", "2", "3"} <= set(texts)
    texts = plot_texts(built, "matched-sst2-*.svg")
    assert {"sgdm - sgd", "effective learning rate", "difference in points", "0.001", "0.1"} <= set(texts)


def test_the_page_says_what_the_grid_says(built: Path):
    text = (built / "index.html").read_text()
    for heading in (
        "Tuning budget",
        "Learning-rate sensitivity",
        "Matched differences",
        "wrong choice costs",
    ):
        assert re.search(rf"<h2[^>]*>[^<]*{heading}", text), heading
    words = " ".join(Page(text).text)
    sst5 = [row for row in read_csv(built / "tuning_budget.csv") if row["task"] == "sst5"]
    assert [row["n_rates"] for row in sst5] == ["1", "2", "3"]
    for row in sst5:
        assert f"{100 * float(row['mean_difference']):+.1f}" in words
    for row in read_csv(built / "sensitivity.csv"):
        assert f"{float(row['decades']):.2f}" in words


def test_no_number_of_the_page_is_minus_zero():
    assert signed(-0.0004, digits=1) == "+0.0"
    assert signed(-0.0006, digits=1) == "-0.1"


def test_one_arm_or_one_rate_has_no_section_without_content(tmp_path: Path):
    write(board_of(sweep_records(score, arms={"sgd": {}}, rates=(0.01,))), tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    for name in ("budget", "matched", "regret", "sensitivity-table"):
        assert f'id="{name}"' not in text
    assert [path.name.split("-")[0] for path in (tmp_path / "out" / "plots").iterdir()] == ["curves"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_plot_is_the_same_alone_and_after_another(names: tuple[str, str]):
    few = sweep_records(score, task=names[0])
    many = sweep_records(score, task=names[1], rates=[0.001 * 2**n for n in range(9)])  # with slanted labels
    together = board_plots(board_of([*few, *many]), svg_text)
    for records in (few, many):
        alone = board_plots(board_of(records), svg_text)
        of_setting = alone.keys() - {"forest"}
        assert {name.split("-")[0] for name in of_setting} == {"curves", "budget", "matched"}
        for name in of_setting:
            assert alone[name] == together[name], name


SIX = {"sgd": {}} | {f"optimizer{beta}": {"momentum": beta} for beta in (0.1, 0.3, 0.5, 0.7, 0.9)}


@pytest.mark.parametrize(
    ("grid", "n_pairs"),
    [
        ({"seeds": (13,), "rates": (0.01,)}, 1),
        ({"rates": [10.0**-n for n in range(12)]}, 1),
        ({"arms": SIX, "seeds": SEEDS[:3]}, 15),
        ({"arms": {"sgd": {}}}, 0),
        ({"seeds": range(20), "rates": (0.01,)}, 1),
        ({"seeds": SEEDS[:1], "rates": (0.1,)}, 0),  # all runs diverged
        ({"task": "任务\x01\n$x", "model": "a\u202eb" * 100}, 1),
    ],
)
def test_odd_boards_are_written(tmp_path: Path, grid: dict, n_pairs: int):
    def odd(spec: RunSpec) -> Scores:
        if spec.learning_rate == 0.1 and spec.seed == 13:
            return Scores(status="diverged")
        return Scores(test_metric=(spec.seed % 7) / 10 + spec.hyperparameters.get("momentum", 0) / 100)

    board = build(fill(tmp_path / "runs", sweep_records(odd, **grid)))
    write(board, tmp_path / "out")
    assert len(board.comparisons) == n_pairs
    assert Page((tmp_path / "out" / "index.html").read_text()).open == []
    for plot in (tmp_path / "out" / "plots").glob("*.svg"):
        ET.fromstring(plot.read_text())
    assert latex(board).count(r"\begin{tabular}") == markdown(board).count("| --- |") == 1


def test_tables_for_papers(runs: Path):
    done = command("leaderboard", "build", runs, "--format", "latex")
    assert done.returncode == 0
    assert r"\toprule" in done.stdout
    assert r"\textbf{85.0 (1.7)}" in done.stdout
    done = command("leaderboard", "build", runs, "--format", "markdown")
    assert done.returncode == 0
    assert "**85.0 (1.7)**" in done.stdout


def test_paper_tables_mark_the_best_and_its_equivalents(tmp_path: Path):
    board = build(fill(tmp_path, sweep_records(score) + sweep_records(score, task="sst5")))
    lines = {line.split(" & ")[0]: line for line in latex(board).splitlines()}
    assert lines["optimizer"] == r"optimizer & sst2 & sst5 \\"
    assert lines["sgd"] == r"sgd & \textbf{82.0 (1.6)}$^{\approx}$ & 82.0 (1.6) \\"
    assert lines["sgdm"] == r"sgdm & \textbf{82.0 (1.7)}$^{\approx}$ & \textbf{85.0 (1.7)} \\"
    assert "| sgd | **82.0 (1.6)** ≈ | 82.0 (1.6) |" in markdown(board)


def test_paper_tables_escape_what_their_language_reads(tmp_path: Path):
    board = build(fill(tmp_path, sweep_records(score, task="a_b&c|d<e>")))
    assert r"a\_b\&c\textbar{}d\textless{}e\textgreater{}" in latex(board)
    assert r"a\_b\&c\|d\<e\>" in markdown(board)


def test_one_seed_shows_no_winner():
    one = sweep_records(score, seeds=(21,), task="sst5")
    board = board_of(one)
    assert "textbf" not in latex(board)
    assert "**" not in markdown(board)
    assert "sgd & 81.0" in latex(board)
    assert "accuracy in \\%, of one seed;" in latex(board)
    assert "No mean is bold, because one seed cannot show which optimizer is better." in latex(board)
    together = board_of([*one, *sweep_records(score, task="trec")])  # a task with enough seeds has its winner
    assert "textbf{82.0 (1.7)}" in latex(together)
    assert "textbf{84.0}" not in latex(together)
    assert "highest mean of a task whose optimizers all have two or more seeds" in latex(together)
    few = [run for run in sweep_records(score) if run.spec.optimizer == "sgdm" or run.spec.seed == 21]
    assert "textbf" not in latex(board_of(few))  # sgd has one seed, sgdm has five


@pytest.mark.parametrize(("spread", "reach"), [(0.02, None), (0.6, 10)])
def test_one_long_interval_does_not_hide_the_others_in_the_forest_plot(spread: float, reach: float | None):
    """It runs off the axis, which still shows its mean."""

    def noisy(spec: RunSpec) -> Scores:
        wide = spread if spec.task == "cr" else 0.01
        place = SEEDS.index(spec.seed) / (len(SEEDS) - 1) - 0.5
        return Scores(test_metric=0.7 + (wide * place if spec.optimizer == "sgdm" else 0))

    tasks = ("sst2", "mr", "cr", "trec")
    board = board_of([run for task in tasks for run in sweep_records(noisy, task=task)])
    far = max(pair.difference.ci_high for pair in board.comparisons)
    low, high = forest(board).axes[0].get_xlim()
    assert low == -high
    assert (high < 100 * far) == (reach is not None)
    assert reach is None or high < reach
    others = [pair.difference.ci_high for pair in board.comparisons if pair.columns["task"] != "cr"]
    assert all(100 * end < high for end in others)


FIRST, SECOND = "3fa94c21" + "0" * 8, "3fa94c21" + "1" * 8


def test_two_models_of_one_name_are_told_apart_everywhere(tmp_path: Path):
    name = "local:checkpoint-500"
    parts = [sweep_records(score, model=name, model_revision=digest) for digest in (FIRST, SECOND)]
    board = board_of([run for part in parts for run in part])
    names = [f"{name} ({FIRST[:9]})", f"{name} ({SECOND[:9]})"]
    captions = [table.caption for table in paper_tables(board)]
    assert [caption.partition(", prompt")[0] for caption in captions] == names
    console = Console(width=200, file=io.StringIO())
    print_board(board, console)
    page, index = str(contents(board)["index.html"]), model_index(board)
    for name in names:
        assert f"sst2, {name.removeprefix('local:')} by prompt" in console.file.getvalue()
        assert f"model {name}" in page
        assert f"name: {name}\n" in index
    assert len(set(forest_labels(board))) == 2
    alone = board_of(parts[0])
    for text in (
        latex(alone),
        str(contents(alone)["index.html"]).partition("Provenance")[0],
        model_index(alone),
    ):
        assert "checkpoint-500" in text
        assert FIRST[:8] not in text


def test_a_folder_and_a_package_of_one_name_have_titles_of_their_own():
    board = board_of(
        [run for kind in ("local", "package") for run in sweep_records(score, model=f"{kind}:gt")]
    )
    console = Console(width=200, file=io.StringIO())
    print_board(board, console)
    assert "sst2, local:gt by prompt" in console.file.getvalue()
    assert "sst2, package:gt by prompt" in console.file.getvalue()


@pytest.mark.parametrize(("n_arms", "as_table"), [(3, False), (4, True)])
def test_few_comparisons_are_sentences_and_many_a_table(tmp_path: Path, n_arms: int, as_table: bool):
    names = ("nesterov", "qhm", "sgd", "sgdm")[:n_arms]
    records = sweep_records(score, arms={name: {} for name in names})
    records += sweep_records(lambda spec: Scores(status="failed"), arms={"adamw": {}})
    console = Console(width=80, file=io.StringIO())
    print_board(build(fill(tmp_path, records)), console)
    text = console.file.getvalue()
    assert ("SGD minus QHM" in text) != as_table
    lines = [line.split() for line in text.splitlines() if line.startswith(" sgdm minus")]
    if as_table:
        assert [line[2] for line in lines] == ["nesterov", "qhm", "sgd"]
        assert lines[2][3:] == ["+0.0", "-0.2", "to", "+0.2", "5", "equivalent"]
    assert max(map(len, text.splitlines())) <= 80
