"""What a person sees where the hub redirects, refuses, limits, breaks off or has lost something."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from momentum_bench.harness.hub_requests import LONGEST_WAIT
from momentum_bench.harness.records.store import Store
from momentum_bench.tasks import HubSource, get_task
from tests.conftest import cli_environment, sentiment_rows
from tests.helpers.clones import TOKEN, hub_environment
from tests.helpers.hub_of_downloads import DownloadHub, Repository, commit_of, serving

MODEL, DATA = "org/model", "SetFit/sst2"
CONVERTED = "refs/convert/parquet"
SOURCE = get_task("sst2").source_for("lm-bff")
assert isinstance(SOURCE, HubSource)
PINNED = SOURCE.revision
ROWS = {"train": slice(40), "validation": slice(40, 64)}

Done = subprocess.CompletedProcess[str]
Asking = Callable[..., Done]


def parquet(part: slice) -> bytes:
    """Rows as LM-BFF's copy of sst2 has them."""
    names, content = ("negative", "positive"), io.BytesIO()
    rows = [{"text": row["sentence"], "label_text": names[row["label"]]} for row in sentiment_rows(64)[part]]
    pd.DataFrame(rows).to_parquet(content)
    return content.getvalue()


@pytest.fixture
def hub(tiny_model: Path) -> DownloadHub:
    """A hub with a model, and with a data set whose pinned commit and converted branch are files."""
    model = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    rows = {f"data/{split}-00000-of-00001.parquet": parquet(part) for split, part in ROWS.items()}
    branches = {PINNED: rows, CONVERTED: rows, "script": {"sst2.py": b"raise SystemExit"}}
    return DownloadHub(
        {f"models/{MODEL}": Repository({"main": model}), f"datasets/{DATA}": Repository(branches)}
    )


@pytest.fixture
def asking(hub: DownloadHub, tmp_path: Path) -> Asking:
    """A command in a process of its own that may ask the hub, with a cache that its tests share."""

    def ask(*words: object, **environment: str) -> Done:
        with serving(hub) as address:
            changes = hub_environment(address, tmp_path / "home") | environment
            return subprocess.run(
                [sys.executable, "-m", "momentum_bench", *map(str, words)],
                env=cli_environment(**changes),
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )

    return ask


@pytest.fixture
def model(asking: Asking, toy_data: Path) -> Asking:
    """The command that finds a model, and trains nothing."""
    words = ["run", "--task", "sst2", "--data-dir", toy_data, "--method", "head", "--k", "4", "--dry-run"]
    return lambda name=MODEL, **environment: asking(*words, "--model", name, **environment)


@pytest.fixture
def data(asking: Asking, tmp_path: Path) -> Asking:
    """The command that writes a data set's rows."""
    words = [
        "tasks",
        "split",
        "sst2",
        "--k",
        "2",
        "--seeds",
        "13",
        "--format",
        "jsonl",
        "--out",
        tmp_path / "out",
    ]
    return lambda *more, **environment: asking(*words, *more, **environment)


def said(done: Done) -> str:
    """The error that ended a command, which has no traceback and no token."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr
    return done.stderr.partition("error: ")[2]


def cached(tmp_path: Path, suffix: str) -> list[str]:
    """The files in the hub's cache that a later run would take for whole."""
    return [path.name for path in (tmp_path / "home" / "hub").rglob(f"snapshots/**/*{suffix}")]


def test_an_old_name_is_redirected(hub: DownloadHub, model: Asking, data: Asking):
    hub.moved["models/old-name"] = f"models/{MODEL}"
    done = model("old-name")
    assert done.returncode == 0, done.stderr
    hub.repositories["datasets/new/sst2"] = hub.repositories.pop(f"datasets/{DATA}")
    hub.moved[f"datasets/{DATA}"] = "datasets/new/sst2"
    done = data()
    assert done.returncode == 0, done.stderr


def test_what_is_gated_says_where_to_accept_its_terms(hub: DownloadHub, model: Asking, data: Asking):
    for repository in hub.repositories.values():
        repository.is_gated = True
    for done, name in ((model(), MODEL), (data(), f"datasets/{DATA}")):
        message = said(done)
        assert "is gated: accept its terms at http" in message
        assert f"/{name}, then log in with `hf auth login` or HF_TOKEN" in message
        assert "Without network" not in message


def test_what_is_not_there_may_be_hidden(hub: DownloadHub, model: Asking, data: Asking):
    hub.repositories.clear()
    assert f"the hub has no model {MODEL}, or does not show it to you" in said(model())
    assert f"the hub has no data set {DATA}, or does not show it to you" in said(data())


@pytest.mark.parametrize("revision", ["v9", "a" * 40])
def test_a_revision_that_is_gone_is_named(revision: str, model: Asking, data: Asking):
    message = said(model(f"{MODEL}@{revision}"))
    assert f"the model {MODEL} has no revision {revision}, or has it no longer" in message
    assert f"ask for another one with --model {MODEL}@REVISION" in message
    message = said(data("--data-revision", revision))
    assert f"the data set {DATA} has no revision {revision}, or has it no longer" in message
    assert "ask for another one with --data-revision REVISION" in message


def test_a_script_is_not_run_and_its_converted_rows_are_found(data: Asking, tmp_path: Path):
    message = said(data("--data-revision", "script"))
    assert "is a script at this revision, and no such script is run" in message
    assert f"files at --data-revision {CONVERTED}" in message
    done = data("--data-revision", CONVERTED)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out" / "sst2" / "2-13" / "train.jsonl").read_text().splitlines()) == 4


def test_a_busy_hub_is_asked_again(hub: DownloadHub, model: Asking, data: Asking):
    for ask in (model, data):
        hub.n_limited = 2
        done = ask()
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("the hub is busy (status 429): asking again in 0 s") == 2
    hub.n_limited = 10**6
    message = said(model("org/other"))
    assert "the hub takes no more requests for now (status 429): type the same command later" in message


def test_a_download_that_breaks_off_goes_on(hub: DownloadHub, model: Asking, tmp_path: Path):
    hub.dropped["model.safetensors"] = 1
    assert model().returncode == 0
    assert cached(tmp_path, ".safetensors") == ["model.safetensors"]


@pytest.mark.slow
def test_nothing_half_is_left_in_the_cache(hub: DownloadHub, model: Asking, data: Asking, tmp_path: Path):
    path = "data/train-00000-of-00001.parquet"
    hub.dropped |= {"model.safetensors": 10**6, path: 10**6}
    for done in (model(), data()):
        message = said(done)
        assert "the connection broke in the middle of a file, also when it was tried again" in message
        assert "type the same command to go on" in message
    assert cached(tmp_path, ".safetensors") == []
    assert cached(tmp_path, ".parquet") == []
    # without the hub the half is not taken for the whole either
    assert "cannot be had from the hub" in said(model(HF_HUB_OFFLINE="1"))
    assert "cannot be had from the hub" in said(data(HF_HUB_OFFLINE="1"))
    hub.dropped.clear()
    for done in (model(), data()):
        assert done.returncode == 0, done.stderr


def test_a_hub_that_asks_for_a_long_wait_is_not_waited_for(hub: DownloadHub, model: Asking):
    hub.n_limited, hub.asks_to_wait = 1, LONGEST_WAIT + 1
    assert f"type the same command in {LONGEST_WAIT + 1} s" in said(model())
    assert len(hub.requests) == 1


def test_the_pin_is_the_commit_that_is_read(hub: DownloadHub, data: Asking):
    assert data().returncode == 0
    assert any(PINNED in request for request in hub.requests)
    assert not any(commit_of("main") in request for request in hub.requests)


def test_what_a_dry_run_fetched_is_enough_without_a_network(hub: DownloadHub, asking: Asking, tmp_path: Path):
    """As on a cluster whose compute nodes have no network: the node with one fetches, the other runs."""
    words = ["run", "--task", "sst2", "--protocol", "lm-bff", "--model", MODEL, "--method", "head"]
    words += ["--k", "4", "--max-steps", "1", "--eval-every", "1", "--output-dir", "results"]
    words += ["--seeds", "13", "--optimizers", "sgd", "--learning-rates", "0.1"]
    fetched = asking(*words, "--dry-run")
    assert fetched.returncode == 0, fetched.stderr
    n_requests = len(hub.requests)
    done = asking(*words, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert len(hub.requests) == n_requests
    [record] = Store(tmp_path / "results").records()
    assert record.spec.model_revision == commit_of("main")
    assert record.status == "done"
