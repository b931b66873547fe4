"""Runs on a real Ray cluster of node processes on this machine."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.execution import ray_cluster
from momentum_bench.harness.execution.ray_cluster import _needs, _places, connected
from momentum_bench.harness.sweeps.launcher_rules import check_launcher
from momentum_bench.harness.sweeps.make import make_sweep
from tests.conftest import ROOT, cli_environment
from tests.helpers.processes import plant_in_each_step, wait_until
from tests.helpers.specs import make_spec
from tests.helpers.sweeps import records, small_sweep, table


def until_it_is_there(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's search for a node that starts, without its limit of 30 seconds."""

    def call(*words: object) -> Any:
        while True:
            with suppress(RuntimeError):
                return get_node(*words)
            time.sleep(0.1)

    return call


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ray's own test cluster: a head node of one processor; more nodes can be added and killed."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1800")
    utilities = pytest.importorskip("ray.cluster_utils", reason="the cluster extra is not installed")
    services = pytest.importorskip("ray._private.services")
    monkeypatch.setattr(services, "get_node", until_it_is_there(services.get_node))
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: sockets lie in it
    # where Ray notes the address of the newest cluster, whatever folder that has: it must be there
    monkeypatch.setenv("RAY_TMPDIR", folder)
    Path(folder, "ray").mkdir()
    config = {
        # A node that died refuses connections, so it is missed after 2 seconds and not after 20.
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
        # A node that is slow to answer, or to start a process, is not dead.
        "health_check_timeout_ms": 600_000,
        "worker_register_timeout_seconds": 600,
        "agent_register_timeout_ms": 600_000,
        "worker_niceness": 0,  # Ray's 15 gives runs almost nothing of a machine that others load
    }
    head = {
        "num_cpus": 1,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
        "temp_dir": folder,
        "_system_config": config,
        "wait": False,  # below, without Ray's limit of 30 seconds
    }
    nodes = utilities.Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes.wait_for_nodes(timeout=math.inf)
        yield nodes
    finally:
        nodes.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def is_running_runs(node: Any) -> bool:
    """Whether a worker process of that node is at a group of runs, by the name that Ray gives it."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    names = []
    for child in raylet.children(recursive=True):
        try:
            names.append(" ".join(child.cmdline()))
        except psutil.Error:
            continue
    return any(name.startswith("ray::_run_group") for name in names)


@pytest.mark.slow
def test_a_sweep_survives_the_death_of_a_node(
    command_here, cluster: Any, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, wait=False)
    cluster.wait_for_nodes(timeout=math.inf)
    stays = tmp_path / "stays"
    stays.touch()
    # The first run ends. Each run that is at work then, or begins later, stays at its step.
    environment = plant_in_each_step(
        tmp_path,
        f"folder = Path({str(tmp_path)!r})\n"  # a node's processes start elsewhere
        "while (folder / 'stays').exists() and list(folder.glob('ray/runs/*/record.json')):\n"
        "    time.sleep(0.05)",
    )
    words = small_sweep(tiny_model, toy_data, "--learning-rates", "1e-2,3e-2,1e-1,3e-1")
    del words[words.index("--runs-at-a-time") : words.index("--runs-at-a-time") + 2]
    command = [sys.executable, str(ROOT / "harness" / "run.py"), *map(str, words), "--output-dir", "ray"]
    sweep = subprocess.Popen(
        [*command, "--executor", "ray", "--ray-address", cluster.address],
        cwd=tmp_path,
        env=cli_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: records(tmp_path / "ray") and is_running_runs(other), sweep)
        n_before = len(records(tmp_path / "ray"))
        cluster.remove_node(other, allow_graceful=False)
        stays.unlink()
        _, errors = sweep.communicate()
    finally:
        sweep.kill()
    assert sweep.returncode == 0, errors
    assert n_before < len(records(tmp_path / "ray")) == 16
    assert "Traceback" not in errors
    single = command_here("run", *words, "--runs-at-a-time", 1, "--output-dir", "single")
    assert single.returncode == 0, single.stderr
    assert records(tmp_path / "ray") == records(tmp_path / "single")
    assert table(tmp_path / "ray" / "leaderboard.csv") == table(tmp_path / "single" / "leaderboard.csv")


def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="does not go with --executor local"):
        make_sweep({"ray_address": "auto"}, None)
    assert make_sweep({"executor": "ray", "runs_at_a_time": 2}, None).runs_at_a_time == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 ranks of a launcher"):
        check_launcher(make_sweep({"executor": "ray"}, None))


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'momentum-bench\[cluster\]'"), connected(None):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_where_no_cluster_answers_it_is_said(address: str):
    pytest.importorskip("ray", reason="the cluster extra is not installed")
    with pytest.raises(UserError, match=f"--ray-address {address}: no cluster answers"), connected(address):
        pass


def test_a_cluster_of_this_machine_that_does_not_start_is_one_message(monkeypatch: pytest.MonkeyPatch):
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # Ray's own words and class

    monkeypatch.setattr(ray_cluster, "_ray", lambda: SimpleNamespace(init=init))
    message = r"could not start a cluster on this machine \(Exception: The current node.*--ray-address auto"
    with pytest.raises(UserError, match=message), connected(None):
        pass


class FakeRay:
    """A cluster's answers to what it has, without a cluster."""

    def __init__(self, *resources: dict[str, float]):
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": each, "Alive": True} for each in self.resources] + [
            {"Resources": {"CPU": 99, "GPU": 99}, "Alive": False}
        ]


def test_what_a_run_needs_and_how_many_fit():
    gpus, cpus = {"CPU": 16, "GPU": 4}, {"CPU": 8}
    specs = [make_spec(threads_per_run=2)]
    assert _needs(FakeRay(cpus), specs, None) == {"num_cpus": 2, "num_gpus": 0}
    assert _needs(FakeRay(cpus, gpus), specs, None) == {"num_cpus": 2, "num_gpus": 1}
    packed = _needs(FakeRay(cpus, gpus), specs, 2)
    for number in (3, 6, 7):  # 1 / 6, rounded up to what Ray counts in, would not fit six times
        part = _needs(FakeRay({"CPU": 64, "GPU": 1}), specs, number)
        assert 0.9 < number * part["num_gpus"] <= 1
        assert _places(FakeRay({"CPU": 64, "GPU": 1}), part) == number
    assert _places(FakeRay(cpus, gpus, gpus), packed) == 16
    assert _places(FakeRay(cpus), _needs(FakeRay(cpus), specs, None)) == 4
    with pytest.raises(UserError, match=r"best of 1 node\(s\) has 8 and 0"):
        _needs(FakeRay(cpus), specs, 1)
    with pytest.raises(UserError, match="needs 32 processor"):
        _needs(FakeRay(cpus, gpus), [make_spec(threads_per_run=32)], None)
