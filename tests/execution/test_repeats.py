"""Repetitions of one run: to the bit on a CPU, and seen where there is noise."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import pytest

from momentum_bench.harness.cli.noise_floor import lines
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import repeats, workers
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.files import read_record, write_record
from momentum_bench.harness.records.noise_floor import NoiseFloor, Spread, path_of
from momentum_bench.harness.records.store import LOCK, Store
from momentum_bench.leaderboards.build import build
from tests.helpers.command_line import run_command
from tests.helpers.runs import spec_for
from tests.helpers.specs import make_record, make_spec
from tests.helpers.sweeps import small_sweep


@pytest.mark.slow
def test_on_a_cpu_a_run_repeats_to_the_bit_with_any_number_of_workers(
    command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    words = ["--seeds", 13, "--learning-rates", 0.1, "--optimizers", "sgdm", "--output-dir", "r"]
    assert command_here("run", *small_sweep(tiny_model, toy_data, *words)).returncode == 0
    results = tmp_path / "r"
    (run,) = Store(results).records()
    forgotten = command_here("noise-floor", results)
    assert forgotten.returncode == 2
    assert "add --model DIR" in forgotten.stderr
    given = ["--model", tiny_model, "--data-dir", toy_data]
    done = command_here("noise-floor", results, *given, "--repeats", 2, "--runs-at-a-time", 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dev 0.00 points, test 0.00 points, parameters 0 (max abs), 1 different") == 2
    found = read_record(path_of(results, run.spec), NoiseFloor)
    assert found is not None
    assert run.test is not None
    for spread in (found.as_asked, found.deterministic):
        assert spread.test_metrics == (run.test.metric,) * 2
        assert (spread.n_distinct, spread.largest_parameter_difference) == (1, 0.0)
    assert (found.as_asked.deterministic, found.deterministic.deterministic) == (False, True)
    assert found.device == "cpu"
    again = command_here("noise-floor", results, *given, "--run", "no-such-run")
    assert again.returncode == 2
    assert "0 of the 1 done runs" in again.stderr


def test_noise_is_seen(tiny_model: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch):
    """Two different runs, taken for repetitions of one, have a spread."""

    class SameProcess:
        """Stands for the pool: each repetition starts with another seed, as if runs were noisy."""

        seed = 13

        def submit(self, repeat, spec, inputs, path):
            self.seed += 8
            future: Future = Future()
            future.set_result(repeat(spec.model_copy(update={"seed": self.seed}), inputs, path))
            return future

        def shutdown(self):
            pass

    monkeypatch.setattr(repeats, "new_pool", lambda *words: SameProcess())
    monkeypatch.setattr(workers, "_kept", None)
    inputs = Inputs(str(tiny_model), toy_data)
    spec = spec_for(workers.kept_session(inputs, "fp32"), learning_rate=0.3)
    spread, records = repeats.spread(spec, inputs, repeats=3, workers=1)
    assert spread.n_distinct == len(records) == 3
    assert spread.largest_parameter_difference > 0.01


def test_a_run_without_training_is_repeated(tiny_model: Path, toy_data: Path, tmp_path: Path):
    inputs = Inputs(str(tiny_model), toy_data)
    spec = spec_for(workers.kept_session(inputs, "fp32"), method="prompt", max_steps=0)
    record = repeats._repeat(spec, inputs, tmp_path / "0.safetensors")
    assert (record.status, record.best_step) == ("done", 0)
    assert (tmp_path / "0.safetensors").is_file()


def test_what_is_printed():
    noisy = Spread(
        deterministic=False,
        n_repeats=3,
        statuses=("done", "done", "diverged"),
        dev_metrics=(0.5, 0.51),
        test_metrics=(0.7, 0.725),
        n_distinct=2,
        largest_parameter_difference=0.25,
    )
    refused = Spread(deterministic=True, n_repeats=3, failure="RuntimeError: no deterministic cumsum")
    found = NoiseFloor(
        spec=make_spec(),
        metric="accuracy",
        device="cuda",
        as_asked=noisy,
        deterministic=refused,
        environment={},
    )
    text = "\n".join(lines(found))
    assert "dev 1.00 points, test 2.50 points, parameters 0.25 (max abs), 2 different result(s) of 3" in text
    assert "1 diverged" in text
    assert "cannot run: RuntimeError: no deterministic cumsum" in text


def test_the_leaderboard_says_the_noise_floor(tmp_path: Path):
    spread = {"n_repeats": 3, "statuses": ("done",) * 3, "n_distinct": 3}
    found = NoiseFloor(
        spec=make_spec(),
        metric="accuracy",
        device="cuda",
        as_asked=Spread(deterministic=False, test_metrics=(0.7, 0.725, 0.71), **spread),
        deterministic=Spread(deterministic=True, test_metrics=(0.7, 0.7, 0.7), **spread),
        environment={},
    )
    write_record(path_of(tmp_path, found.spec), found)
    (tmp_path / "noise_floor" / "torn.json").write_text('{"spec": ')
    Store(tmp_path).open()
    (note,) = build(Store(tmp_path)).notes
    assert "3 repetitions of one run (sst2 sgd lr 0.1 seed 13) on cuda differ by 2.50 points of test" in note
    assert "deterministic algorithms: 0.00" in note


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A results directory with one run."""
    store = Store(tmp_path / "r")
    store.open()
    store.write(make_record(model="package:m"))
    return store.output_dir


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was to be repeated; nothing is."""
    asked: list[object] = []
    monkeypatch.setattr(repeats, "spread", lambda *given: asked.append(given))
    return asked


def test_a_disk_that_is_read_only_is_found_before_the_repetitions(
    finished: Path, repeated: list[object], monkeypatch: pytest.MonkeyPatch
):
    @contextmanager
    def read_only(store: Store) -> Iterator[None]:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(store.output_dir / LOCK))
        yield

    monkeypatch.setattr(Store, "alone", read_only)
    done = run_command("noise-floor", finished, "--data-dir", finished)
    assert done.returncode == 2
    assert f"error: {finished / LOCK}: Read-only file system" in done.stderr
    assert repeated == []


def test_nonsense_for_accelerate_is_found_before_the_repetitions(finished: Path, repeated: list[object]):
    done = run_command("noise-floor", finished, "--data-dir", finished, ACCELERATE_USE_CPU="maybe")
    assert done.returncode == 2
    assert "error: the environment variable ACCELERATE_USE_CPU is 'maybe'" in done.stderr
    assert repeated == []


def test_a_repetition_whose_process_is_killed_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def submit(self, *_: object) -> Future:
            future: Future = Future()
            future.set_exception(BrokenProcessPool())
            return future

        def shutdown(self, cancel_futures: bool = False) -> None:
            pass

    monkeypatch.setattr(repeats, "new_pool", lambda *words: Broken())
    with pytest.raises(UserError, match=r"was killed.*--runs-at-a-time 1"):
        repeats.spread(make_spec(), Inputs("m", None), repeats=2, workers=2)
