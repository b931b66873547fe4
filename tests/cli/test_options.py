"""What the command line takes, and what its help shows."""

from __future__ import annotations

import ast
import json
import re

import pytest
from typer.testing import CliRunner

from momentum_bench.harness import __version__
from momentum_bench.harness.cli.main import ORDER_OF_USE, app, main
from momentum_bench.harness.sweeps.request import SETTINGS
from momentum_bench.harness.sweeps.settings import GROUPS
from tests.conftest import ROOT
from tests.helpers.command_line import run_command
from tests.helpers.options import GOLDEN, all_commands, all_options


def test_a_new_option_is_a_decision():
    """Each option is one more thing to learn, to explain and to keep.

    If the change is meant, `python -m tests.helpers.options` writes the list again.
    """
    assert all_options() == json.loads(GOLDEN.read_text())


def test_every_setting_of_a_sweep_is_an_option_of_run():
    run = all_commands()["run"]
    options = {parameter.name: parameter for parameter in run.params}
    for name, setting in SETTINGS.items():
        assert options[name].opts == [setting.flag]
        assert options[name].help == setting.help
        assert options[name].rich_help_panel == setting.group


@pytest.mark.parametrize("command", sorted(all_commands()))
def test_no_help_is_cut_off_in_a_terminal_of_80_columns(command: str):
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert "…" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for parameter in all_commands()[command].params:
        if not getattr(parameter, "hidden", False):
            assert all(flag in shown.stdout for flag in parameter.opts if flag.startswith("-"))


def test_the_options_of_run_stand_in_titled_groups():
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "80"}).stdout
    titles = re.findall(r"╭─ (.*?) ─", shown)
    assert titles == ["Options", *GROUPS, "What is done and printed"]


def test_commands_stand_in_the_order_of_use():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    listed = re.findall(r"^│ ([a-z-]+) ", shown.split("Commands")[1], flags=re.MULTILINE)
    assert listed == list(ORDER_OF_USE)


def test_the_version_is_an_option():
    assert CliRunner().invoke(app, ["--version"]).stdout == f"{__version__}\n"
    assert CliRunner().invoke(app, ["version"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--workers", "2"], "--workers is now --runs-at-a-time"),
        (["run", "--runs_per_gpu=auto"], "--runs-per-gpu is now --runs-at-a-time"),
        (["run", "--gpus-per-run", "0.5"], "--gpus-per-run is now --runs-at-a-time: 2 in place of 0.5"),
        (["noise-floor", "results", "--workers", "2"], "--workers is now --runs-at-a-time"),
        (["study", "svag", "--workers=2"], "--workers is now --runs-at-a-time"),
    ],
)
def test_an_option_of_an_earlier_version_is_told_that_of_today(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("stat", "status"),
        ("run --learning-rate-", "--learning-rate-axis"),
        ("run --precision b", "bf16"),
        ("tasks check sst2 --method c", "causal"),
    ],
)
def test_a_shell_completes(typed: str, offered: str, monkeypatch: pytest.MonkeyPatch):
    words = f"momentum-bench {typed}"
    environment = {
        "_MOMENTUM_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_command().stdout.split() == [offered]


def test_a_shell_is_told_how_to_complete(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # a test has no shell above it
    shown = run_command("--show-completion", "bash")
    assert shown.returncode == 0
    assert "_MOMENTUM_BENCH_COMPLETE=complete_bash" in shown.stdout


def test_no_command_takes_its_options_from_its_local_variables():
    """A function's first line decides then what is an option, and a new variable becomes one."""
    for path in sorted((ROOT / "harness" / "cli").glob("*.py")):
        if path.name == "study.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "locals"]
