"""Worker processes end with the process that started them, however that one ends."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from momentum_bench.harness.execution import workers
from momentum_bench.harness.inputs import Inputs
from tests.conftest import ROOT, SOURCES, cli_environment

WORK = """
import os
import threading


def work_for_ever(*words):
    print(os.getpid(), flush=True)
    threading.Event().wait()
"""
"""A module of its own, because workers do not import the main module of the program."""

PARENT = """
import sys
from pathlib import Path

from work import work_for_ever

from momentum_bench.harness.execution import local, repeats, workers
from momentum_bench.harness.execution.job import Job
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.store import Store
from tests.helpers.specs import make_spec


if __name__ == "__main__":
    inputs, specs = Inputs("no-model", None), [make_spec(seed=1), make_spec(seed=2)]
    if sys.argv[1] == "sweep":
        local._run_in_worker = work_for_ever
        store = Store(Path("results"))
        store.open()
        job = Job(inputs, "fp32", store, retry_failed=False)
        with workers.closing_pools(pools := []):
            list(local.execute(specs, job, None, 2, progress=False, pools=pools))
    else:
        repeats._repeat = work_for_ever
        repeats.spread(specs[0], inputs, 2, 2)
"""


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pool", ["sweep", pytest.param("noise-floor", marks=pytest.mark.slow)])
def test_no_worker_outlives_its_parent(pool: str, ended_by: signal.Signals, tmp_path: Path):
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "parent.py").write_text(PARENT)
    with (tmp_path / "log.txt").open("w") as log:
        parent = subprocess.Popen(
            [sys.executable, "parent.py", pool],
            cwd=tmp_path,
            env=cli_environment(PYTHONPATH=f"{SOURCES}:{ROOT}:{tmp_path}"),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # a shell has its background jobs ignore Ctrl-C, and what they start inherits that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    assert parent.stdout is not None
    children: list[psutil.Process] = []
    try:
        numbers = [parent.stdout.readline().strip() for _ in range(2)]
        assert all(numbers), (tmp_path / "log.txt").read_text()
        children = [psutil.Process(int(number)) for number in numbers]
        parent.send_signal(ended_by)
        psutil.wait_procs(children)  # a worker that stays is found by pytest's own limit
    finally:
        for process in (parent, *(child for child in children if child.is_running())):
            process.kill()
        parent.stdout.close()
        parent.wait()


ASKS_A_WORKER = """
import os

from momentum_bench.harness.execution import workers
from momentum_bench.harness.inputs import Inputs

pool = workers.new_pool(1, Inputs("no-model", None), "fp32")
with workers.closing_pools([pool]):
    print(workers.submit(pool, os.getcwd).result())
print(os.environ.get("PYTHONSAFEPATH"))
"""


def test_a_worker_takes_no_module_from_the_working_directory(tmp_path: Path):
    """A user's `struct.py` is not Python's, which `multiprocessing` needs, and `numpy.py` is not numpy."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    for name in ("struct", "numpy"):
        (here / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user was executed')\n")
    (elsewhere / "ask.py").write_text(ASKS_A_WORKER)
    done = subprocess.run(
        [sys.executable, str(elsewhere / "ask.py")],
        cwd=here,
        env=cli_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{here}\nNone\n"), done.stderr


def test_only_one_file_starts_processes():
    """Another pool would have to watch its parent too."""
    names = {"ProcessPoolExecutor", "multiprocessing", "get_context", "Popen", "Pool"}
    starters = set()
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom) and names & {a.name for a in node.names}:
                starters.add(path.name)
    assert "workers.py" in starters
    assert starters <= {"workers.py", "local.py"}  # local.py names the type of its pools


def test_a_process_keeps_one_session_for_the_same_inputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(workers, "_kept", None)
    inputs = Inputs("model", tmp_path)
    session = workers.kept_session(inputs, "fp32")
    assert workers.kept_session(Inputs("model", tmp_path), "fp32") is session
    other = workers.kept_session(Inputs("another", tmp_path), "fp32")
    assert other is not session
    assert other.inputs.model == "another"
