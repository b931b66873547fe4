"""Killed at any moment, in any process, on any disk: the same leaderboard in the end, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from momentum_bench.harness.errors import UserError, without_secrets
from momentum_bench.harness.execution import job as execution_job
from momentum_bench.harness.execution import local, one_run
from momentum_bench.harness.execution.job import KILLED, Job
from momentum_bench.harness.inputs import Inputs
from momentum_bench.harness.records.files import WRITING, replacing, write_atomically
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.records.store import ATTEMPT, MOST_DEATHS, Journal, Store
from momentum_bench.harness.training.session import Session
from tests.conftest import ROOT, cli_environment
from tests.helpers.command_line import run_command
from tests.helpers.processes import plant, plant_in_each_step
from tests.helpers.specs import make_record, make_spec
from tests.helpers.sweeps import records, small_sweep, table


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def is_worker(child: psutil.Process) -> bool:
    """Whether a child process is a worker; one that has ended since it was listed is none."""
    try:
        return any("spawn_main" in word for word in child.cmdline())
    except psutil.Error:
        return False


class Killer:
    """A sweep that is killed, process by process, and started again until it is done."""

    def __init__(self, words: list[object], folder: Path, output_dir: Path, seed: int):
        self.command = [sys.executable, str(ROOT / "harness" / "run.py"), *map(str, words)]
        self.folder, self.output_dir, self.random = folder, output_dir, random.Random(seed)
        self.log = folder / "log.txt"

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("a") as log:
            return subprocess.Popen(
                self.command, cwd=self.folder, env=cli_environment(), stdout=log, stderr=log
            )

    def events(self) -> int:
        """Evaluations and records so far."""
        notes = list(self.output_dir.glob("runs/*/evaluations.jsonl"))
        n_lines = sum(path.read_bytes().count(b"\n") for path in notes if path.exists())
        return n_lines + 1000 * len(list(self.output_dir.glob("runs/*/record.json")))

    def wait_for_a_moment(self, process: subprocess.Popen[bytes]) -> None:
        """Until something new is on the disk, a random number of times, and then a random while."""
        for _ in range(self.random.randint(1, 3)):
            before = self.events()
            while self.events() == before:
                assert process.poll() is None, f"it ended before it was killed: {self.log.read_text()}"
                time.sleep(0.01)
        time.sleep(self.random.uniform(0, 0.05))

    def kill(self, n: int) -> None:
        """Kill n times, a worker and the parent in turn, and let it end."""
        process = self.start()
        for number in range(n):
            self.wait_for_a_moment(process)
            workers = [child for child in psutil.Process(process.pid).children() if is_worker(child)]
            # a last run that is left alone after a restart has no worker
            if number % 2 or not workers:
                process.kill()
                process.wait()
                process = self.start()
            else:
                os.kill(self.random.choice(workers).pid, signal.SIGKILL)
        assert process.wait() == 0, self.log.read_text()


def killed_and_undisturbed(tiny_model: Path, toy_data: Path, folder: Path, n: int, *more: object) -> None:
    words = small_sweep(tiny_model, toy_data, "--max-steps", 30, "--checkpoint-every", 5, *more)
    undisturbed = run_command("run", *words, "--output-dir", folder / "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    words += ["--output-dir", "killed", "--runs-at-a-time", 2]
    killer = Killer(words, folder, folder / "killed", seed=n)
    killer.kill(n)
    for name in ("leaderboard.csv", "comparison.csv"):
        assert table(folder / "killed" / name) == table(folder / "undisturbed" / name)
    assert records(folder / "killed") == records(folder / "undisturbed")
    assert files(folder / "killed") == files(folder / "undisturbed")
    log = killer.log.read_text()
    assert "Traceback" not in log
    assert "its worker process died" in log


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_parent_leave_no_trace(tiny_model: Path, toy_data: Path, tmp_path: Path):
    killed_and_undisturbed(tiny_model, toy_data, tmp_path, 2, "--seeds", "13")


@pytest.mark.slow
def test_five_kills_leave_no_trace(tiny_model: Path, toy_data: Path, tmp_path: Path):
    killed_and_undisturbed(tiny_model, toy_data, tmp_path, 5)


@pytest.mark.soak
@pytest.mark.timeout(7200)  # four dozen processes load their libraries
def test_twenty_kills_leave_no_trace(tiny_model: Path, toy_data: Path, tmp_path: Path):
    killed_and_undisturbed(tiny_model, toy_data, tmp_path, 20, "--seeds", "13,21,42,87,100")


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_the_next_start_goes_on(
    command, command_here, tiny_model: Path, toy_data: Path, tmp_path: Path
):
    """Every write to the disk after the third record fails, as on a full one."""
    environment = plant(
        tmp_path,
        "import errno, os, pathlib\nfsync = os.fsync\n"
        "def full(number):\n"
        "    if len(list(pathlib.Path('results/runs').glob('*/record.json'))) >= 3:\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    fsync(number)\n"
        "os.fsync = full\n",
    )
    words = small_sweep(tiny_model, toy_data)
    done = command(*words, **environment)
    assert done.returncode == 2
    assert "error: no room is left under results: make some. Finished runs are kept" in done.stderr
    assert "Traceback" not in done.stderr
    kept = records(tmp_path / "results")
    assert len(kept) == 3
    names = [path.name for path in (tmp_path / "results").rglob("*")]
    assert not [name for name in names if name.startswith(".") or name == WRITING]
    done = command_here("run", *words)
    assert done.returncode == 0, done.stderr
    assert kept.items() <= records(tmp_path / "results").items()
    assert len(records(tmp_path / "results")) == 8


@pytest.fixture
def job(tmp_path: Path) -> Job:
    store = Store(tmp_path / "results")
    store.open()
    return Job(Inputs("model", None), "fp32", store, retry_failed=False)


class ScriptedPool:
    """Stands for a worker process: it dies under some runs and does the others."""

    def __init__(self, job: Job, deadly: dict[int, int], before_it_begins: bool = False):
        self.job, self.deadly, self.dead, self.before = job, deadly, False, before_it_begins

    def submit(self, function: object, spec: RunSpec, job: Job) -> Future[RunRecord | None]:
        if self.dead:
            raise BrokenProcessPool
        future: Future[RunRecord | None] = Future()
        if self.deadly.get(spec.seed, 0) > 0:
            self.deadly[spec.seed] -= 1
            self.dead = True
            if not self.before:
                self.job.store.journal(spec)
            future.set_exception(BrokenProcessPool())
        else:
            record = make_record(seed=spec.seed)
            self.job.store.write(record)
            future.set_result(record)
        return future

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        pass


def run_scripted(job: Job, monkeypatch: pytest.MonkeyPatch, pools: list[ScriptedPool]) -> dict[int, str]:
    session = Session(job.inputs, SimpleNamespace(num_processes=1))  # type: ignore[arg-type]
    made = iter(pools)
    monkeypatch.setattr(local, "new_pool", lambda *words: next(made))
    specs = [make_spec(seed=seed) for seed in range(6)]
    return {r.spec.seed: r.status for r in local.execute(specs, job, session, 2, progress=False, pools=[])}


def test_a_run_whose_worker_dies_is_done_again(job: Job, monkeypatch: pytest.MonkeyPatch, capsys):
    deadly = {1: 1, 4: MOST_DEATHS - 1}
    states = run_scripted(job, monkeypatch, [ScriptedPool(job, deadly) for _ in range(9)])
    assert states == dict.fromkeys(range(6), "done")
    assert capsys.readouterr().err.count("its worker process died") == MOST_DEATHS


def test_a_run_that_always_kills_its_worker_fails_and_the_others_go_on(
    job: Job, monkeypatch: pytest.MonkeyPatch
):
    states = run_scripted(job, monkeypatch, [ScriptedPool(job, {3: 99}) for _ in range(9)])
    assert states == dict.fromkeys(range(6), "done") | {3: "failed"}
    record = job.store.read(make_spec(seed=3).run_id)
    assert record is not None
    assert record.failure == KILLED
    names = {path.name for path in (job.store.output_dir / "runs" / record.spec.run_id).iterdir()}
    assert names == {"record.json", "lock"}


def test_workers_stay_for_the_next_part_of_a_sweep(job: Job, monkeypatch: pytest.MonkeyPatch):
    """More are added where more fit, and one that died meanwhile is replaced."""
    session = Session(job.inputs, SimpleNamespace(num_processes=1))  # type: ignore[arg-type]
    made: list[ScriptedPool] = []

    def new_pool(*_: object) -> ScriptedPool:
        made.append(ScriptedPool(job, {}))
        return made[-1]

    monkeypatch.setattr(local, "new_pool", new_pool)
    pools: local.Pools = []

    def part(seeds: range, workers: int) -> None:
        specs = [make_spec(seed=seed) for seed in seeds]
        done = list(local.execute(specs, job, session, workers, progress=False, pools=pools))
        assert [record.status for record in done] == ["done"] * len(seeds)

    part(range(4), 2)
    part(range(4, 8), 2)
    assert pools == made
    assert len(made) == 2
    part(range(8, 12), 3)
    assert len(made) == 3
    made[0].dead = made[2].dead = True
    part(range(12, 18), 3)
    assert len(made) == 5
    assert pools[1] is made[1]
    assert not any(pool.dead for pool in pools)


def one_more(monkeypatch: pytest.MonkeyPatch, job: Job, evaluations: int) -> RunRecord | None:
    """Do the run in this process, which is killed after some evaluations, or gets to its end for -1."""

    def dies(spec: RunSpec, session: Session, journal: Journal, progress: bool) -> RunRecord:
        done = make_record()
        for step in range(evaluations):
            journal.append(done.evaluations[0].model_copy(update={"step": step + 1}))
        if evaluations >= 0:
            raise Killed
        return done

    monkeypatch.setattr(execution_job, "record_of", dies)
    session = Session(job.inputs, SimpleNamespace(num_processes=1))  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        # a process that is killed removes nothing
        if evaluations >= 0:
            patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        try:
            return execution_job.run_and_store(make_spec(), job, session, False)
        except Killed:
            return None


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


@pytest.mark.parametrize("evaluations", [[0, 0, 0], [2, 2, 1], [1, 3, 2, 3]])
def test_a_run_in_which_processes_are_killed_again_and_again_fails(
    job: Job, monkeypatch: pytest.MonkeyPatch, evaluations: list[int], capsys: pytest.CaptureFixture[str]
):
    for n in evaluations:
        assert one_more(monkeypatch, job, n) is None
        assert job.store.records() == []
    record = one_more(monkeypatch, job, -1)
    assert record is not None
    assert (record.status, record.failure) == ("failed", KILLED)
    assert f"{MOST_DEATHS} process(es) were killed while they did it" in capsys.readouterr().err
    folder = job.store.output_dir / "runs" / record.spec.run_id
    assert {path.name for path in folder.iterdir()} == {"record.json", "lock"}
    again = replace(job, retry_failed=True)  # which starts to count again
    assert one_more(monkeypatch, again, -1) == make_record()


def test_processes_that_get_farther_each_time_are_not_counted(job: Job, monkeypatch: pytest.MonkeyPatch):
    for n in range(2 * MOST_DEATHS):
        assert one_more(monkeypatch, job, n) is None
    assert one_more(monkeypatch, job, -1) == make_record()


def test_a_process_that_was_asked_to_end_was_not_killed(job: Job, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> RunRecord:
        raise KeyboardInterrupt

    session = Session(job.inputs, SimpleNamespace(num_processes=1))  # type: ignore[arg-type]
    monkeypatch.setattr(execution_job, "record_of", interrupted)
    for _ in range(2 * MOST_DEATHS):
        with pytest.raises(KeyboardInterrupt):
            execution_job.run_and_store(make_spec(), job, session, False)
    assert not (job.store.output_dir / "runs" / make_spec().run_id / ATTEMPT).exists()


def test_a_sweep_with_one_worker_gets_past_a_run_that_kills_it(
    command, command_here, tiny_model: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    environment = plant_in_each_step(tmp_path, "if seed == 13 and step == 1: os.kill(os.getpid(), 9)")
    words = small_sweep(tiny_model, toy_data, "--optimizers", "sgd", "--learning-rates", "0.1")
    assert command(*words, **environment).returncode == -signal.SIGKILL
    assert Store(tmp_path / "results").records() == []
    monkeypatch.setattr(execution_job, "MOST_DEATHS", 1)  # each more costs the start of a process
    done = command_here("run", *words)
    assert done.returncode == 1
    assert f"1 run(s) failed, the first: sst2 sgd lr 0.1 seed 13: failed ({KILLED})" in done.stderr
    assert {r.spec.seed: r.status for r in Store(tmp_path / "results").records()} == {
        13: "failed",
        21: "done",
    }


@pytest.mark.parametrize("ignored", [False, True], ids=["terminal", "nohup"])
def test_a_terminal_that_closes_is_a_ctrl_c(
    ignored: bool, command_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """But not where nohup has the process ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        command_here("run", "--task", "sst2", "--data-dir", tmp_path)
        expected = signal.SIG_IGN if ignored else signal.default_int_handler
        assert signal.getsignal(signal.SIGHUP) == expected
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, terminate)


def test_workers_that_die_before_they_begin_stop_the_sweep_and_fail_no_run(
    job: Job, monkeypatch: pytest.MonkeyPatch
):
    pools = [ScriptedPool(job, dict.fromkeys(range(6), 99), before_it_begins=True) for _ in range(9)]
    with pytest.raises(UserError, match="3 worker processes died before they began a run"):
        run_scripted(job, monkeypatch, pools)
    assert job.store.records() == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "no room is left under"),
        (OSError(30, "Read-only file system"), "cannot be written: Read-only file system. Finished runs"),
        (OSError(116, "Stale file handle", "/net/x"), "/net/x: Stale file handle. Finished runs"),
    ],
)
def test_what_the_disk_refuses_stops_the_sweep_with_a_message(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
):
    def finetune(*given: object) -> RunRecord:
        raise error

    monkeypatch.setattr(one_run, "finetune", finetune)
    session = Session(job.inputs, SimpleNamespace(num_processes=1))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        execution_job.run_and_store(make_spec(), job, session, False)
    assert job.store.records() == []


def test_what_a_killed_process_left_half_written_is_cleared_up(job: Job, tmp_path: Path):
    store, spec = job.store, make_spec()
    with store.claim(spec):
        pass
    folder = store.output_dir / "runs" / spec.run_id
    places = (folder, folder / WRITING, store.output_dir, store.output_dir / "plots")
    for place in places:
        place.mkdir(exist_ok=True)
        with replacing(place / "file") as name:
            left = name.name
        (place / "file").rename(place / left)
    (folder / WRITING / ".tmp7rtVdR").write_text("half, by safetensors")
    with store.claim(spec):
        assert {path.name for path in folder.iterdir()} == {"lock"}
    with store.alone():
        assert not [path for path in store.output_dir.rglob(".*") if path.is_file()]
    # killed between the record and the removal of what the run kept in progress
    store.write(make_record())
    store.journal(spec)
    store.clear_finished()
    assert {path.name for path in folder.iterdir()} == {"record.json", "lock"}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with replacing(path) as name:
        name.write_text("new")
    assert path.read_text() == "new"

    def interrupted() -> None:
        with replacing(path) as name:
            name.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "new"
    assert files(tmp_path) == {"file"}
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_secrets_are_replaced_by_their_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_0")
    monkeypatch.setenv("SOME_KEY", "true")  # too short to be a secret
    assert without_secrets("401 for hf_planted_0: true") == "401 for [HF_TOKEN]: true"
