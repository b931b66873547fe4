"""Cores and memory in a container: what its limits leave, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import joblib
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from momentum_bench.harness import machine
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.machine import available_memory, usable_cores

GB = 10**9

V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder in place of the machine's control groups; the machine has 64 GB."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OF_THIS_PROCESS", tmp_path / "self")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GB))
    return tmp_path / "cgroup"


def write(folder: Path, names: tuple[str, str, str], limit: object, used: int, of_files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {of_files}\nslab 2\n")


def test_without_a_limit_it_is_what_the_machine_has(groups: Path, tmp_path: Path):
    assert available_memory() == 64 * GB  # no groups at all, as on a Mac
    (tmp_path / "self").write_text("0::/user.slice/session-1.scope\n")
    assert available_memory() == 64 * GB  # groups that are not mounted
    write(groups / "user.slice", V2, "max", 5 * GB, 0)
    assert available_memory() == 64 * GB


def test_a_container_has_what_its_limit_leaves(groups: Path, tmp_path: Path):
    """Its group is the top of what it sees. Copies of files go where memory is needed."""
    (tmp_path / "self").write_text("0::/\n")
    write(groups, V2, 16 * GB, 6 * GB, 4 * GB)
    assert available_memory() == 14 * GB
    write(groups, V2, 16 * GB, 17 * GB, 0)
    assert available_memory() == 0


def test_a_job_of_a_cluster_has_what_the_least_group_around_it_leaves(groups: Path, tmp_path: Path):
    (tmp_path / "self").write_text("0::/slurm/job_1/step_0\n")
    write(groups / "slurm" / "job_1" / "step_0", V2, "max", GB, 0)
    write(groups / "slurm" / "job_1", V2, 8 * GB, 3 * GB, 0)
    write(groups / "slurm", V2, 32 * GB, 20 * GB, 0)
    assert available_memory() == 5 * GB


def test_the_first_version_of_control_groups(groups: Path, tmp_path: Path):
    """In a container the path is the host's, and the container's own group lies at the top."""
    (tmp_path / "self").write_text("5:cpu,cpuacct:/docker/1\n4:hugetlb,memory:/docker/1\n0::/\n")
    write(groups / "memory", V1, 4 * GB, 2 * GB, GB)
    assert available_memory() == 3 * GB
    write(groups / "memory", V1, 2**63 - 4096, 2 * GB, GB)  # what it calls no limit
    assert available_memory() == 64 * GB


@given(st.text())
def test_whatever_stands_there_is_no_error(tmp_path_factory: pytest.TempPathFactory, text: str):
    place = tmp_path_factory.mktemp("groups")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(machine, "GROUPS", place)
        monkeypatch.setattr(machine, "OF_THIS_PROCESS", place / "self")
        (place / "self").write_text(text, encoding="utf-8", errors="replace")
        write(place, V2, 2**60, 0, 0)
        (place / "memory.max").write_text(text, encoding="utf-8", errors="replace")
        assert available_memory() >= 0


def test_cores_are_those_of_affinity_and_quota(monkeypatch: pytest.MonkeyPatch):
    assert usable_cores() == joblib.cpu_count() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable_cores() == 1
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "all")
    with pytest.raises(UserError, match=r"is 'all', expected a whole number.* unset LOKY_MAX_CPU_COUNT"):
        usable_cores()
