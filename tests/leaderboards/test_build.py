"""From records to rows, comparisons and notes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import Plan, Point, RunRecord, RunSpec
from momentum_bench.harness.verdicts.paired import holm
from momentum_bench.leaderboards.build import Leaderboard, build
from tests.helpers.synthetic import RATES, SEEDS, Scores, fill, make_record, make_spec, sweep_records


def board_of(folder: Path, *parts: list[RunRecord], **options: Any) -> Leaderboard:
    return build(fill(folder, [record for part in parts for record in part]), **options)


def better_arm(name: str, by: float):
    """Scores by seed with a little noise; the named optimizer scores higher. Rate 0.01 is the best."""

    def score(spec: RunSpec) -> Scores:
        test = 0.8 + 0.01 * SEEDS.index(spec.seed) + by * (spec.optimizer == name)
        test += 0.0004 * (SEEDS.index(spec.seed) % 2) * (spec.optimizer == "sgd")
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=test)

    return score


def elsewhere(record: RunRecord, **environment: str) -> RunRecord:
    """The record as if it came from another environment; without names it is of an older torch."""
    return record.model_copy(
        update={"environment": record.environment | (environment or {"torch": "2.12.1+cu128"})}
    )


def test_one_row_an_optimizer_and_one_comparison(tmp_path: Path):
    board = board_of(tmp_path, sweep_records(better_arm("sgdm", 0.02)))
    assert [row.columns["optimizer"] for row in board.rows] == ["sgd", "sgdm"]
    (comparison,) = board.comparisons
    assert comparison.columns["verdict"] == "b better"
    assert comparison.columns["mean_difference"] == pytest.approx(0.02 - 0.0004 * 2 / 5)
    assert comparison.columns["seeds"] == "13;21;42;87;100"
    row = board.rows[0].columns
    assert (row["n_runs"], row["n_seeds"], row["n_missing"], row["n_tied"]) == (15, 5, 0, 0)
    assert row["learning_rates"] == ";".join(["0.01"] * 5)
    assert row["test_ci_low"] < row["test_mean"] < row["test_ci_high"]
    assert not board.notes


def test_the_test_score_of_other_runs_changes_nothing_but_its_own_columns(tmp_path: Path):
    def score(spec: RunSpec) -> Scores:
        return Scores(dev_metric=1 - spec.learning_rate, test_metric=0.5 + spec.learning_rate)

    def other(spec: RunSpec) -> Scores:
        found = score(spec)
        return found if spec.learning_rate == min(RATES) else Scores(found.dev_metric, 0.5, 0.99)

    first, second = (board_of(tmp_path / n, sweep_records(f)) for n, f in (("a", score), ("b", other)))
    assert [row.columns for row in first.rows] == [row.columns for row in second.rows]


def test_ties_move_the_test_mean_within_their_range(tmp_path: Path):
    tied = {0.001: Scores(0.9, 0.3, 0.70), 0.01: Scores(0.9, 0.2, 0.75), 0.1: Scores(0.8, 0.1, 0.99)}
    board = board_of(tmp_path, sweep_records(lambda spec: tied[spec.learning_rate]))
    c = board.rows[0].columns
    assert (c["n_tied"], c["test_mean"]) == (5, pytest.approx(0.75))
    assert (c["test_tied_low"], c["test_tied_high"]) == (pytest.approx(0.70), pytest.approx(0.75))


def test_holm_is_over_all_pairs_with_a_verdict(tmp_path: Path):
    parts = [
        sweep_records(better_arm("sgdm", by), task=task)
        for task, by in (("sst2", 0.02), ("sst5", 0.0), ("trec", 0.015))
    ]
    one_seed = sweep_records(better_arm("sgdm", 0.1), task="snli", seeds=(13,))
    board = board_of(tmp_path, *parts, one_seed)
    judged = [c.columns for c in board.comparisons if c.difference.verdict]
    assert len(judged) == 3
    for name in ("p_difference", "p_equivalence"):
        assert [c[f"{name}_holm"] for c in judged] == holm([c[name] for c in judged])
    (silent,) = (c.columns for c in board.comparisons if not c.difference.verdict)
    assert silent["task"] == "snli"
    assert silent["verdict"] == ""
    assert silent["no_verdict"]
    assert math.isnan(silent["p_difference_holm"])


def test_three_tasks_are_pooled_and_two_are_not(tmp_path: Path):
    parts = [
        sweep_records(better_arm("sgdm", by), task=task)
        for task, by in (("sst2", 0.02), ("sst5", 0.03), ("trec", 0.04))
    ]
    assert not board_of(tmp_path / "two", *parts[:2]).pooled
    (line,) = board_of(tmp_path / "three", *parts).pooled
    assert line.columns["tasks"] == "sst2;sst5;trec"
    assert line.columns["mean_difference"] == pytest.approx(0.03 - 0.0004 * 2 / 5)
    assert line.columns["std_over_tasks"] == pytest.approx(0.01)


def test_a_task_in_two_versions_is_not_pooled(tmp_path: Path):
    tasks = [("sst2", "v1"), ("sst2", "v2"), ("sst5", "v1"), ("trec", "v1")]
    parts = [sweep_records(better_arm("sgdm", 0.02), task=t, task_version=v) for t, v in tasks]
    assert not board_of(tmp_path, *parts).pooled


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", "lm-bff"),
        ("task_version", "other"),
        ("data_fingerprint", "other"),
        ("model_revision", "other"),
        ("max_steps", 500),
        ("batch_size", 16),
        ("k", 512),
    ],
)
def test_other_settings_are_kept_apart_and_the_field_is_named(tmp_path: Path, field: str, value: object):
    score = better_arm("sgdm", 0.02)
    sgd = sweep_records(score, arms={"sgd": {}})
    sgdm = sweep_records(score, arms={"sgdm": {"momentum": 0.9}}, **{field: value})
    board = board_of(tmp_path, sgd, sgdm)
    assert len(board.rows) == 2
    assert not board.comparisons
    (note,) = board.notes
    assert f"{field} (" in note
    assert str(value) in note


def test_rows_of_one_optimizer_are_not_merged_over_settings(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    board = board_of(tmp_path, sweep_records(score), sweep_records(score, max_steps=500))
    assert [row.columns["n_seeds"] for row in board.rows] == [5] * 4
    assert len(board.comparisons) == 2
    assert len({row.row_id for row in board.rows}) == 4


def test_runs_of_another_layout_share_no_row(tmp_path: Path):
    specs = {
        arm: make_spec(optimizer=arm, hyperparameters=hp)
        for arm, hp in (("sgd", {}), ("sgdm", {"momentum": 0.9}))
    }
    records = [
        make_record(specs["sgd"], Scores(), layout={"padding": "dynamic"}),
        make_record(specs["sgdm"], Scores(), layout={"padding": "packed"}),
    ]
    board = board_of(tmp_path, records)
    assert not board.comparisons
    assert "layout (padding=dynamic, padding=packed)" in board.notes[0]


def test_a_run_that_failed_early_stays_with_its_row(tmp_path: Path):
    def score(spec: RunSpec) -> Scores:
        return Scores(status="failed") if spec.learning_rate == 0.1 else Scores()

    board = board_of(tmp_path, sweep_records(score))
    assert [row.columns["n_failed"] for row in board.rows] == [5, 5]
    assert len(board.comparisons) == 1


def test_a_note_says_that_an_arm_without_a_finished_run_is_not_compared(tmp_path: Path):
    def score(spec: RunSpec) -> Scores:
        return Scores(status="diverged") if spec.optimizer == "sgdm" else Scores()

    board = board_of(tmp_path, sweep_records(score))
    assert board.rows[1].columns["n_diverged"] == 15
    assert math.isnan(board.rows[1].columns["test_mean"])
    assert board.notes == ["sst2: sgd and sgdm are not compared: sgdm finished no run."]


def test_a_larger_search_is_a_larger_budget(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    sgd, sgdm = {"sgd": {}}, {"sgdm": {"momentum": 0.9}}
    more = sweep_records(score, arms=sgdm, rates=(*RATES, 1.0))
    board = board_of(tmp_path / "all", sweep_records(score, arms=sgd), more)
    (pair,) = board.comparisons
    assert pair.refused
    assert pair.columns["no_verdict"] == "their search budgets differ on all seeds"
    assert pair.columns["left_out"] == "sgd missing at rate 1 on seeds 13, 21, 42, 87, 100"
    assert board.notes == [
        "sst2: optimizers with different search budgets are not compared (3 rates (0.001 0.01 0.1) for sgd; "
        "4 rates (0.001 0.01 0.1 1) for sgdm)."
    ]
    assert [each.sentence for each in board.left_out] == board.notes
    extra = make_record(make_spec(learning_rate=1.0, seed=13), Scores())
    board = board_of(tmp_path / "one", sweep_records(score), [extra])
    assert board.comparisons[0].columns["seeds"] == "21;42;87;100"
    assert board.notes[0] == (
        "sst2: sgd and sgdm are compared on 4 of 5 seeds: their search budgets differ on the others "
        "(sgdm missing at rate 1 on seed 13)."
    )
    assert board.rows[0].columns["n_missing"] == 4


def test_a_step_of_several_passes_is_a_larger_budget(tmp_path: Path):
    """Of an optimizer with a closure, such as SAM, whose step computes two gradients."""

    def both(n_rates_of_sgd: int) -> list[RunRecord]:
        rates = (0.01, 0.1, 1.0, 10.0)
        plain = sweep_records(any_scores, rates=rates[:n_rates_of_sgd], arms={"sgd": {}})
        sharp = sweep_records(any_scores, rates=rates[:2], arms={"sharp.SAM@1.0": {}})
        for place, run in enumerate(sharp):
            costs = run.costs.model_copy(update={"forward_backward_passes": 2 * run.spec.max_steps})
            sharp[place] = run.model_copy(update={"costs": costs})
        return plain + sharp

    equal_points = board_of(tmp_path / "points", both(2))
    assert equal_points.comparisons[0].refused
    n = 2 * make_spec().max_steps
    assert f"2 rates (0.01 0.1), {n:,} gradient evaluations a seed for sgd" in equal_points.notes[0]
    assert (
        f"2 rates (0.01 0.1), {2 * n:,} gradient evaluations a seed for sharp.SAM@1.0"
        in equal_points.notes[0]
    )
    assert "Each optimizer needs the same number of gradient evaluations" in equal_points.notes[0]
    equal_passes = board_of(tmp_path / "passes", both(4))
    assert not equal_passes.comparisons[0].refused


def any_scores(spec: RunSpec) -> Scores:
    return Scores(test_metric=0.75 + 0.001 * (spec.seed % 5))


def test_unequal_budgets_of_many_arms_make_one_note(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    few = sweep_records(score, arms={"sgd": {}, "sgdm": {"momentum": 0.9}})
    many = sweep_records(score, arms={"adamw": {}, "signsgd": {}}, rates=(*RATES, 1.0))
    some = sweep_records(score, arms={"qhm": {}}, rates=RATES[:1], seeds=SEEDS[:2])
    some += sweep_records(score, arms={"qhm": {}}, rates=RATES[1:], seeds=SEEDS[:1])
    board = board_of(tmp_path, few, many, some)
    compared = [c.columns for c in board.comparisons if not c.refused]
    assert [(c["first"], c["second"]) for c in compared] == [
        ("adamw", "signsgd"),
        ("qhm", "sgd"),
        ("qhm", "sgdm"),
        ("sgd", "sgdm"),
    ]
    assert [note for note in board.notes if "different search budgets" in note] == [
        "sst2: optimizers with different search budgets are not compared (3 rates (0.001 0.01 0.1) for sgd, "
        "sgdm; 4 rates (0.001 0.01 0.1 1) for adamw, signsgd; rate 0.001 on seeds 13, 21; rates 0.01, 0.1 on "
        "seed 13 for qhm)."
    ]


def test_settings_come_in_the_order_of_their_numbers(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    board = board_of(tmp_path, *(sweep_records(score, batch_size=size) for size in (1024, 16, 256, 8)))
    sizes = [row.setting["batch_size"] for row in board.rows]
    assert sizes == [8, 8, 16, 16, 256, 256, 1024, 1024]


def test_optimizers_that_share_no_seed(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    sgd = sweep_records(score, arms={"sgd": {}}, seeds=(13, 21))
    sgdm = sweep_records(score, arms={"sgdm": {"momentum": 0.9}}, seeds=(42,))
    board = board_of(tmp_path, sgd, sgdm)
    assert board.notes == ["sst2: sgd and sgdm are not compared: they share no seed."]


def test_one_optimizer_twice_is_told_apart_by_its_hyperparameters(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    both = [sweep_records(score, arms={"sgdm": {"momentum": beta}}) for beta in (0.5, 0.9)]
    board = board_of(tmp_path, *both)
    assert [row.label for row in board.rows] == ["sgdm momentum=0.5", "sgdm momentum=0.9"]
    assert len(board.comparisons) == 1


def test_several_directories_and_a_run_found_twice(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    records = sweep_records(score)
    whole = build(fill(tmp_path / "whole", records))
    parts = fill(tmp_path / "a", records[:20]), fill(tmp_path / "b", records[10:])
    assert [row.columns for row in build(*parts).rows] == [row.columns for row in whole.rows]
    assert not build(*parts).notes

    changed = make_record(records[0].spec, Scores(test_metric=0.1))
    failed = make_record(records[0].spec, Scores(status="failed"))
    stores = fill(tmp_path / "one" / "results", records), fill(tmp_path / "two" / "results", [changed])
    more = fill(tmp_path / "failed", [failed])
    for order in permutations((*stores, more)):
        clash = build(*order)
        assert [row.columns for row in clash.rows] == [row.columns for row in whole.rows]
        assert not clash.left_out
        assert clash.notes[1].startswith(
            f"1 run(s) have different results in one/results and in two/results, the first: "
            f"{records[0].spec.run_id} (sst2 sgd lr 0.001 seed 13); those in one/results count"
        )


def test_of_two_whole_directories_one_counts_for_all_runs(tmp_path: Path):
    """If it were chosen for each run, rows would mix the machines of both directories."""
    records = sweep_records(better_arm("sgdm", 0.02))
    others = [elsewhere(record) for record in sweep_records(better_arm("sgdm", 0.03))]
    stores = fill(tmp_path / "a", records), fill(tmp_path / "b", others)
    boards = [build(*order) for order in permutations(stores)]
    assert [row.columns for row in boards[0].rows] == [row.columns for row in boards[1].rows]
    assert boards[0].notes == boards[1].notes
    assert {row.columns["torch"] for row in boards[0].rows} in ({"2.12"}, {"2.13"})


def test_a_damaged_record_is_left_out_and_counted(tmp_path: Path):
    records = sweep_records(better_arm("sgdm", 0.02))
    store = fill(tmp_path, records)
    path = tmp_path / "runs" / records[0].spec.run_id / "record.json"
    path.write_text(path.read_text().replace('"done"', '"gone"'))
    board = build(store)
    assert board.notes[0].startswith("1 record(s) cannot be read and do not count")
    assert sum(row.columns["n_missing"] for row in board.rows) == 1


def test_a_protocol_of_another_version_is_a_clear_error(tmp_path: Path):
    store = fill(tmp_path, sweep_records(better_arm("sgdm", 0.02), protocol="of-tomorrow"))
    with pytest.raises(UserError, match="names protocol 'of-tomorrow', and this version knows mezo"):
        build(store)


def test_ids_of_rows_stay(tmp_path: Path):
    """Published tables have these ids. A new field of a spec, which is None in old records, changes no id."""
    board = board_of(tmp_path, sweep_records(better_arm("sgdm", 0.02)))
    assert [row.row_id for row in board.rows] == ["4b101ff93ae1a3f7", "67b45a703d5fca25"]
    assert {row.setting_id for row in board.rows} == {"3587a352"}


def failing(name: str, rate: float, state: str) -> Callable[[RunSpec], Scores]:
    """Arms that are equal within 2 points, one of which lost its best rate on all seeds."""

    def score(spec: RunSpec) -> Scores:
        if (spec.optimizer, spec.learning_rate) == (name, rate):
            return Scores(status=state)
        best = spec.learning_rate == rate
        noise = 0.001 * (SEEDS.index(spec.seed) % 3) * (spec.optimizer == "sgd")
        return Scores(0.9 if best else 0.6, test_metric=(0.8 if best else 0.5) + noise)

    return score


def test_a_rate_that_failed_was_not_searched(tmp_path: Path):
    board = board_of(tmp_path, sweep_records(failing("sgdm", 0.01, "failed")))
    (pair,) = board.comparisons
    assert pair.refused
    assert pair.columns["verdict"] == ""
    assert math.isnan(pair.columns["p_difference"])
    cells = "at rate 0.01 on seeds 13, 21, 42, 87, 100"
    assert pair.columns["left_out"] == f"sgdm failed {cells}"
    assert board.rows[1].columns["left_out"] == f"failed: {cells.removeprefix('at ')}"
    assert board.rows[0].columns["left_out"] == ""
    assert [each.sentence for each in board.left_out] == [
        "sst2: optimizers with different search budgets are not compared (2 rates (0.001 0.1) for sgdm; "
        "3 rates (0.001 0.01 0.1) for sgd).",
        f"sst2: sgdm has no result {cells} (failed).",
    ]


def test_a_rate_that_diverged_was_searched(tmp_path: Path):
    board = board_of(tmp_path, sweep_records(failing("sgdm", 0.01, "diverged")))
    assert board.comparisons[0].columns["verdict"] == "a better"
    assert not board.left_out


def test_equally_many_rates_are_not_the_same_rates(tmp_path: Path):
    """Each arm lost one rate, so both have two; but they are other rates."""
    lost = {"sgd": 0.1, "sgdm": 0.01}
    for state in ("failed", "missing"):
        records = [
            make_record(run.spec, Scores(status="failed"))
            if lost[run.spec.optimizer] == run.spec.learning_rate
            else run
            for run in sweep_records(better_arm("sgdm", 0.02))
        ]
        if state == "missing":
            records = [run for run in records if run.status == "done"]
        board = board_of(tmp_path / state, records)
        assert board.comparisons[0].refused
        assert board.comparisons[0].columns["left_out"] == (
            f"sgd {state} at rate 0.1 on seeds 13, 21, 42, 87, 100; "
            f"sgdm {state} at rate 0.01 on seeds 13, 21, 42, 87, 100"
        )
        assert board.left_out


def test_a_seed_with_unequal_searches_does_not_count(tmp_path: Path):
    def score(spec: RunSpec) -> Scores:
        lost = (spec.optimizer, spec.learning_rate, spec.seed) == ("sgd", 0.1, 42)
        return Scores(status="failed") if lost else better_arm("sgdm", 0.02)(spec)

    board = board_of(tmp_path, sweep_records(score))
    (pair,) = board.comparisons
    assert pair.columns["seeds"] == "13;21;87;100"
    assert pair.columns["left_out"] == "sgd failed at rate 0.1 on seed 42"
    assert board.rows[0].budget[42] == {Point(0.001), Point(0.01)}
    assert board.notes == [
        "sst2: sgd and sgdm are compared on 4 of 5 seeds: their search budgets differ on the others "
        "(sgd failed at rate 0.1 on seed 42).",
        "sst2: sgd has no result at rate 0.1 on seed 42 (failed).",
    ]


def test_grids_of_equal_torch_rates_are_equal_searches(tmp_path: Path):
    """As `--learning-rate-axis torch` makes them: SGDM's effective rates are ten times SGD's."""
    score = better_arm("sgdm", 0.02)
    sgd = sweep_records(score, arms={"sgd": {}})
    sgdm = sweep_records(score, arms={"sgdm": {"momentum": 0.9}}, rates=[10 * rate for rate in RATES])
    board = board_of(tmp_path, sgd, sgdm)
    assert board.comparisons[0].columns["n_pairs"] == 5
    assert not board.left_out


def test_an_optimizer_with_its_own_rate_is_compared_where_both_grids_are_whole(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    sgd = sweep_records(score, arms={"sgd": {}})
    adamw = sweep_records(score, arms={"adamw": {}}, rates=(1e-5, 1e-4, 1e-3))
    board = board_of(tmp_path / "whole", sgd, adamw)
    assert board.comparisons[0].columns["n_pairs"] == 5
    assert not board.left_out

    gap = [make_record(adamw[0].spec, Scores(status="failed")), *adamw[1:]]
    board = board_of(tmp_path / "gap", sgd, gap)
    assert board.comparisons[0].columns["seeds"] == "21;42;87;100"
    assert board.comparisons[0].columns["left_out"] == "adamw failed at rate 1e-05 on seed 13"

    more = sweep_records(score, arms={"adamw": {}}, rates=(1e-5, 1e-4, 1e-3, 1e-2))
    board = board_of(tmp_path / "more", sgd, more)
    assert board.comparisons[0].refused
    assert "different search budgets" in board.notes[0]
    assert not board.left_out  # no cell is missing: the grids have other sizes


def test_planned_runs_without_a_record_are_named(tmp_path: Path):
    records = sweep_records(better_arm("sgdm", 0.02))
    lost = [run for run in records if run.spec.learning_rate == 0.1]
    other = make_spec(task="cr", optimizer="lion", seed=21)
    specs = (*(run.spec for run in records), other)
    store = fill(tmp_path, [run for run in records if run not in lost])
    store.keep_plan(Plan(specs=specs, work=(1.0,) * len(specs)))
    board = build(store)
    assert [each.sentence for each in board.left_out] == [
        "sst2: sgd has no result at rate 0.1 on seeds 13, 21, 42, 87, 100 (missing).",
        "sst2: sgdm has no result at rate 0.1 on seeds 13, 21, 42, 87, 100 (missing).",
        "cr: lion has no result at rate 0.01 on seed 21 (missing).",
    ]
    # the tables follow from the records alone, so that they can be checked without the plan
    assert board.rows[0].columns["left_out"] == ""


OTHER_ENVIRONMENTS = {
    "device": lambda run: with_live(run, device="cuda"),
    "torch": elsewhere,
    "precision in effect": lambda run: with_live(run, autocast_dtype="bfloat16"),
    "precision of matrix products": lambda run: with_live(run, matmul_precision="high"),
    "momentum-bench": lambda run: elsewhere(run, momentum_bench="9.0"),
}


def with_live(run: RunRecord, **changes: str) -> RunRecord:
    assert run.read_back
    return run.model_copy(update={"read_back": run.read_back.model_copy(update=changes)})


def with_all_facts(run: RunRecord) -> RunRecord:
    return elsewhere(with_live(run, matmul_precision="highest"), momentum_bench="0.1.0")


@pytest.mark.parametrize("fact", OTHER_ENVIRONMENTS)
def test_rows_and_pairs_of_mixed_environments_are_refused(tmp_path: Path, fact: str):
    change = OTHER_ENVIRONMENTS[fact]
    records = list(map(with_all_facts, sweep_records(better_arm("sgdm", 0.02))))
    changed = [change(run) if run.spec.optimizer == "sgdm" else run for run in records]
    board = board_of(tmp_path / "pair", changed)
    (pair,) = board.comparisons
    assert pair.refused
    assert pair.columns["no_verdict"].startswith(f"their runs mix {fact} ")
    assert pair.columns["mixed"].startswith(f"{fact} ")
    assert "--mix-environments` allows it" in board.left_out[0].sentence
    assert [row.columns["n_seeds"] for row in board.rows] == [5, 5]  # each row by itself is sound

    changed = [change(run) if run.spec.seed == 42 else run for run in records]
    board = board_of(tmp_path / "row", changed)
    assert [row.columns["n_seeds"] for row in board.rows] == [0, 0]
    assert not board.comparisons
    assert [each.sentence.split(" has no score: its runs mix ")[0] for each in board.left_out] == [
        "sst2: sgd",
        "sst2: sgdm",
    ]
    board = board_of(tmp_path / "allowed", changed, mix_environments=True)
    (pair,) = board.comparisons
    assert pair.columns["verdict"] == "b better"
    assert pair.columns["mixed"].startswith(f"{fact} ")
    assert not board.left_out
    assert board.notes[-1].startswith(f"This leaderboard mixes {fact} ")


def test_facts_of_the_environment_stand_on_the_row(tmp_path: Path):
    board = board_of(tmp_path, list(map(with_all_facts, sweep_records(better_arm("sgdm", 0.02)))))
    columns = board.rows[0].columns
    assert [columns[name] for name in ("device", "torch", "effective_precision", "matmul_precision")] == [
        "cpu",
        "2.13",
        "float32",
        "highest",
    ]
    assert columns["momentum_bench"] == "0.1.0"
    assert not board.notes


def test_patch_versions_and_unknown_facts_do_not_mix(tmp_path: Path):
    records = sweep_records(better_arm("sgdm", 0.02))
    records[0] = elsewhere(records[0], torch="2.13.1+cu128")
    records[1] = with_all_facts(records[1])
    records[2] = records[2].model_copy(update={"environment": {}})
    board = board_of(tmp_path, records)
    assert board.comparisons[0].columns["n_pairs"] == 5
    assert not board.notes


def test_a_failed_run_of_another_environment_mixes_nothing(tmp_path: Path):
    records = sweep_records(better_arm("sgdm", 0.02))
    records[0] = elsewhere(make_record(records[0].spec, Scores(status="failed")))
    assert not any(row.mixed for row in board_of(tmp_path, records).rows)


def test_runs_of_several_commits_are_named(tmp_path: Path):
    records = sweep_records(better_arm("sgdm", 0.02))
    commits = {"sgd": "aaa", "sgdm": "bbb"}
    stated = [
        elsewhere(run, momentum_bench="0.1.0", git_commit=commits[run.spec.optimizer]) for run in records
    ]
    board = board_of(tmp_path, stated)
    assert board.comparisons[0].columns["n_pairs"] == 5
    assert board.notes == ["The runs come from 2 commits of momentum-bench 0.1.0: aaa, bbb."]
