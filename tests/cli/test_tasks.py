"""`tasks show` and `tasks check` leave the network and the environment alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter
from datasets.splits import SplitDict, SplitInfo
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.execution import accelerator
from tests.conftest import sentiment_rows, write_rows


def fill_cache(cache: Path, repository: str, config: str, parts: dict[str, list[dict[str, Any]]]) -> None:
    """Leave a data set where the library leaves one that it has downloaded."""
    name = repository.rpartition("/")[2]
    folder = cache / repository.replace("/", "___") / config / "0.0.0" / ("a" * 40)
    folder.mkdir(parents=True)
    splits = SplitDict(dataset_name=name)
    features = datasets.Features()
    for part, rows in parts.items():
        features = datasets.Dataset.from_list(rows).features
        with ArrowWriter(path=str(folder / f"{name}-{part}.arrow"), features=features) as writer:
            for row in rows:
                writer.write(row)
            n_rows, n_bytes = writer.finalize()
        splits[part] = SplitInfo(part, n_bytes, n_rows, dataset_name=name)
    datasets.DatasetInfo(
        features=features,
        config_name=config,
        dataset_name=name,
        builder_name="parquet",
        version="0.0.0",
        splits=splits,
    ).write_to_directory(str(folder))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A process that may use the network, with a cache of its own; returns what it asked the hub for."""
    asked: list[str] = []

    def refuse(self: Any, repository: str, **_: Any) -> None:
        asked.append(repository)
        raise OSError("no network in tests")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return asked


def test_a_row_comes_from_the_cache_and_nothing_is_asked_of_the_hub(online: list[str], tmp_path: Path):
    parts = {"train": sentiment_rows(4), "validation": sentiment_rows(2)}
    fill_cache(tmp_path / "cache", "nyu-mll/glue", "sst2", parts)
    done = CliRunner().invoke(app, ["tasks", "show", "sst2"])
    assert done.exit_code == 0, done.output
    assert "first prompt     the film 0 was terrible It was [mask]." in done.stdout
    assert "4 train, 2 test" in done.stdout
    assert online == []


def test_without_a_cached_row_the_other_facts_are_shown(online: list[str]):
    done = CliRunner().invoke(app, ["tasks", "show", "sst2"])
    assert done.exit_code == 0
    assert "name             sst2" in done.stdout
    assert "no row is shown; give one with --data-dir DIR: sst2: the data set nyu-mll/glue" in done.stderr
    assert online == []


def test_a_check_is_on_the_cpu_and_says_so_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
):
    rows = sentiment_rows(64)
    write_rows(tmp_path / "sst2" / "train.jsonl", rows[:40])
    write_rows(tmp_path / "sst2" / "validation.jsonl", rows[40:])
    asked: list[bool] = []

    class Watched(accelerator.Accelerator):
        def __init__(self, **settings: Any):
            asked.append(settings["cpu"])
            super().__init__(**settings)

    monkeypatch.setattr(accelerator, "Accelerator", Watched)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    words = ["tasks", "check", "sst2", "--data-dir", str(tmp_path), "--model", str(tiny_model), "--k", "4"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert asked == [True]
    assert "ACCELERATE_USE_CPU" not in os.environ
