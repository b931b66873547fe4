from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from momentum_bench.harness.optimizers.registry import OPTIMIZERS
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def roofline() -> Iterator[ModuleType]:
    yield from benchmark("roofline")


@pytest.fixture(scope="module")
def attention() -> Iterator[ModuleType]:
    yield from benchmark("attention")


@pytest.fixture(scope="module")
def label_words() -> Iterator[ModuleType]:
    yield from benchmark("label_words")


@pytest.fixture(scope="module")
def optimizer_steps() -> Iterator[ModuleType]:
    yield from benchmark("optimizer_steps")


def benchmark(name: str) -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield pytest.importorskip(name)
    sys.path.remove(str(ROOT / "benchmarks"))


def test_a_packed_step_is_counted_below_a_padded_one(roofline, tiny_model: Path):
    costs = roofline.step_costs(tiny_model, 2, [[5, 9], [7, 12]], 48)
    assert 0 < costs["flops_per_step"] < costs["flops_per_padded_step"] * 33 / 96
    assert costs["least_bytes_per_step"] > 0


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_each_way_to_compute_attention_is_held_against_float64(attention, dtype: str, error: float):
    found = attention.measured((3, 2, 9), getattr(torch, dtype), torch.device("cpu"), repeats=1)
    assert set(found) == {"one by one", "side by side"}
    assert all(0 < way["error"] < error for way in found.values())


def test_a_way_that_a_machine_refuses_has_the_reason(attention, monkeypatch: pytest.MonkeyPatch):
    def refuses(*_: object) -> torch.Tensor:
        raise RuntimeError("No available kernel. Aborting execution.\nmore")

    monkeypatch.setattr(attention, "ways", lambda *_: [("refuses", refuses)])
    found = attention.measured((3, 2, 9), torch.float32, torch.device("cpu"), repeats=1)
    assert found == {"refuses": {"refused": "No available kernel. Aborting execution."}}


def test_both_ways_to_read_label_words_are_timed(label_words, tiny_decoder: Path, toy_data: Path):
    settings = {"data_dir": toy_data, "model": str(tiny_decoder), "k": 4, "test_limit": 8, "rounds": 1}
    found = label_words.measure(Namespace(**settings), "sst2")
    assert set(found) == {"step", "row"}
    assert all(set(of) == {*label_words.WAYS, "times_faster"} for of in found.values())


def test_the_step_of_each_optimizer_is_timed_beside_sgd(optimizer_steps):
    found = optimizer_steps.measure("tiny", 1, torch.device("cpu"))
    assert set(found) == {*OPTIMIZERS, optimizer_steps.IN_SEVERAL_PASSES}
    assert all(of["times_sgd"] > 0 for of in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("script", ["padded_run.py", "dynamic_run.py", "trainer_run.py"])
def test_a_baseline_runs_and_reports(script: str, tiny_model: Path, tmp_path: Path):
    rows = [{"texts": [text], "label": i % 2} for i, text in enumerate(["a good film", "a bad plot"] * 4)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", tiny_model, "--data", tmp_path, "--output", tmp_path / "out", "--seed", 1]
    words += ["--learning-rate", 0.1, "--momentum", 0.9, "--steps", 2, "--eval-every", 1, "--batch-size", 4]
    command = [sys.executable, ROOT / "benchmarks" / script, *words, "--max-length", 32]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout.splitlines()[-1])) == {"dev", "test"}
