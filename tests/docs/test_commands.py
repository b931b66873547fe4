"""Every command of the README and the manual: some are run, and of the others every word is known."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from momentum_bench.harness.cli.main import app, main
from momentum_bench.harness.data.find_task import task_of
from tests.conftest import ROOT, needs_quickstart
from tests.helpers.manual import PAGES, Block, blocks, commands, lines
from tests.helpers.tickets import write_rows_of_the_guide

OTHERS = {
    "--no-deps": "pip",
    "--lr": "other trainers",
    "--model_name_or_path": "transformers",
    "--mixed_precision": "accelerate",
    "--output_path": "lm-evaluation-harness",
    "--cpu": "accelerate",
    "--fsdp_offload_params": "accelerate",
    "--num_processes": "accelerate",
    "--max_restarts": "torchrun",
    "--global": "git",
    "--cpus": "docker",
    "--memory": "docker",
}
"""Options that the text names and that are of other programs."""

CALLS = [(page.relative_to(ROOT), line, words) for page in PAGES for line, words in commands(page)]


def unknown_words(words: list[str]) -> list[str]:
    """Those of a command's words that momentum-bench does not know: commands and options."""
    command: Any = get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0].replace("_", "-") for word in rest if re.match(r"--?[a-z]", word)}
    return sorted(used - known - {"--help", "-h"})


@pytest.mark.parametrize(
    ("page", "line", "words"), CALLS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_word_of_a_command_is_known(page: Path, line: str, words: list[str]):
    assert unknown_words(words) == [], f"{page}: {line}"


def test_a_word_that_is_not_known_is_found():
    assert unknown_words(["run", "--task", "sst2", "--lerning-rates", "1"]) == ["--lerning-rates"]
    assert unknown_words(["leaderbord", "build"]) == ["leaderbord"]
    assert unknown_words(["run", "--learning_rates=1"]) == []


def test_every_option_that_the_text_names_exists():
    known = {
        flag for command in _all_commands() for p in command.params for flag in (*p.opts, *p.secondary_opts)
    }
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    known |= set(re.findall(r'"(--[a-z-]+)"', benchmarks)) | set(OTHERS) | {"--help"}
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        named = {
            word
            for code in re.findall(r"`([^`]+)`", prose)
            for word in re.findall(r"(?<!\S)--[a-z_-]+", code)
        }
        assert named <= known, f"{page}: {sorted(named - known)}"


def _all_commands() -> list[Any]:
    found, todo = [], [get_command(app)]
    while todo:
        command: Any = todo.pop()
        found.append(command)
        todo += getattr(command, "commands", {}).values()
    return found


def test_every_file_that_the_text_names_exists():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        rooms = r"`((?:tasks|harness|leaderboards|tests|benchmarks|docs|src|\.ci)/[\w./-]*)`"
        named = [name for name in re.findall(rooms, prose) if name != "tasks/TASK.csv"]  # of a board
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing, f"{page}: {missing}"
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", prose)
        made = {"command-line.md", "contributing.md", "changelog.md"}
        absent = [link for link in links if Path(link).name not in made and not (page.parent / link).exists()]
        assert not absent, f"{page}: {absent}"


@pytest.mark.slow
@needs_quickstart
@pytest.mark.timeout(900)  # twenty runs, on a machine that may be busy
def test_the_blocks_to_be_run_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    """In the order of the manual and in one folder, as a reader goes through it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    # runs in this process: a start of another costs more than all of them
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    write_rows_of_the_guide(tmp_path / "data")
    task_of.cache_clear()
    order = re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    pages = [ROOT / "docs" / name for name in order if (ROOT / "docs" / name).exists()]
    n_run = 0
    for page in pages:
        for block in blocks(page):
            if "." in block.word:
                Path(block.word).write_text(block.text)
            elif block.word == "run":
                _run(block)
                n_run += len(lines(block))
    task_of.cache_clear()
    out, _ = capfd.readouterr()
    assert n_run > 10
    assert "passed   0 warning(s)" in out  # of the task in the guide
    assert "first prompt     Nobody can log in since noon. This is [mask]." in out
    assert Path("tickets/leaderboard.csv").read_text().count("\ntickets,") == 2
    assert "calm@" in Path("calm/leaderboard.csv").read_text()
    assert list(Path("splits/bbc_news").iterdir())


def _run(block: Block) -> None:
    if block.language == "python":
        exec(compile(block.text, "the manual", "exec"), {"__name__": "__main__"})
        return
    for line in lines(block):
        words = shlex.split(line, comments=True)
        if words[0] != "momentum-bench":
            subprocess.run(words, check=True)
            continue
        with pytest.raises(SystemExit) as stopped:
            main(words[1:])
        assert stopped.value.code == 0, line
