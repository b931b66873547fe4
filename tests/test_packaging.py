"""What is installed is one name, and nothing else that has our rooms' names can come between.

The packages are built from a copy of this checkout and installed into virtual environments of the tests' own.
Nothing is downloaded: dependencies are those of the environment that runs the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT, SOURCES, cli_environment, sentiment_rows, write_rows

ROOMS = ("harness", "tasks", "leaderboards")
DEPENDENCIES = Path(sysconfig.get_path("purelib"))

needs_pip = pytest.mark.skipif(find_spec("pip") is None, reason="this environment has no pip")


def environment(**changes: str) -> dict[str, str]:
    """No search path of the tests' own, and no package index."""
    kept = cli_environment(PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    return {name: value for name, value in kept.items() if name != "PYTHONPATH"} | changes


def done(*words: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """A command that must end well."""
    ended = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a source tree or an sdist, built by the setuptools that is here."""
    words = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source)
    done(sys.executable, *words, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def make_venv(folder: Path, *packages: Path) -> Path:
    """A virtual environment's Python: packages installed into it, dependencies from outside.

    Args:
        packages: wheels; and folders, which are installed as editable.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation")
    backend = folder / "backend"  # setuptools alone: pip must not see what else is installed there
    backend.mkdir()
    for path in (*DEPENDENCIES.glob("setuptools*"), *DEPENDENCIES.glob("_distutils_hack")):
        (backend / path.name).symlink_to(path)
    for package in packages:
        words = ["-e", package] if package.is_dir() else [package]
        done(*pip, *words, cwd=folder, PYTHONPATH=str(backend))
    (site / "zz_dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    return python


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout as git sees it, with its links: building writes into the tree."""
    words = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("packaging") / "checkout"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    done(sys.executable, "-c", code, cwd=checkout)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of somebody else's, whose top-level packages have the names of our rooms."""
    path = tmp_path_factory.mktemp("stranger") / "stranger-1.0-py3-none-any.whl"
    info = "stranger-1.0.dist-info"
    files = {
        **{f"{room}/__init__.py": f"raise RuntimeError('the {room} of a stranger')\n" for room in ROOMS},
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, stranger: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has our wheel and the stranger's."""
    return make_venv(tmp_path_factory.mktemp("venv") / "installed", stranger, wheel)


@pytest.fixture(scope="session")
def editable(checkout: Path, stranger: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has our checkout as an editable install, and the stranger's wheel."""
    return make_venv(tmp_path_factory.mktemp("venv") / "editable", stranger, checkout)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with data, a task file, and modules and folders that have the names of our rooms."""
    for name in (*ROOMS, "cli", "run", "src"):
        (tmp_path / "here" / name).mkdir(parents=True)
        (tmp_path / "here" / name / "__init__.py").write_text(
            f"raise RuntimeError('{name} of this folder')\n"
        )
        (tmp_path / "on_path").mkdir(exist_ok=True)
        (tmp_path / "on_path" / f"{name}.py").write_text(f"raise RuntimeError('{name} of PYTHONPATH')\n")
    for task in ("sst2", "praise"):
        write_rows(tmp_path / "here" / "data" / task / "train.jsonl", sentiment_rows(40))
        write_rows(tmp_path / "here" / "data" / task / "validation.jsonl", sentiment_rows(64)[40:])
    (tmp_path / "here" / "praise.py").write_text(TASK_FILE)
    return tmp_path / "here"


TASK_FILE = """
from momentum_bench import LocalOnly, Task

TASK = Task(
    name="praise",
    title="Praise or blame",
    source=LocalOnly(reason="a test"),
    test="validation",
    text=("sentence",),
    labels={0: "blame", 1: "praise"},
    template="{sentence} It was{mask}.",
    label_words=("terrible", "great"),
    licence="none",
    citation="none",
)
"""

OURS = "import momentum_bench; print(momentum_bench.__file__)"


@needs_pip
def test_the_wheel_holds_one_package_and_all_its_files(wheel: Path, checkout: Path):
    found = contents(wheel)
    tops = {name.split("/")[0] for name in found}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"momentum_bench"}
    expected = {
        f"momentum_bench/{path.relative_to(checkout)}"
        for room in ROOMS
        for path in (checkout / room).rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".csv") and "published" not in path.parts
    }
    expected |= {f"momentum_bench/{name}" for name in ("__init__.py", "__main__.py", "run.py", "py.typed")}
    assert {name for name in found if name.startswith("momentum_bench/")} == expected
    assert any(name.endswith(".html.j2") for name in expected)
    assert any(name.endswith("published.csv") for name in expected)
    for name in expected - {"momentum_bench/py.typed"}:
        room = name.removeprefix("momentum_bench/")
        source = checkout / room if (checkout / room).is_file() else checkout / "src" / name
        assert found[name] == source.read_bytes(), name


@needs_pip
def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path):
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert [member.name for member in members if not (member.isfile() or member.isdir())] == []  # no links
    names = {member.name.partition("/")[2] for member in members}
    assert names >= {"README.md", "LICENSE", "pyproject.toml"}
    assert contents(build_wheel(sdist, tmp_path)) == contents(wheel)


@needs_pip
def test_the_sdist_holds_all_that_git_holds(sdist: Path, checkout: Path):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    files = {
        str(path.relative_to(checkout))
        for path in checkout.rglob("*")
        if path.is_file() and not path.is_symlink() and "src" not in path.relative_to(checkout).parts
    }
    assert sorted(name for name in files - names if not made_by_building(name)) == []
    assert (
        sorted(name for name in names - files if not (made_by_building(name) or name.startswith("src/")))
        == []
    )


def made_by_building(name: str) -> bool:
    """Whether a file is one that building a package writes."""
    return name in ("PKG-INFO", "setup.cfg") or "build" in Path(name).parts or "__pycache__" in name


def test_the_lower_bounds_are_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / ".ci" / "constraints-oldest.txt").read_text().splitlines()
    tested = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    asked = [*project["dependencies"], *project["optional-dependencies"]["run"]]
    for requirement in (each for each in asked if "'darwin'" not in each or "!=" in each):
        name, bound = requirement.partition(";")[0].lower().replace("_", "-").split(">=")
        version = tested[name.strip()].split(".")
        assert version[: bound.count(".") + 1] == bound.split("."), requirement


@needs_pip
def test_the_metadata_says_who_what_and_where(wheel: Path):
    (metadata,) = [
        text.decode() for name, text in contents(wheel).items() if name.endswith("dist-info/METADATA")
    ]
    head = metadata.partition("\n\n")[0]
    for line in ("Author: The momentum-bench developers", "License-Expression: Apache-2.0", "Keywords: "):
        assert line in head
    assert "Project-URL" not in head  # until there is an address that is true


@needs_pip
@pytest.mark.slow
def test_an_editable_install_is_a_path_to_src(editable: Path, checkout: Path, hostile: Path):
    """Type checkers and editors follow a plain path; they do not run an import hook."""
    site = next((editable.parent.parent / "lib").glob("python*/site-packages"))
    (path,) = site.glob("__editable__*momentum_bench*.pth")
    assert path.read_text().strip() == str(checkout / "src")
    found = done(editable, "-c", OURS, cwd=hostile).stdout.strip()
    assert Path(found) == checkout / "src" / "momentum_bench" / "__init__.py"
    (hostile / "uses.py").write_text(
        "import momentum_bench as mb\n"
        "from momentum_bench.harness.records.schema import RunRecord\n"
        "records: list[RunRecord] = mb.load_results('results').records\n"
        "wrong: int = mb.load_results('results').records\n"
    )
    words = ("--no-incremental", "--follow-imports=silent", "--python-executable", editable)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, words), "uses.py"],
        cwd=hostile,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r"^uses\.py:(\d+): error", checked.stdout, re.MULTILINE) == ["4"], checked.stdout


def commands(python: Path, checkout: Path) -> dict[str, list[object]]:
    """Every way to start the program; each is followed by its words."""
    return {
        "command": [python.parent / "momentum-bench"],
        "package": [python, "-m", "momentum_bench"],
        "run": [python, "-m", "momentum_bench.run"],
        "script": [python, checkout / "harness" / "run.py"],
    }


@pytest.mark.parametrize("start", [["-m", "momentum_bench", "run"], ["-m", "momentum_bench.run"], ["script"]])
def test_no_folder_of_our_names_comes_between(start: list[str], hostile: Path):
    """Other `tasks`, `harness` and `leaderboards` in the current folder and on PYTHONPATH; see below."""
    words = [ROOT / "harness" / "run.py"] if start == ["script"] else start
    path = f"{hostile.parent / 'on_path'}{os.pathsep}{SOURCES}"
    shown = done(sys.executable, *words, "--help", cwd=hostile, PYTHONPATH=path)
    assert "--learning-rates" in shown.stdout


@needs_pip
@pytest.mark.slow
@pytest.mark.parametrize("way", ["installed", "editable"])
def test_no_other_package_of_our_names_comes_between(
    way: str, hostile: Path, checkout: Path, tiny_model: Path, request: pytest.FixtureRequest
):
    """Other `tasks`, `harness` and `leaderboards`: installed, in the current folder, and on PYTHONPATH."""
    python = request.getfixturevalue(way)
    path = str(hostile.parent / "on_path")
    for room in ROOMS:  # the stranger's packages are really there
        code = f"import importlib.util as u; print(u.find_spec({room!r}).origin)"
        assert "site-packages" in done(python, "-I", "-c", code, cwd=hostile).stdout
    sweep = ["--task", "sst2", "--data-dir", "data", "--model", tiny_model, "--k", "4", "--seeds", "13"]
    sweep += ["--max-steps", "4", "--eval-every", "2", "--learning-rates", "0.1", "--batch-size", "4"]
    own = ["--task-file", "praise.py", *sweep[2:]]
    for name, start in commands(python, checkout).items():
        whole = name in ("command", "package")
        if whole:
            assert "sst2\t" in done(*start, "tasks", "list", cwd=hostile, PYTHONPATH=path).stdout
        run = [*start, "run"] if whole else start
        shown = done(*run, "--dry-run", *sweep, cwd=hostile, PYTHONPATH=path)
        assert shown.stdout.count("missing") == 2, name
    shown = done(*run, "--dry-run", *own, cwd=hostile, PYTHONPATH=path)
    assert "praise" in shown.stdout
    # worker processes import the package, too
    done(python, "-m", "momentum_bench.run", "--runs-at-a-time", "2", *own, cwd=hostile, PYTHONPATH=path)
    assert "praise" in (hostile / "results" / "leaderboard.csv").read_text()


def test_the_version_is_stated_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["packages"]["find"] == {"where": ["src"], "namespaces": False}
