"""The design of a sweep, its chosen rates, and what its confirming seeds decide: all from records."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from momentum_bench.harness.records.design import Design, DesignArm, DesignTask, fresh_seeds, setting_of
from momentum_bench.harness.records.schema import Point, RunRecord, RunSpec
from momentum_bench.harness.sweeps.confirming import Question, progress_in_words, standing, tuned
from tests.helpers.synthetic import Scores, make_record, make_spec

RATES = (0.1, 0.3, 1.0)


def make_design(**changes) -> Design:
    fields = {
        "template": make_spec(seed=13, learning_rate=0.1),
        "arms": (
            DesignArm(optimizer="sgd", hyperparameters={}, shares_axis=True),
            DesignArm(optimizer="sgdm", hyperparameters={"momentum": 0.9}, shares_axis=True),
        ),
        "tasks": (
            DesignTask(task="sst2", task_version="1a2b3c", data_fingerprint="f00d", grids=(RATES, RATES)),
        ),
        "tune_seeds": (13, 21, 42),
        "confirm_seeds": fresh_seeds(10, (13, 21, 42)),
        "confirm": "matched",
        "looks": (5, 10),
        "pairs": ((0, 1),),
        "margin": 0.01,
    }
    return Design.model_validate(fields | changes)


ScoreOf = Callable[[RunSpec], Scores]


def run_all(specs: list[RunSpec] | tuple[RunSpec, ...], score: ScoreOf) -> dict[str, RunRecord]:
    return {spec.run_id: make_record(spec, score(spec)) for spec in specs}


def tuning_runs(design: Design, score: ScoreOf) -> dict[str, RunRecord]:
    """All runs of the tuning seeds, with grids that grow."""
    records: dict[str, RunRecord] = {}
    while missing := [spec for task in design.tasks for spec in tuned(design, task, records).missing]:
        records |= run_all(missing, score)
    return records


def to_its_end(design: Design, score: ScoreOf) -> tuple[dict[str, RunRecord], int]:
    """The records of a whole sweep, and how many times its confirming runs were extended."""
    records, times = tuning_runs(design, score), 0
    while runs := standing(design, records).runs:
        records |= run_all(runs, score)
        times += 1
    return records, times


def peak_at(rate: float, dev: float = 0.9) -> ScoreOf:
    """Dev is best at one rate; test is the same everywhere."""
    return lambda spec: Scores(dev_metric=dev if spec.learning_rate == rate else 0.5, test_metric=0.8)


def test_fresh_seeds_are_drawn_by_rule_and_are_none_of_those_that_tune():
    assert fresh_seeds(3, (13, 21, 42)) == (1000, 1001, 1002)
    assert fresh_seeds(3, (1001, 1000)) == (1002, 1003, 1004)


@given(st.integers(1, 50), st.lists(st.integers(990, 1060), max_size=20, unique=True))
def test_there_are_always_as_many_fresh_seeds_as_asked_for(number, taken):
    seeds = fresh_seeds(number, tuple(taken))
    assert len(set(seeds)) == number
    assert not set(seeds) & set(taken)
    assert list(seeds) == sorted(seeds)


def test_a_design_has_an_id_that_follows_from_all_its_fields():
    design = make_design()
    assert Design.model_validate_json(design.model_dump_json()) == design
    ids = {design.design_id}
    for changes in (
        {"margin": 0.02},
        {"looks": (5,)},
        {"tune_seeds": (13, 21)},
        {"confirm_seeds": (1, 2, 3, 4, 5)},
        {"confirm": "own"},
        {"pairs": ()},
    ):
        ids.add(make_design(**changes).design_id)
    assert len(ids) == 7


def test_the_rate_is_chosen_when_all_tuning_runs_have_ended():
    design = make_design()
    [task] = design.tasks
    records = tuning_runs(design, peak_at(0.3))
    assert len(records) == 2 * 3 * 3
    found = tuned(design, task, records)
    assert (found.matched, found.own, found.missing) == ((Point(0.3),) * 2, (Point(0.3),) * 2, ())
    records.popitem()
    found = tuned(design, task, records)
    assert (found.matched, len(found.missing)) == ((None, None), 1)
    assert standing(design, records).runs == ()


def test_the_matched_rate_is_the_best_for_both_and_an_own_rate_for_one():
    dev = {"sgd": {0.1: 0.6, 0.3: 0.7, 1.0: 0.8}, "sgdm": {0.1: 0.6, 0.3: 0.9, 1.0: 0.7}}

    def score(spec: RunSpec) -> Scores:
        return Scores(dev_metric=dev[spec.optimizer][spec.learning_rate])

    design = make_design(confirm="own")
    records = tuning_runs(design, score)
    found = tuned(design, design.tasks[0], records)
    assert (found.matched, found.own) == ((Point(0.3),) * 2, (Point(1.0), Point(0.3)))
    now = standing(design, records)
    assert {(run.optimizer, run.learning_rate) for run in now.runs} == {
        ("sgd", 0.3),
        ("sgdm", 0.3),
        ("sgd", 1.0),
    }
    assert len(now.runs) == 3 * 5


def test_ties_go_to_the_lower_dev_loss_and_then_to_the_smaller_rate():
    losses = {0.1: 0.5, 0.3: 0.4, 1.0: 0.4}
    design = make_design()
    records = tuning_runs(design, lambda s: Scores(dev_metric=0.8, dev_loss=losses[s.learning_rate]))
    assert tuned(design, design.tasks[0], records).matched == (Point(0.3),) * 2


def test_a_rate_that_diverged_for_one_seed_is_not_chosen():
    def score(spec: RunSpec) -> Scores:
        diverged = (spec.seed, spec.learning_rate, spec.optimizer) == (21, 1.0, "sgdm")
        best = 0.9 if spec.learning_rate == 1.0 else 0.7
        return Scores(dev_metric=best, status="diverged" if diverged else "done")

    design = make_design()
    found = tuned(design, design.tasks[0], tuning_runs(design, score))
    assert (found.matched, found.own) == ((Point(0.1),) * 2, (Point(1.0), Point(0.1)))


def test_the_grid_of_a_design_grows_as_often_as_it_may():
    design = make_design(extend_grid=2)

    def score(spec: RunSpec) -> Scores:
        return Scores(dev_metric=min(0.9, spec.learning_rate / 100))

    found = tuned(design, design.tasks[0], tuning_runs(design, score))
    assert found.grids == (tuple(map(Point, (*RATES, 3.0, 10.0))),) * 2
    assert found.matched == (Point(10.0),) * 2


def test_a_design_ends_at_the_first_look_that_decides():
    design = make_design()
    records, times = to_its_end(design, lambda s: Scores(dev_metric=s.learning_rate / 2, test_metric=0.8))
    assert times == 1
    now = standing(design, records)
    assert now.has_ended
    [(question, found)] = now.replayed.pairs.items()
    assert question == Question("sst2", (0, 1), "matched", (Point(1.0), Point(1.0)))
    assert (found.n_seeds, found.is_decided) == (5, True)
    assert len(records) == 18 + 2 * 5


def test_a_design_that_nothing_decides_ends_at_its_last_look():
    def score(spec: RunSpec) -> Scores:
        shift = (1 if spec.seed % 2 else -1) * (0.2 if spec.optimizer == "sgdm" else 0)
        return Scores(dev_metric=spec.learning_rate / 2, test_metric=0.7 + shift)

    design = make_design()
    records, times = to_its_end(design, score)
    assert times == 2
    now = standing(design, records)
    assert now.has_ended
    assert [found.is_decided for found in now.replayed.pairs.values()] == [False]
    assert len(records) == 18 + 2 * 10


def test_only_the_task_that_is_undecided_goes_on():
    two = tuple(
        DesignTask(task=name, task_version="1a2b3c", data_fingerprint="f00d", grids=(RATES, RATES))
        for name in ("same", "wide")
    )

    def score(spec: RunSpec) -> Scores:
        shift = (1 if spec.seed % 2 else -1) * (0.2 if spec.optimizer == "sgdm" else 0)
        return Scores(dev_metric=0.8, test_metric=0.7 + (shift if spec.task == "wide" else 0))

    design = make_design(tasks=two)
    records, _ = to_its_end(design, score)
    confirming = [record.spec for record in records.values() if record.spec.seed >= 1000]
    assert sum(spec.task == "same" for spec in confirming) == 2 * 5
    assert sum(spec.task == "wide" for spec in confirming) == 2 * 10


def with_axes(**changes) -> Design:
    """A design that tunes the batch size of both arms, and SGDM's momentum."""
    sgd, sgdm = make_design().arms
    sizes, betas = (4, 8), (0.5, 0.9)
    points = (
        [Point(rate, (("batch_size", size),)) for rate in RATES for size in sizes],
        [
            Point(rate, (("batch_size", size), ("momentum", beta)))
            for rate in RATES
            for size in sizes
            for beta in betas
        ],
    )
    fields = {
        "template": make_spec(seed=13, learning_rate=0.1, batch_size=4, tuned=("batch_size",)),
        "arms": (sgd, sgdm.model_copy(update={"hyperparameters": {}, "tuned": ("momentum",)})),
        "tasks": (make_design().tasks[0].model_copy(update={"points": tuple(map(tuple, points))}),),
    }
    return make_design(**fields | changes)


def test_confirming_seeds_run_at_one_batch_size_and_each_arm_with_its_own_momentum():
    def score(spec: RunSpec) -> Scores:
        near = (spec.learning_rate == 0.3) + (spec.batch_size == 8)
        near += spec.hyperparameters.get("momentum") == 0.5
        return Scores(dev_metric=0.5 + near / 10, test_metric=0.8)

    design = with_axes(confirm="own")
    assert Design.model_validate_json(design.model_dump_json()) == design
    records, _ = to_its_end(design, score)
    assert len(records) == 3 * (6 + 12) + 2 * 5
    found = tuned(design, design.tasks[0], records)
    assert found.matched == found.own
    assert found.matched == (
        Point(0.3, (("batch_size", 8),)),
        Point(0.3, (("batch_size", 8), ("momentum", 0.5))),
    )
    confirming = [run.spec for run in records.values() if run.spec.seed >= 1000]
    assert {(s.batch_size, s.hyperparameters.get("momentum"), s.tuned) for s in confirming} == {
        (8, None, ("batch_size",)),
        (8, 0.5, ("batch_size", "momentum")),
    }
    now = standing(design, records)
    assert progress_in_words(design, now)[0] == (
        "sst2: dev of the tuning seeds chose the effective rate 0.3 with batch_size=8 for all, and "
        "momentum=0.5 for sgdm"
    )


def test_a_grid_with_further_axes_grows_by_rates():
    design = with_axes(extend_grid=1)
    records = tuning_runs(design, lambda s: Scores(dev_metric=min(0.9, s.learning_rate / 10)))
    found = tuned(design, design.tasks[0], records)
    assert [len(grid) for grid in found.grids] == [2 * 4, 4 * 4]
    assert {point.learning_rate for point in found.grids[0]} == {*RATES, 3.0}
    assert found.matched[0] == Point(3.0, (("batch_size", 4),))


def test_batches_that_keep_the_examples_have_fewer_steps():
    template = make_spec(
        **{"seed": 13, "learning_rate": 0.1, "batch_size": 4, "tuned": ("batch_size",)}
        | {"max_steps": 40, "eval_every": 10, "warmup_steps": 4, "examples": 160}
    )
    design = with_axes(template=template)
    [task] = design.tasks
    large = design.spec(task, 0, 13, Point(0.3, (("batch_size", 8),)))
    assert (large.batch_size, large.max_steps, large.eval_every, large.warmup_steps) == (8, 20, 5, 2)
    assert setting_of(large) == setting_of(design.spec(task, 1, 21, task.whole_grids[1][0]))
    assert setting_of(large)["max_steps"] == 160
    steps_kept = with_axes(template=template.model_copy(update={"examples": None}))
    assert setting_of(steps_kept.template) != setting_of(large)


def test_optimizers_without_the_axis_do_not_share_the_matched_rate():
    adamw = DesignArm(optimizer="adamw", hyperparameters={}, shares_axis=False)
    own_grid = (1e-4, 3e-4, 1e-3)
    design = make_design(
        arms=(*make_design().arms, adamw),
        tasks=(make_design().tasks[0].model_copy(update={"grids": (RATES, RATES, own_grid)}),),
        pairs=((0, 1), (0, 2)),
    )
    records = tuning_runs(design, peak_at(0.3))
    now = standing(design, records)
    assert {run.optimizer for run in now.runs} == {"sgd", "sgdm"}


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_comes_next_depends_on_what_is_finished_and_not_on_the_order(data):
    """However a sweep is interrupted, going on gives the same runs and the same end."""
    design = make_design()

    def score(spec: RunSpec) -> Scores:
        shift = (spec.seed * 37 % 11 - 5) / 50 if spec.optimizer == "sgdm" else 0.0
        return Scores(dev_metric=0.8, test_metric=0.7 + shift)

    whole, _ = to_its_end(design, score)
    kept = data.draw(st.lists(st.sampled_from(sorted(whole)), unique=True))
    records = {run_id: whole[run_id] for run_id in kept}
    for _ in range(50):
        todo = [spec for task in design.tasks for spec in tuned(design, task, records).missing]
        todo += [spec for spec in standing(design, records).runs if spec.run_id not in records]
        if not todo:
            break
        records |= run_all(todo[: data.draw(st.integers(1, len(todo)))], score)
    assert records == whole
    assert standing(design, records).replayed == standing(design, whole).replayed


@pytest.mark.parametrize("layouts", [({"padding": "a"}, {"padding": "b"})])
def test_runs_of_different_layout_are_no_pair(layouts):
    design = make_design()

    def records_with(runs, score) -> dict[str, RunRecord]:
        return {
            spec.run_id: make_record(spec, score, layouts[spec.optimizer == "sgdm" and spec.seed == 1000])
            for spec in runs
        }

    records = tuning_runs(design, peak_at(0.3))
    records |= records_with(standing(design, records).runs, Scores())
    [found] = standing(design, records).replayed.pairs.values()
    assert found.difference is not None
    assert (found.n_seeds, found.difference.n_pairs) == (5, 4)
