"""From records to rows, comparisons and notes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from momentum_bench.harness.errors import UserError
from momentum_bench.harness.records.schema import RunRecord, RunSpec
from momentum_bench.harness.verdicts.paired import holm
from momentum_bench.leaderboards.build import Leaderboard, build
from tests.helpers.synthetic import RATES, SEEDS, Scores, fill, make_record, make_spec, sweep_records


def board_of(folder: Path, *parts: list[RunRecord], **options: float) -> Leaderboard:
    return build(fill(folder, [record for part in parts for record in part]), **options)


def better_arm(name: str, by: float):
    """Scores by seed with a little noise; the named optimizer scores higher. Rate 0.01 is the best."""

    def score(spec: RunSpec) -> Scores:
        test = 0.8 + 0.01 * SEEDS.index(spec.seed) + by * (spec.optimizer == name)
        test += 0.0004 * (SEEDS.index(spec.seed) % 2) * (spec.optimizer == "sgd")
        return Scores(dev_metric=0.9 if spec.learning_rate == 0.01 else 0.8, test_metric=test)

    return score


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


def test_one_shared_rate_next_to_one_for_each_seed(tmp_path: Path):
    def score(spec: RunSpec) -> Scores:
        if spec.learning_rate == 0.1 and spec.seed == 13:
            return Scores(status="diverged")
        if spec.learning_rate == 0.1:
            return Scores(dev_metric=0.95, test_metric=0.9)
        return Scores(dev_metric=0.8 if spec.learning_rate == 0.01 else 0.7, test_metric=0.6)

    c = board_of(tmp_path, sweep_records(score)).rows[0].columns
    assert c["learning_rates"] == "0.01;0.1;0.1;0.1;0.1"
    assert (c["shared_learning_rate"], c["shared_test_mean"]) == (0.01, pytest.approx(0.6))
    assert c["n_diverged"] == 1


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
    assert not board.comparisons
    assert board.notes == [
        "sst2: optimizers with different search budgets are not compared (3 rates for sgd; 4 rates for sgdm)."
    ]
    extra = make_record(make_spec(learning_rate=1.0, seed=13), Scores())
    board = board_of(tmp_path / "one", sweep_records(score), [extra])
    assert board.comparisons[0].columns["seeds"] == "21;42;87;100"
    assert "compared on 4 of 5 seeds" in board.notes[0]
    assert board.rows[0].columns["n_missing"] == 4


def test_unequal_budgets_of_many_arms_make_one_note(tmp_path: Path):
    score = better_arm("sgdm", 0.02)
    few = sweep_records(score, arms={"sgd": {}, "sgdm": {"momentum": 0.9}})
    many = sweep_records(score, arms={"adamw": {}, "signsgd": {}}, rates=(*RATES, 1.0))
    some = sweep_records(score, arms={"qhm": {}}, rates=RATES[:1], seeds=SEEDS[:2])
    some += sweep_records(score, arms={"qhm": {}}, rates=RATES[1:], seeds=SEEDS[:1])
    board = board_of(tmp_path, few, many, some)
    assert [(c.columns["first"], c.columns["second"]) for c in board.comparisons] == [
        ("adamw", "signsgd"),
        ("qhm", "sgd"),
        ("qhm", "sgdm"),
        ("sgd", "sgdm"),
    ]
    assert board.notes[-1] == (
        "sst2: optimizers with different search budgets are not compared (3 rates for sgd, sgdm; "
        "4 rates for adamw, signsgd; rates: 3 on seed 13, 1 on seed 21 for qhm)."
    )


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
    clash = build(fill(tmp_path / "first", records), fill(tmp_path / "second", [changed]))
    assert [row.columns for row in clash.rows] == [row.columns for row in whole.rows]
    assert records[0].spec.run_id in clash.notes[0]
    assert "different results" in clash.notes[0]

    failed = make_record(records[0].spec, Scores(status="failed"))
    kept = build(fill(tmp_path / "failed", [failed]), fill(tmp_path / "good", records))
    assert [row.columns for row in kept.rows] == [row.columns for row in whole.rows]


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
