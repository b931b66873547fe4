"""The plan of the house, checked: which room may import which, and which loads no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.main import get_command

from momentum_bench.harness.cli.main import app
from tests.conftest import ROOT, cli_environment

GROUND = "the ground"
"""The files of `harness/` itself, which any room may import."""

MAY_IMPORT: dict[str, set[str]] = {
    "tasks": set(),
    GROUND: set(),
    "records": set(),
    "metrics": set(),
    "verdicts": set(),
    "data": {"tasks", "records"},
    "optimizers": {"records"},
    "sweeps": {"data", "metrics", "optimizers", "records", "tasks", "verdicts"},
    "leaderboards": {"sweeps", "optimizers", "metrics", "records", "tasks", "verdicts"},
    "encoding": {"data", "tasks"},
    "models": {"encoding", "data", "records", "tasks"},
    "training": {"models", "encoding", "data", "metrics", "optimizers", "records", "tasks"},
}
"""The rooms that each room may import, next to its own files and the ground."""
MAY_IMPORT["execution"] = {"training", "sweeps", "verdicts", *MAY_IMPORT["training"]}
MAY_IMPORT["studies"] = {"execution", *MAY_IMPORT["execution"]}
MAY_IMPORT["api"] = {"studies", "leaderboards", *MAY_IMPORT["studies"]}
MAY_IMPORT["cli"] = {"api", *MAY_IMPORT["api"]}

WITH_TORCH = {"encoding", "models", "training", "execution", "studies", "api"}
WITHOUT_TORCH = sorted(set(MAY_IMPORT) - WITH_TORCH)
"""Rooms whose files load no torch when they are imported."""

ON_DEMAND = {
    "harness/device_errors.py",
    "harness/metrics/evaluate_bridge.py",
    "harness/optimizers/live.py",
    "harness/optimizers/partnered.py",
    "harness/optimizers/published.py",
    "harness/sharded_tensors.py",
}
"""Files of these rooms that do load torch, and are imported where it is needed."""

FILES = [
    path.relative_to(ROOT)
    for folder in ("harness", "tasks", "leaderboards")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def module_of(path: Path) -> str:
    """`harness/data/load.py` as `momentum_bench.harness.data.load`."""
    return ".".join(["momentum_bench", *path.with_suffix("").parts]).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}
FACE = ROOT / "src" / "momentum_bench"
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))


def room_of(module: str) -> str:
    """The room in which a module of ours lies."""
    top, *below = module.removeprefix("momentum_bench.").split(".")
    if top != "harness":
        return top
    return below[0] if below and (ROOT / "harness" / below[0]).is_dir() else GROUND


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside functions, by their full names."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


def ours(path: Path) -> set[str]:
    """Those of the imported modules that are ours."""
    return {name for name in imports(path) if name.split(".")[0] == "momentum_bench"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_room_imports_what_the_table_says(path: Path):
    if path == Path("harness/run.py"):
        assert ours(path) == {"momentum_bench.harness.cli.main"}  # the way in
        return
    room = room_of(module_of(path))
    for module in ours(path):
        assert module in MODULES, f"{module} is no module of the three rooms"
        assert room_of(module) in {room, GROUND, *MAY_IMPORT[room]}, f"{room} imports {module}"


def test_the_guide_shows_the_same_table():
    rows = re.findall(r"^\| (`.+?`) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    said: dict[str, set[str]] = {}
    for rooms, text in rows:
        names = set(re.findall(r"`(\w+)`", text))
        for room in re.findall(r"`(\w+)`", rooms):
            said[room] = names.union(*(MAY_IMPORT[name] for name in names if "what" in text))
    assert said.pop("cli") == {"cli"}  # everything
    assert said == {room: may for room, may in MAY_IMPORT.items() if room not in (GROUND, "cli")}


def test_no_module_imports_itself_by_way_of_others():
    reached: dict[str, set[str]] = {name: ours(path) & set(MODULES) for name, path in MODULES.items()}
    for _ in reached:  # as long as a chain can be
        before = {name: set(found) for name, found in reached.items()}
        for found in reached.values():
            found.update(*(before[module] for module in list(found)))
        if before == reached:
            break
    assert [name for name, found in reached.items() if name in found] == []


def test_a_file_in_the_wrong_room_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The test above can fail: a file of records that imports training does not pass it."""
    wrong = Path("harness/records/wrong.py")
    (tmp_path / wrong).parent.mkdir(parents=True)
    (tmp_path / wrong).write_text("def late():\n    import momentum_bench.harness.training.finetune\n")
    for room in ("records", "training"):
        (tmp_path / "harness" / room).mkdir(exist_ok=True)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    with pytest.raises(AssertionError, match=r"records imports momentum_bench\.harness\.training"):
        test_a_room_imports_what_the_table_says(wrong)


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_a_room_without_torch_loads_none(room: str):
    names = [
        name
        for name, path in MODULES.items()
        if room_of(name) == room and path.as_posix() not in ON_DEMAND and path.name != "run.py"
    ]
    assert names
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    found = [m for m in ('torch', 'transformers', 'datasets') if m in sys.modules]\n"
        "    assert not found, (name, found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=cli_environment(), check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_package_itself_loads_no_torch():
    """Nor what a task file or an optimizer file imports from it, so that such a file is read in no time."""
    code = (
        "import sys\n"
        "from momentum_bench import HubSource, ImageTask, LocalOnly, OptimizerEntry, Task, TextFolders\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=cli_environment(), check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_folder_is_a_room_of_the_table():
    rooms = {room_of(name) for name, path in MODULES.items() if path.name != "run.py"}
    assert rooms <= set(MAY_IMPORT)
    assert set().union(*MAY_IMPORT.values(), WITH_TORCH) <= set(MAY_IMPORT)


def test_tests_mirror_the_rooms():
    folders = {path.parts[1] for path in TESTS if len(path.parts) > 2}
    assert folders <= (set(MAY_IMPORT) - {GROUND}) | {"benchmarks", "docs", "helpers"}
    assert all(path.name.startswith("test_") for path in TESTS if is_a_test(path))


def is_a_test(path: Path) -> bool:
    return path.parts[1] != "helpers" and path.name not in ("conftest.py", "__init__.py")


def test_no_test_imports_another_test():
    """What several tests use is in `tests/helpers`. Code that a test gives to a process counts too."""
    imported = re.compile(r"(?:import|from)\s+tests\.(?:\w+\.)*test_\w+")
    assert {str(path): imported.findall((ROOT / path).read_text()) for path in TESTS} == {
        str(path): [] for path in TESTS
    }


WITHOUT_A_LIMIT = ("0", "None", "math.inf")


def test_tests_wait_for_events_and_not_for_seconds():
    """A machine may be many times slower than the one on which a limit was chosen."""
    limits = [
        f"{path}: {ast.unparse(node)}"
        for path in TESTS
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) in ("time.monotonic", "time.time", "time.perf_counter")
            or any(
                word.arg in ("timeout", "timeout_s") and ast.unparse(word.value) not in WITHOUT_A_LIMIT
                for word in node.keywords
            )
        )
    ]
    assert limits == []


def test_the_hooks_are_checks_of_ci():
    """What is committed with the hooks installed passes that part of `.ci/run`."""
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    checks = (ROOT / ".ci" / "run").read_text().replace('"$venv/bin/', "").replace('"', "")
    assert len(hooks) == 4
    assert set(hooks) <= set(checks.splitlines())


def test_every_room_has_a_door():
    """The docstring of a room's `__init__` says what it holds, what comes in and what goes out."""
    for folder in [path for path in (ROOT / "harness").iterdir() if any(path.glob("*.py"))]:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert len((text or "").split()) > 20, folder


def test_no_name_next_to_run_py_hides_another_module():
    """A script's own folder is on the search path until `run.py` takes it off, so its names must be free."""
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    names = {path.stem for path in (ROOT / "harness").iterdir() if path.suffix in ("", ".py")}
    assert len(names) > 10
    assert not (names - {"__init__", "__pycache__"}) & taken


def test_the_top_level_is_the_one_that_was_agreed():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.splitlines()}
    rooms = {"tasks", "harness", "leaderboards", "tests", "docs", "benchmarks", "src"}
    papers = {"README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff"}
    tools = {
        "pyproject.toml",
        "MANIFEST.in",
        "constraints.txt",
        ".ci",
        ".gitignore",
        ".pre-commit-config.yaml",
        "mkdocs.yml",
    }
    assert top <= rooms | papers | tools


def test_src_holds_the_face_and_links_to_the_rooms():
    """One name is installed; what it holds are the rooms where they are, so nothing can drift apart."""
    for room in ("harness", "tasks", "leaderboards"):
        assert (FACE / room).is_symlink()
        assert (FACE / room).resolve() == ROOT / room
    assert {path.name for path in FACE.iterdir()} - {"__pycache__"} == {
        *("harness", "tasks", "leaderboards"),
        *("__init__.py", "__main__.py", "run.py", "py.typed"),
    }


UNPICKLERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
COUNTS_CORES = "from joblib import cpu_count\n"
"""All that is taken from this package."""


def test_nothing_is_unpickled_and_no_code_runs_but_a_file_that_the_user_names():
    allowed = {Path("harness/user_code.py"): ["exec"]}  # --optimizer-file, --task-file
    for path in FILES:
        text = (ROOT / path).read_text()
        assert "torch.load" not in text
        counts_cores = {"joblib"} if text.count("joblib") == text.count(COUNTS_CORES) else set()
        assert not UNPICKLERS & {module.split(".")[0] for module in imports(path)} - counts_cores
        for name in ("load_state(", "save_state(", "np.load(", "read_pickle("):
            assert name not in text
        assert "trust_remote_code=True" not in text
        names = [
            node.func.id
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        assert [n for n in names if n in ("eval", "exec", "__import__")] == allowed.get(path, [])


def test_the_readme_names_only_flags_that_exist():
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
