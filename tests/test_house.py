"""The plan of the house, checked: who imports whom, and names that would shadow others."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("tasks", "harness", "leaderboards")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def rooms_of(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules} & set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_flows_one_way(path: Path):
    room, used = path.relative_to(ROOT).parts[0], rooms_of(imports(path))
    if room == "tasks":
        assert used <= {"tasks"}
    elif room == "harness" and path.name not in ("run.py", "cli.py"):
        assert "leaderboards" not in used


def test_leaderboards_and_the_command_line_load_no_torch():
    code = (
        "import sys, pkgutil, importlib, leaderboards, harness.cli\n"
        "for module in pkgutil.iter_modules(leaderboards.__path__):\n"
        "    importlib.import_module(f'leaderboards.{module.name}')\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_beside_run_py_shadows_another_module():
    """A script's own folder leads the search path, so its neighbours' names must be free."""
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions()) | set(ROOMS) | {"tests"}
    ours = {"harness", "tasks", "leaderboards", "tests"}
    names = {path.stem for path in (ROOT / "harness").glob("*.py")} - {"__init__"}
    assert not names & (taken | ours)


def test_the_top_level_is_the_one_that_was_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.splitlines()}
    allowed = {"pyproject.toml", "README.md", "constraints.txt", "LICENSE", ".ci", ".gitignore", "benchmarks"}
    assert top <= allowed | set(ROOMS) | {"tests"}


UNPICKLERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def test_nothing_is_unpickled_and_no_code_runs_but_a_file_that_the_user_names():
    allowed = {"user_files.py": ["exec"]}  # --optimizer-file, --task-file
    for path in FILES:
        text = path.read_text()
        assert "torch.load" not in text
        assert not UNPICKLERS & {module.split(".")[0] for module in imports(path)}
        for name in ("load_state(", "save_state(", "np.load(", "read_pickle("):
            assert name not in text
        assert "trust_remote_code=True" not in text
        names = [
            node.func.id
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert [n for n in names if n in ("eval", "exec", "__import__")] == allowed.get(path.name, [])


def test_the_readme_names_only_flags_that_exist():
    from typer.main import get_command

    from momentum_bench.harness.cli.main import app

    command = get_command(app).commands["run"]  # type: ignore[attr-defined]
    known = {flag for parameter in command.params for flag in parameter.opts}
    readme = (ROOT / "README.md").read_text()
    shown = [line.split("#")[0] for line in readme.splitlines() if "momentum-bench run" in line]
    shown += [
        line.split("harness/run.py")[1] for line in readme.splitlines() if "launch harness/run.py" in line
    ]
    used = {word.strip("`,;") for line in shown for word in line.split() if word.startswith("--")}
    assert used
    assert used <= known | {"--help"}
