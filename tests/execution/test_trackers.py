"""Trackers are told of finished runs, of nothing else, and can do no harm."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution.trackers import track
from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.sweeps.make import make_sweep
from tests.helpers.specs import make_record
from tests.helpers.sweeps import small_sweep


class Memory(GeneralTracker):
    """A tracker that remembers."""

    name = "memory"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict]] = []
        self.ended = False

    @property
    def tracker(self) -> Memory:
        return self

    def store_init_configuration(self, values: dict) -> None:
        self.settings = values

    def log(self, values: dict, step: int, **_: Any) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture
def record() -> RunRecord:
    return make_record(dev=0.75, test=0.5, optimizer="sgdm")


def test_a_tracker_is_told_what_the_record_says(record: RunRecord, tmp_path: Path):
    memory = Memory()
    track(record, memory, tmp_path)
    assert memory.settings["optimizer"] == "sgdm"
    assert memory.settings["momentum"] == 0.9
    assert memory.settings["run_id"] == record.spec.run_id
    assert "dropout" not in memory.settings  # None in this spec
    assert [step for step, _ in memory.logged] == [record.best_step] * 2
    assert memory.logged[0][1]["dev_metric"] == 0.75
    assert memory.logged[1][1] == {"test_metric": 0.5}
    assert memory.ended


def test_a_tracker_that_fails_harms_no_run(
    record: RunRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    class Broken(Memory):
        def log(self, values: dict, step: int, **_: Any) -> None:
            raise ConnectionError("the service is away")

    track(record, Broken(), tmp_path)
    assert (
        "--log-with failed, the run is kept: ConnectionError: the service is away" in capsys.readouterr().err
    )


class Terminal(io.StringIO):
    """Standard input of a person who would answer."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("asks", [input, lambda: sys.exit("no login")], ids=["asks", "exits"])
def test_a_tracker_asks_nobody(
    record: RunRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asks: Callable[[], object],
):
    seen = []

    class Asking(Memory):
        def store_init_configuration(self, values: dict) -> None:
            seen.append(sys.stdin.isatty())
            asks()

    monkeypatch.setattr(sys, "stdin", Terminal("a key\n"))
    track(record, Asking(), tmp_path)
    assert seen == [False]
    assert "--log-with failed, the run is kept" in capsys.readouterr().err
    assert sys.stdin.isatty()  # as it was


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("momentum_bench.harness.sweeps.request.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--log-with: wandb is not installed: pip install wandb"):
        make_sweep({"log_with": "wandb"}, None)
    with pytest.raises(UserError, match="--log-with"):
        make_sweep({"log_with": "notebook"}, None)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_shows_the_runs(command_here, tiny_model: Path, toy_data: Path, tmp_path: Path):
    words = ["--seeds", 13, "--learning-rates", 0.1, "--optimizers", "sgdm", "--log-with", "tensorboard"]
    secrets = {"HF_TOKEN": "hf_planted", "WANDB_API_KEY": "wandb_planted"}
    done = command_here("run", *small_sweep(tiny_model, toy_data, *words), "--output-dir", "r", **secrets)
    assert done.returncode == 0, done.stderr
    (run,) = Store(tmp_path / "r").records()
    files = [path for path in (tmp_path / "r" / "trackers").rglob("*") if path.is_file()]
    assert files
    assert not any(b"_planted" in path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file())
    shown = EventAccumulator(str(tmp_path / "r" / "trackers" / run.spec.run_id / "momentum-bench"))
    shown.Reload()
    values = [(event.step, event.value) for event in shown.Scalars("dev_metric")]
    assert values == [(e.step, pytest.approx(e.dev_metric)) for e in run.evaluations]
