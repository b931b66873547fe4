from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from momentum_bench.harness.cli.main import app
from momentum_bench.harness.cli.status import budgets_by_part
from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.design import Design, DesignArm, DesignTask
from momentum_bench.harness.records.schema import Evaluation, Plan, RunSpec
from momentum_bench.harness.records.status import status_of, time_left
from momentum_bench.harness.records.store import Store
from momentum_bench.harness.sweeps.plan import longest_first, share_out, work
from momentum_bench.tasks import get_task
from tests.helpers.specs import make_record, make_spec

NAMES = ("sgd", "my.Sam@1", "my.Lazy@1")


def some_specs(n: int) -> list[RunSpec]:
    return [make_spec(seed=seed) for seed in range(n)]


def half_way(folder: Path, specs: list[RunSpec]) -> Store:
    """Runs 0 .. 4 are done (2.75 seconds each), done, diverged, failed, and at step 3 of 6; 5 is missing."""
    store = Store(folder)
    store.open()
    store.keep_plan(Plan(specs=tuple(specs), work=(1.0,) * len(specs)))
    for spec, state in zip(specs, ("done", "done", "diverged", "failed"), strict=False):
        store.write(make_record(status=state, seed=spec.seed))
    evaluation = Evaluation(step=3, learning_rate=0.1, train_loss=1, dev_metric=0.5, dev_loss=1)
    store.journal(specs[4]).append(evaluation)
    return store


def test_each_run_has_its_state_and_nothing_is_written(tmp_path: Path):
    specs = some_specs(6)
    store = half_way(tmp_path, specs)
    with store.claim(specs[4]) as claimed:
        assert claimed
        before = sorted(tmp_path.rglob("*"))
        runs = {run.spec.seed: run for run in status_of(store)}
        assert sorted(tmp_path.rglob("*")) == before
    assert [runs[i].state for i in range(6)] == ["done", "done", "diverged", "failed", "running", "missing"]
    assert runs[4].fraction == 0.5
    # 2.75 seconds a run: a half and a whole one are left
    assert time_left(list(runs.values())).endswith("about 4 s left with 1 at a time")
    # its process gone, the run is missing again
    assert {run.spec.seed: run.state for run in status_of(store)}[4] == "missing"
    assert "nothing is running now; about 6 s of work is left" in time_left(status_of(store))


def test_a_failed_run_that_is_tried_again_is_running(tmp_path: Path):
    specs = some_specs(6)
    store = half_way(tmp_path, specs)
    with store.claim(specs[3]):
        assert {run.spec.seed: run.state for run in status_of(store)}[3] == "running"


def test_plans_add_up_and_a_torn_one_counts_as_not_there(tmp_path: Path):
    store = Store(tmp_path)
    store.open()
    specs = some_specs(4)
    for part in (specs[:2], specs[1:3], specs[:2]):
        store.keep_plan(Plan(specs=tuple(part), work=(1.0,) * 2))
    assert len(list((tmp_path / "plans").iterdir())) == 2
    store.write(make_record(seed=3))  # a record that came from elsewhere, in no plan
    assert [run.state for run in status_of(store)] == ["missing"] * 3 + ["done"]
    for path in (tmp_path / "plans").iterdir():
        path.write_text(path.read_text()[:50])
    assert [run.state for run in status_of(store)] == ["done"]


def table_lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip().startswith(("task", "sst2"))]


def test_the_command(tmp_path: Path):
    half_way(tmp_path, some_specs(6))
    done = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert done.exit_code == 0
    assert "local:tiny-bert by head, k = 4" in done.stdout
    assert table_lines(done.stdout) == [
        ["task", "optimizer", "rate", "done", "diverged", "failed", "missing"],
        ["sst2", "sgd", "0.1", "2", "1", "1", "2"],
    ]
    assert "2 done, 1 diverged, 1 failed, 2 missing" in done.stdout
    half_way(tmp_path / "few", some_specs(5))
    few = CliRunner().invoke(app, ["status", str(tmp_path / "few")])
    assert table_lines(few.stdout) == [
        ["task", "optimizer", "rate", "0", "1", "2", "3", "4"],
        ["sst2", "sgd", "0.1", "done", "done", "diverged", "failed", "missing"],
    ]
    nowhere = CliRunner().invoke(app, ["status", str(tmp_path / "nowhere")])
    assert nowhere.exit_code == 2
    assert "holds no momentum-bench results" in nowhere.stderr


def rows(length: int) -> TaskData:
    examples = [Example(("x" * length,), i % 2) for i in range(10)]
    return TaskData(get_task("sst2"), examples, examples, "folder", "f", 0, 0)


def test_work_grows_with_steps_batch_and_length():
    spec = make_spec()
    known = work(spec, rows(40))
    assert work(spec, rows(80)) > known
    assert work(spec, rows(10**6)) == work(spec, rows(10**7))  # cut at the task's length
    for change in ({"max_steps": 60}, {"batch_size": 8}, {"eval_every": 1}, {"k": 16}):
        assert work(spec.model_copy(update=change), rows(40)) > known
    assert work(spec.model_copy(update={"test_limit": 5}), rows(40)) < known


@given(st.lists(st.floats(0, 1e9), max_size=40), st.integers(1, 8))
def test_every_run_is_in_one_share_and_shares_are_fair(amounts: list[float], n: int):
    specs = some_specs(len(amounts))
    shares = share_out(specs, amounts, n)
    assert sorted(s.seed for share in shares for s in share) == list(range(len(amounts)))
    known = dict(zip((s.run_id for s in specs), amounts, strict=True))
    sums = [sum(known[s.run_id] for s in share) for share in shares]
    assert max(sums) - min(sums) <= max(amounts, default=0) * (1 + 1e-9)
    for share in (*shares, longest_first(specs, amounts)):
        given_out = [known[s.run_id] for s in share]
        assert given_out == sorted(given_out, reverse=True)


def test_equal_runs_keep_their_order():
    specs = some_specs(7)
    assert longest_first(specs, [1.0] * 7) == specs
    assert share_out(specs, [1.0] * 7, 3) == [specs[0::3], specs[1::3], specs[2::3]]


def test_a_disk_without_room_is_found_before_anything_runs(tmp_path: Path):
    store = Store(tmp_path)
    store.open()
    store.check_space(1000)
    with pytest.raises(UserError, match=r"MB free, and this sweep needs about 1,000,000,000,000\.0 MB"):
        store.check_space(10**18)


def test_status_counts_the_runs_and_gradient_evaluations_of_each_search(tmp_path: Path):
    """The cost of a step of a user's optimizer is known when a run of it is done."""
    store = Store(tmp_path)
    store.open()
    sgd, sam, lazy = ([make_spec(optimizer=name, seed=seed) for seed in (13, 21)] for name in NAMES)
    specs = [*sgd, *sam, *lazy]
    store.keep_plan(Plan(specs=tuple(specs), work=(1.0,) * len(specs)))
    done = make_record(optimizer=NAMES[1], seed=13)
    assert done.costs
    steps = done.spec.max_steps
    costs = done.costs.model_copy(update={"forward_backward_passes": 2 * steps})
    store.write(done.model_copy(update={"costs": costs}))
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    text = " ".join(shown.stdout.split())
    assert f"sgd 2 runs, {2 * steps} gradient evaluations" in text
    assert f"my.Sam@1 2 runs, {4 * steps} gradient evaluations" in text
    assert "my.Lazy@1 2 runs, the cost of a step is known when a run is done" in text
    document = json.loads(CliRunner().invoke(app, ["status", str(tmp_path), "--json"]).stdout)
    [budgets] = document["budgets"].values()
    assert [each["n_evaluations"] for each in budgets] == [2 * steps, 4 * steps, None]


def test_runs_of_confirming_seeds_are_no_search(tmp_path: Path):
    store = Store(tmp_path)
    store.open()
    specs = [make_spec(seed=seed) for seed in (13, 1000, 1001)]
    store.keep_plan(Plan(specs=tuple(specs), work=(1.0,) * len(specs)))
    task = DesignTask(
        task=specs[0].task,
        task_version=specs[0].task_version,
        data_fingerprint=specs[0].data_fingerprint,
        grids=((specs[0].learning_rate,),),
    )
    arm = DesignArm(optimizer="sgd", hyperparameters={}, shares_axis=True)
    store.keep_design(
        Design(
            template=specs[0],
            arms=(arm,),
            tasks=(task,),
            tune_seeds=(13,),
            confirm_seeds=(1000, 1001),
            confirm="matched",
            looks=(2,),
            margin=0.01,
        )
    )
    [[budget]] = budgets_by_part(store, status_of(store)).values()
    assert budget.n_runs == 1
