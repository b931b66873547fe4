"""What the README and the manual say, against the program and the published boards. Nothing is built here."""

from __future__ import annotations

import csv
import re
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.metrics.functions import METRICS
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.tables import COLUMNS, csv_tables
from momentum_bench.tasks import SUITES
from tests.conftest import ROOT
from tests.helpers.manual import PAGES, blocks, script
from tests.helpers.submissions import fill, whole_record
from tests.helpers.synthetic import make_spec

README = (ROOT / "README.md").read_text()
DOCS = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
BOARD = ROOT / "leaderboards" / "published" / "six-tasks-minilm-head"


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/hooks.py, which mkdocs loads by its path."""
    return script("hooks")


def test_the_page_of_the_command_line_has_every_command_and_option(hooks: ModuleType):
    page = hooks.command_line_page()
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE))
    found = {" ".join(words[1:]): command for words, command in hooks.commands(get_command(app))}
    assert set(parts) == set(found)
    for name, command in found.items():
        for parameter in command.params:
            for flag in parameter.opts:
                assert not flag.startswith("--") or flag in parts[name], f"{name} {flag}"
    assert "default: 0.01" in parts["run"]


def test_help_is_shown_as_it_is(hooks: ModuleType):
    assert hooks._escaped(r"a_b <c> *d* \[e] `f_g`") == r"a\_b &lt;c&gt; \*d\* \[e\] `f_g`"
    assert hooks._escaped("as --max-steps 0 says") == "as `--max-steps` 0 says"


def test_the_second_word_of_a_block_is_a_title_or_left_out(hooks: ModuleType):
    text = "```bash run\na\n```\n\n```toml first.toml\nb = 1\n```\n"
    assert hooks.on_page_markdown(text) == '```bash\na\n```\n\n```toml title="first.toml"\nb = 1\n```\n'


def test_every_column_is_explained(tmp_path: Any):
    records = [
        whole_record(make_spec(task=task, optimizer=optimizer, seed=seed, learning_rate=rate))
        for task in ("sst2", "mr", "cr")
        for optimizer in ("sgd", "sgdm")
        for seed in (13, 21, 42)
        for rate in (0.01, 0.1)
    ]
    found = csv_tables(build(fill(tmp_path, records)))
    named = set(re.findall(r"`(\w+)`", DOCS["results"]))
    for name in (f"{name}.csv" for name in COLUMNS):
        columns = set(found[name].splitlines()[0].split(","))
        assert len(columns) > 12
        assert columns <= named, f"{name}: {sorted(columns - named)}"


def test_the_published_numbers_are_those_of_the_board():
    with (BOARD / "comparison.csv").open() as file:
        pairs = [pair for pair in csv.DictReader(file) if pair["second"] == "sgdm"]
    with (BOARD / "leaderboard.csv").open() as file:
        rows = {row["row_id"]: row for row in csv.DictReader(file)}
    assert len(pairs) == 6
    for pair in pairs:
        means = [
            f"{100 * float(rows[pair[f'{side}_row_id']]['test_mean']):.1f}" for side in ("first", "second")
        ]
        low, high, mean = (100 * float(pair[name]) for name in ("ci_low", "ci_high", "mean_difference"))
        interval = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
        line = f"| {pair['task']} | {means[0]} | {means[1]} | {interval} | {pair['verdict']}"
        seeds = f"{pair['n_seeds_if_equal']} / {pair['n_seeds_as_observed']}"
        assert re.search(rf"{re.escape(line)}.*{seeds} \|", DOCS["results"]), line


def test_the_row_that_is_read_aloud_is_a_row_of_the_board():
    part = DOCS["results"].split("## A row, read aloud")[1].split("\n## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", part, flags=re.MULTILINE))
    assert len(shown) > 5
    with (BOARD / "leaderboard.csv").open() as file:
        rows = [{name: row[name] for name in shown} for row in csv.DictReader(file)]
    assert shown in rows


def test_what_can_be_named_is_listed():
    for name in OPTIMIZERS:
        assert f"| `{name}` |" in DOCS["add-an-optimizer"]
    for name in METRICS:
        assert f"`{name}`" in DOCS["add-a-metric"]
    for name in SUITES:
        assert f"`{name}`" in DOCS["running"]


def test_the_readme_is_short_and_keeps_what_is_read_by_machine():
    assert len(README.splitlines()) <= 130
    (start,) = (block for block in blocks(ROOT / "README.md") if block.word == "quick-start")
    first, second = start.text.splitlines()
    assert first.endswith("momentum-bench run")
    assert second.endswith("python -m pytest")


def test_no_page_names_a_path_of_this_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.~])/(?:work|tmp|home|root|opt)/", page.read_text()), page
