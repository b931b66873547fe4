"""`import momentum_bench as mb`: which names are there, and what importing them loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import momentum_bench as mb
from tests.conftest import ROOT, SOURCES, cli_environment

AGREED = {
    *("run", "Sweep", "SweepEvents", "UserError"),
    *("Results", "load_results", "Leaderboard", "leaderboard"),
    *("Task", "ImageTask", "HubSource", "LocalOnly", "TextFolders", "OptimizerEntry"),
    *("task_names", "get_task", "__version__"),
}


def python(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A Python of its own that can import this clone."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=cli_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_public_names_are_those_that_were_agreed():
    assert set(mb.__all__) == AGREED
    assert set(dir(mb)) >= AGREED
    for name in AGREED:
        assert getattr(mb, name) is not None


def test_type_checkers_see_every_public_name():
    tree = ast.parse((SOURCES / "momentum_bench" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == mb._HOME
    assert (SOURCES / "momentum_bench" / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        mb.runn  # noqa: B018


@pytest.mark.parametrize("name", sorted(AGREED))
def test_no_public_name_loads_torch(name: str):
    code = f"from momentum_bench import {name}; import sys; assert 'torch' not in sys.modules, 'torch'"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "imports",
    [
        "import momentum_bench.run",
        "import momentum_bench.run as module",
        "from momentum_bench import run; import momentum_bench.run",
        "import importlib; importlib.import_module('momentum_bench.run')",
        "import momentum_bench; momentum_bench.run; import momentum_bench.run",
        "import pkgutil, momentum_bench; "
        "[__import__(m.name) for m in pkgutil.iter_modules(momentum_bench.__path__, 'momentum_bench.')]",
    ],
)
def test_importing_the_module_run_leaves_the_function(imports: str):
    code = (
        f"{imports}\n"
        "import sys, types\n"
        "import momentum_bench as mb\n"
        "from momentum_bench import run\n"
        "assert isinstance(sys.modules['momentum_bench.run'], types.ModuleType)\n"
        "assert isinstance(mb.run, types.FunctionType), mb.run\n"
        "assert run is mb.run\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_type_checker_takes_run_for_the_function(tmp_path: Path):
    script = tmp_path / "uses.py"
    script.write_text(
        "import momentum_bench.run\n"
        "import momentum_bench as mb\n"
        "results: mb.Results = mb.run(mb.Sweep(task='sst2'), retry_failed=True)\n"
        "board: mb.Leaderboard = mb.leaderboard(results, 'results', margin=0.02)\n"
        "names: list[str] = mb.task_names()\n"
        "wrong: int = mb.run()\n"
    )
    done = python(
        *("-m", "mypy", "--no-incremental", "--follow-imports=silent", "--ignore-missing-imports"),
        str(script),
    )
    assert done.stdout.count("error") == 2, done.stdout  # the last line, and the count of errors
    assert "uses.py:6: error" in done.stdout
