"""The benchmarks that compare selections and count memory, on a tiny model; nothing is timed here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from momentum_bench.harness.records.schema import Evaluation, RunRecord
from tests.conftest import ROOT
from tests.helpers.specs import make_record


@pytest.fixture(scope="module")
def scripts() -> Iterator[argparse.Namespace]:
    """The two scripts as modules."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import equal_selections
    import memory

    yield argparse.Namespace(selections=equal_selections, memory=memory)
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture
def result_of(monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., dict[str, Any]]:
    """The JSON line that a script prints."""

    def call(script: Any, *words: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [script.__file__, *map(str, words)])
        script.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


# -- selections ---------------------------------------------------------------------------------


def run_of(rate: float, dev: list[tuple[float, float]], **changes: Any) -> RunRecord:
    """A run that was scored on dev at steps 3 and 6, its metrics and losses given."""
    record = make_record(learning_rate=rate, **changes)
    evaluations = tuple(
        Evaluation(step=step, learning_rate=rate, train_loss=0.5, dev_metric=metric, dev_loss=loss)
        for step, (metric, loss) in zip((3, 6), dev, strict=True)
    )
    best = min(evaluations, key=lambda e: (-e.dev_metric, e.dev_loss, e.step))
    return record.model_copy(update={"evaluations": evaluations, "best_step": best.step})


WORSE = [(0.5, 0.9), (0.5, 0.8)]


def test_equal_grids_differ_in_nothing(scripts):
    runs = [run_of(0.01, WORSE), run_of(0.1, [(0.75, 0.6), (0.75, 0.5)])]
    found = scripts.selections.compare(runs, runs)
    assert (found["runs"], found["selections"], found["equal_selections"]) == (2, 1, 1.0)
    assert found["differing_selections"] == []
    assert found["runs_of_equal_predictions"] == found["equal_predictions"] == 1.0
    assert found["largest_dev_loss_difference"] == {"0.01": 0.0, "0.1": 0.0}


def test_a_tie_on_dev_that_rounding_breaks_is_told(scripts):
    default = [run_of(0.01, WORSE), run_of(0.1, [(0.75, 0.5), (0.75, 0.5 + 1e-7)])]
    plain = [run_of(0.01, WORSE), run_of(0.1, [(0.75, 0.5), (0.75, 0.5 - 1e-7)])]
    same = [run_of(rate, WORSE, seed=21) for rate in (0.01, 0.1)]
    found = scripts.selections.compare(default + same, plain + same)
    assert (found["selections"], found["equal_selections"]) == (2, 0.5)
    (told,) = found["differing_selections"]
    assert (told["optimizer"], told["seed"], told["reason"]) == ("sgd", 13, "dev tie")
    assert told["chosen_by_default"] == {
        "learning_rate": 0.1,
        "step": 3,
        "dev_metric": {"default": 0.75, "padded": 0.75},
        "dev_loss": {"default": 0.5, "padded": 0.5},
    }
    assert told["chosen_by_padded"]["step"] == 6
    assert told["chosen_by_padded"]["dev_loss"] == {"default": 0.5 + 1e-7, "padded": 0.5 - 1e-7}
    assert found["largest_dev_loss_difference"]["0.1"] == pytest.approx(2e-7)


def test_another_rate_is_told_with_its_margin_and_its_predictions(scripts):
    default = [run_of(0.01, WORSE, test=0.5), run_of(0.1, [(0.5, 0.9), (0.75, 0.7)], test=0.7)]
    plain = [run_of(0.01, WORSE, test=0.5), run_of(0.1, [(0.5, 0.9), (0.25, 0.7)], test=0.6)]
    found = scripts.selections.compare(default, plain)
    assert found["equal_selections"] == 0.0
    (told,) = found["differing_selections"]
    assert told["reason"] == "margin"
    assert (told["chosen_by_default"]["learning_rate"], told["chosen_by_padded"]["learning_rate"]) == (
        0.1,
        0.01,
    )
    assert told["chosen_by_default"]["dev_metric"] == {"default": 0.75, "padded": 0.25}
    assert told["chosen_by_padded"]["dev_metric"] == {"default": 0.5, "padded": 0.5}
    assert found["runs_of_equal_predictions"] == 0.5
    assert found["equal_predictions"] == pytest.approx(190 / 200)


def test_an_arm_that_diverged_in_one_layout_is_no_equal_choice(scripts):
    done = run_of(0.1, WORSE)
    diverged = done.model_copy(
        update={"status": "diverged", "evaluations": (), "best_step": None, "test": None}
    )
    found = scripts.selections.compare([done], [diverged])
    assert found["diverged_runs"] == {"default": 0, "padded": 1}
    assert (found["selections"], found["equal_selections"], found["equal_predictions"]) == (1, 0.0, 0.0)
    (told,) = found["differing_selections"]
    assert (told["reason"], told["chosen_by_padded"]) == ("diverged", None)
    assert scripts.selections.compare([diverged], [diverged])["equal_selections"] is None


@pytest.mark.slow
def test_a_grid_selects_the_same_by_default_and_padded(
    scripts, result_of, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = ["--task", "sst2", "--data-dir", toy_data, "--model", tiny_model, "--k", 4, "--seeds", 13]
    words += ["--rates", "1e-2,1e-1", "--steps", 6, "--eval-every", 3, "--output", tmp_path / "line.json"]
    found = result_of(scripts.selections, *words)
    assert json.loads((tmp_path / "line.json").read_text()) == found
    assert [layout["padding"] for layout in found["layouts"]["default"]] == ["none"]
    assert [layout["padding"] for layout in found["layouts"]["padded"]] == ["dynamic"]
    assert (found["runs"], found["selections"], found["equal_selections"]) == (4, 2, 1.0)
    assert found["diverged_runs"] == {"default": 0, "padded": 0}
    assert found["equal_predictions"] == 1.0
    assert set(found["largest_dev_loss_difference"]) == {"0.01", "0.1"}
    first = found["first_steps"]
    assert set(first["largest_loss_difference"]) == {"sgd 0.001", "sgd 0.01", "sgdm 0.001", "sgdm 0.01"}
    assert first["is_within"]
    # were both layouts one, not a single rounding would differ
    assert max(first["largest_loss_difference"].values()) > 0


# -- memory -------------------------------------------------------------------------------------


def test_peaks_are_of_each_step_and_of_what_was_live_before_it(scripts):
    def change(ts: float, size: int) -> dict[str, Any]:
        return {"name": "[memory]", "ts": ts, "args": {"Bytes": size}}

    def step(ts: float) -> dict[str, Any]:
        return {"name": "Optimizer.step#SGD.step", "ts": ts, "dur": 1.0}

    other = {"name": "aten::mm", "ts": 0.0, "dur": 9.0}
    # out of order, as the profiler may write them
    trace = [step(3.0), change(1.0, 50), change(2.0, -30), step(8.0), other, change(7.5, -10)]
    trace += [change(5.0, 5), change(6.0, 7), change(9.0, 1000)]
    assert scripts.memory.peaks_of_steps(trace, live=100) == [150, 132]


@pytest.fixture
def asked(toy_data: Path) -> argparse.Namespace:
    return argparse.Namespace(task="sst2", data_dir=toy_data, k=4, steps=3, batch_size=4, precision="fp32")


def test_what_a_step_allocates_besides_raises_its_peak(scripts, asked, tiny_model: Path):
    def allocate(*_: object) -> None:
        torch.zeros(10**7, dtype=torch.uint8)

    plain = scripts.memory.measure(asked, str(tiny_model))["bytes"]["sgd"]
    hook = register_optimizer_step_pre_hook(allocate)
    try:
        more = scripts.memory.measure(asked, str(tiny_model))["bytes"]["sgd"]
    finally:
        hook.remove()
    for part in ("parameters", "gradients", "state"):
        assert more[part] == plain[part]
    assert more["peak"] >= plain["parameters"] + plain["gradients"] + 10**7
    assert plain["ratio"] <= 1.2 < more["ratio"]


def test_a_step_needs_little_more_than_its_parts(
    scripts, result_of, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = ["--task", "sst2", "--data-dir", toy_data, "--model", tiny_model, "--k", 4, "--steps", 3]
    found = result_of(scripts.memory, *words, "--batch-size", 4, "--output", tmp_path / "line.json")
    assert json.loads((tmp_path / "line.json").read_text()) == found
    assert found["device"] == "cpu"
    sgd, sgdm = found["bytes"]["sgd"], found["bytes"]["sgdm"]
    assert sgd["state"] == 0
    assert sgdm["state"] == sgdm["parameters"] == sgd["parameters"] > 0
    for of in (sgd, sgdm):
        parts = of["parameters"] + of["gradients"] + of["state"]
        assert of["gradients"] > 0
        assert of["activations"] > 0
        assert of["peak"] >= parts
        assert of["ratio"] == pytest.approx(of["peak"] / (parts + of["activations"]), abs=1e-4)
        assert of["ratio"] <= 1.2
