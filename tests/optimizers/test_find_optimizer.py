"""Optimizers from a user's file or an installed package, and how they enter a sweep's specs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers.entry import OptimizerEntry
from momentum_bench.harness.optimizers.find_optimizer import (
    ENTRY_POINTS,
    _offers_from_outside,
    find_optimizer,
)
from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from momentum_bench.harness.sweeps.grids import grid, hyperparameters, rates
from momentum_bench.harness.sweeps.make import make_sweep
from momentum_bench.harness.user_code import offered
from tests.conftest import SOURCES, cli_environment

SOURCE = """
from momentum_bench import OptimizerEntry

def build(groups, rate, hyperparameters, seed):
    import torch
    return torch.optim.SGD(groups, lr=rate)

OPTIMIZER = OptimizerEntry("x <- x - eta g", build, constants={"threshold": 0.5})
"""


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    _offers_from_outside.cache_clear()
    yield
    _offers_from_outside.cache_clear()
    offered.cache_clear()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_a_file_is_known_by_its_stem_and_its_content(mine: Path) -> None:
    full_name, entry = find_optimizer("mine", (mine,))
    version = hashlib.sha256(mine.read_bytes()).hexdigest()[:12]
    assert full_name == f"mine@{version}"
    assert entry.constants == {"threshold": 0.5}
    assert find_optimizer(full_name, (mine,)) == (full_name, entry)
    assert not list(mine.parent.glob("__pycache__"))

    _offers_from_outside.cache_clear()
    mine.write_text(SOURCE.replace("0.5", "0.6"))
    with pytest.raises(UserError, match="it changed"):
        find_optimizer(full_name, (mine,))
    assert find_optimizer("mine", (mine,))[0] != full_name


def test_a_sweep_takes_it(mine: Path) -> None:
    sweep = make_sweep({"task": "sst2", "optimizers": "sgd,mine", "optimizer_file": mine}, None)
    assert sweep.optimizers == ("sgd", find_optimizer("mine", (mine,))[0])
    assert hyperparameters(sweep, sweep.optimizers[1]) == {"threshold": 0.5}
    assert rates(sweep, "sst2", sweep.optimizers[1]) == rates(sweep, "sst2", "sgd")


def test_finding_optimizers_loads_no_torch(mine: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from momentum_bench.harness.sweeps.make import make_sweep;"
        f"make_sweep({{'optimizers': 'adamw,mine', 'optimizer_file': Path({str(mine)!r})}}, None);"
        "assert 'torch' not in sys.modules"
    )
    environment = cli_environment(PYTHONPATH=str(SOURCES))
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("mine.py", "OPTIMIZER = 3", "expected OPTIMIZER, .* found int"),
        ("mine.py", "optimizer = 3", "expected OPTIMIZER, .* found NoneType"),
        ("mine.py", "\n\n1 / 0", "cannot be loaded: line 3: ZeroDivisionError"),
        ("mine.py", "def build(:", "SyntaxError"),
        ("mine.py", "import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("mine.txt", SOURCE, "end in .py"),
        ("my-own.py", SOURCE, "letters, digits and underscores"),
        ("sgdm.py", SOURCE, "taken more than once, by momentum-bench itself and by --optimizer-file"),
    ],
)
def test_broken_files_are_told_apart(tmp_path: Path, name: str, source: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(source)
    with pytest.raises(UserError, match=message):
        find_optimizer(path.stem, (path,))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ('torch_rate=lambda h: h["momentum"]', "its entry raises KeyError: 'momentum'"),
        ("torch_rate=lambda h: 0.0", "give .0.0, 1.0, 1.0. for rates 1 and 1"),
        ("schedule=lambda rates, h: [1.0]", "give .1.0, 1.0. for rates 1 and 1"),
        ('constants={"sign": "yes"}', "its entry raises ValueError: could not convert string to float"),
    ],
)
def test_entries_whose_functions_are_broken(mine: Path, argument: str, message: str) -> None:
    mine.write_text(SOURCE.replace('constants={"threshold": 0.5}', argument))
    with pytest.raises(UserError, match=message):
        make_sweep({"optimizers": "mine", "optimizer_file": mine}, None)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.py: No such file"):
        find_optimizer("nowhere", (tmp_path / "nowhere.py",))


def test_a_file_that_the_sweep_would_ignore(mine: Path) -> None:
    with pytest.raises(UserError, match="leaves out mine"):
        make_sweep({"task": "sst2", "optimizers": "sgd,sgdm", "optimizer_file": mine}, None)


def test_files_alone_name_the_optimizers(mine: Path) -> None:
    other = mine.with_name("other.py")
    other.write_text(SOURCE)
    sweep = make_sweep({"task": "sst2", "optimizer_file": mine}, None)
    assert [name.partition("@")[0] for name in sweep.optimizers] == ["mine"]
    sweep = make_sweep({"task": "sst2", "optimizer_file": [str(mine), str(other)]}, None)
    assert [name.partition("@")[0] for name in sweep.optimizers] == ["mine", "other"]


def test_unknown_names_and_repeats(mine: Path) -> None:
    with pytest.raises(UserError, match=r"unknown optimizer 'nestrov'\. Did you mean nesterov"):
        make_sweep({"optimizers": "sgd,nestrov"}, None)
    full = find_optimizer("mine", (mine,))[0]
    with pytest.raises(UserError, match="more than once"):
        make_sweep({"optimizers": f"mine,{full}", "optimizer_file": mine}, None)


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package of version 1.2 with entry points, `name="module:attribute"`, on the path."""

    def put(package: str, **points: str) -> None:
        folder = tmp_path / package
        info = folder / f"{package}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{lines}")
        (folder / f"{package}_code.py").write_text(SOURCE)
        monkeypatch.syspath_prepend(folder)
        offered.cache_clear()

    return put


def test_an_entry_point_is_known_by_its_package_version(install: Install) -> None:
    install("leo", lion="leo_code:OPTIMIZER")
    full_name, entry = find_optimizer("lion")
    assert full_name == "lion@1.2"
    assert entry.constants == {"threshold": 0.5}
    assert make_sweep({"optimizers": "lion"}, None).optimizers == ("lion@1.2",)
    with pytest.raises(UserError, match=r"lion@1.1 was asked for.* now holds lion@1.2"):
        find_optimizer("lion@1.1")
    with pytest.raises(UserError, match="Did you mean lion"):
        find_optimizer("lino")


def test_names_that_collide(install: Install, mine: Path) -> None:
    install("one", sgdm="one_code:OPTIMIZER", lion="one_code:OPTIMIZER", mine="one_code:OPTIMIZER")
    install("two", lion="two_code:OPTIMIZER")
    with pytest.raises(UserError, match="by momentum-bench itself and by the package one"):
        find_optimizer("sgdm")
    with pytest.raises(UserError, match="by the package two and by the package one"):
        find_optimizer("lion")
    with pytest.raises(UserError, match=r"by --optimizer-file .* and by the package one"):
        find_optimizer("mine", (mine,))
    assert find_optimizer("sgd")[0] == "sgd"


def test_broken_entry_points(install: Install) -> None:
    install("three", lion="three_code:build", puma="three_code:missing", lynx="no_such_module:OPTIMIZER")
    with pytest.raises(UserError, match=r"the package three: expected .*OptimizerEntry; found function"):
        find_optimizer("lion")
    with pytest.raises(UserError, match=r"the package three cannot be loaded: AttributeError"):
        find_optimizer("puma")
    with pytest.raises(UserError, match=r"the package three cannot be loaded: ModuleNotFoundError"):
        find_optimizer("lynx")


# -- hyperparameters and grids of the built-in ones -------------------------------------------------


def test_constants_are_in_the_spec_and_momentum_comes_from_the_sweep() -> None:
    sweep = make_sweep({"optimizers": ",".join(OPTIMIZERS), "momentum": 0.95}, None)
    assert hyperparameters(sweep, "sgd") == {}
    assert hyperparameters(sweep, "sgd_matched") == {"momentum": 0.95}
    assert hyperparameters(sweep, "qhm") == {"momentum": 0.95, "nu": 0.7}
    assert hyperparameters(sweep, "adamw") == {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def test_default_grids() -> None:
    sweep = make_sweep({"task": "sst2", "optimizers": ",".join(OPTIMIZERS)}, None)
    shared = {name for name in OPTIMIZERS if grid(sweep, "sst2", name) == grid(sweep, "sst2", "sgd")}
    assert shared >= {name for name, entry in OPTIMIZERS.items() if not entry.own_rate}
    assert all(len(grid(sweep, "sst2", name)) == 6 for name in OPTIMIZERS)
    # a task's hint is on the effective axis, so it says nothing to adamw
    hinted = make_sweep({"task": "bbc_news", "method": "head", "optimizers": "sgd,nesterov,adamw"}, None)
    assert grid(hinted, "bbc_news", "nesterov") == grid(hinted, "bbc_news", "sgd")
    assert grid(hinted, "bbc_news", "adamw") == OPTIMIZERS["adamw"].default_rates["head"]


def test_torch_axis() -> None:
    flags = {"task": "sst2", "learning_rate_axis": "torch", "learning_rates": [0.001, 0.01]}
    sweep = make_sweep(flags | {"optimizers": "sgd,nesterov,random_scaling,adamw"}, None)
    assert rates(sweep, "sst2", "nesterov") == (0.01, 0.1)
    assert rates(sweep, "sst2", "random_scaling") == (0.009, 0.09)
    assert rates(sweep, "sst2", "adamw") == rates(sweep, "sst2", "sgd") == (0.001, 0.01)


def test_random_scaling_without_momentum_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="--momentum above 0"):
        make_sweep({"optimizers": "random_scaling", "momentum": 0}, None)


def test_entries_of_users_are_checked_as_they_are_made() -> None:
    with pytest.raises(ValueError, match="a sweep sets only"):
        OptimizerEntry("x", OPTIMIZERS["sgd"].build, hyperparameters=("nu",))
