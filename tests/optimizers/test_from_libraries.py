"""Optimizers with a short name whose class a library brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.optimizers import find_optimizer as module
from momentum_bench.harness.optimizers.find_optimizer import find_optimizer
from momentum_bench.harness.optimizers.registry import FROM_LIBRARIES
from tests.helpers.command_line import run_command


@pytest.mark.parametrize("name", FROM_LIBRARIES)
def test_a_short_name_is_its_class_with_its_version(name: str):
    path = FROM_LIBRARIES[name]
    pytest.importorskip(path.partition(".")[0])
    full, entry = find_optimizer(name)
    assert (full, entry) == find_optimizer(path)
    assert full.startswith(f"{path}@")
    assert find_optimizer(full)[0] == full  # as records name it


def test_settings_follow_a_short_name():
    pytest.importorskip("pytorch_optimizer")
    full, _ = find_optimizer("lion:betas=0.95/0.98")
    assert full == find_optimizer("pytorch_optimizer.Lion:betas=0.95/0.98")[0]


def test_what_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"it is pytorch_optimizer\.Lion, and .*momentum-bench\[optimizers\]"):
        find_optimizer("lion")
    done = run_command("run", "--optimizers", "sgd,lion", "--output-dir", "nowhere", "--dry-run")
    assert done.returncode == 2


def test_a_file_of_the_same_name_counts(tmp_path: Path):
    file = tmp_path / "lion.py"
    file.write_text(
        "import torch\n"
        "from momentum_bench import OptimizerEntry\n"
        "def build(groups, rate, hyperparameters, seed):\n"
        "    return torch.optim.SGD(groups, lr=rate)\n"
        "OPTIMIZER = OptimizerEntry('mine', build)\n"
    )
    full, entry = find_optimizer("lion", (file,))
    assert full.startswith("lion@")
    assert entry.summary == "mine"


def test_the_list_has_them():
    listed = run_command("optimizers", "list", "-q").stdout.split()
    assert set(FROM_LIBRARIES) <= set(listed)
    near = run_command("run", "--optimizers", "sgd,lionn", "--dry-run")
    assert "Did you mean lion?" in " ".join(near.stderr.split())
