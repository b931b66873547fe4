"""Rows whose sweeps tune further axes next to the learning rate."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from momentum_bench.harness.records.schema import Point, RunRecord, RunSpec
from momentum_bench.leaderboards.build import Leaderboard, build
from momentum_bench.leaderboards.checking.check import departures
from momentum_bench.leaderboards.rendering.files import contents
from momentum_bench.leaderboards.reproduce import sweep_text
from momentum_bench.leaderboards.tables import tables_of
from tests.helpers.submissions import submission, whole_record
from tests.helpers.synthetic import fill, make_spec

RATES, SIZES, BETAS = (0.01, 0.1, 1.0), (4, 8), (0.5, 0.9, 0.99)
SEEDS = (13, 21, 42)
BEST = {13: (0.1, 8, 0.9), 21: (0.1, 4, 0.99), 42: (1.0, 4, 0.5)}
"""The rate, batch size and momentum that dev prefers on each seed."""


def scored(spec: RunSpec) -> RunRecord:
    """A record whose dev metric is highest at the best point of its seed."""
    made = whole_record(spec.model_copy(update={"learning_rate": min(spec.learning_rate, 0.1)}))
    assert made.read_back
    assert made.split
    beta = spec.hyperparameters.get("momentum", 0.0)
    torch_rate = spec.learning_rate * round(1 - beta, 12)
    group = made.read_back.param_groups[0] | {"lr": torch_rate, "momentum": beta}
    read_back = made.read_back.model_copy(
        update={"torch_learning_rate": torch_rate, "param_groups": (group,)}
    )
    rate, size, beta = BEST[spec.seed]
    near = (spec.learning_rate == rate) + (spec.batch_size == size)
    near += spec.hyperparameters.get("momentum", beta) == beta
    last = made.evaluations[-1].model_copy(update={"dev_metric": 0.7 + 0.05 * near})
    first = made.evaluations[0]
    return made.model_copy(
        update={"spec": spec, "read_back": read_back, "evaluations": (first, last), "dev": None}
    )


def sgdm_grid(**changes: Any) -> list[RunRecord]:
    return [
        scored(
            make_spec(
                **{"optimizer": "sgdm", "hyperparameters": {"momentum": beta}, "eval_every": 500}
                | {"seed": seed, "learning_rate": rate, "batch_size": size}
                | {"tuned": ("batch_size", "momentum")}
                | changes
            )
        )
        for seed, rate, size, beta in product(SEEDS, RATES, SIZES, BETAS)
    ]


def sgd_grid(rates: tuple[float, ...] = RATES) -> list[RunRecord]:
    return [
        scored(
            make_spec(seed=seed, learning_rate=rate, batch_size=size, eval_every=500, tuned=("batch_size",))
        )
        for seed, rate, size in product(SEEDS, rates, SIZES)
    ]


def board_of(folder: Path, *grids: list[RunRecord]) -> Leaderboard:
    return build(fill(folder, [run for grid in grids for run in grid]))


def test_the_row_is_the_best_of_the_product_by_dev_and_edges_are_told_on_three_axes(tmp_path: Path):
    [row] = board_of(tmp_path, sgdm_grid()).rows
    c = row.columns
    chosen = {seed: run.spec.point for seed, run in row.chosen.items()}
    assert chosen == {
        seed: Point(rate, (("batch_size", size), ("momentum", beta)))
        for seed, (rate, size, beta) in BEST.items()
    }
    assert c["chosen_settings"] == (
        "batch_size=8 momentum=0.9;batch_size=4 momentum=0.99;batch_size=4 momentum=0.5"
    )
    assert (c["axes"], c["grid"]) == ("batch_size=4/8 momentum=0.5/0.9/0.99", "0.01;0.1;1")
    assert (c["n_runs"], c["n_missing"], c["hyperparameters"]) == (54, 0, "momentum=tuned")
    assert (c["on_grid_edge"], c["ends"]) == (2, "learning_rate=1 batch_size=3 momentum=2")
    assert "batch_size=tuned" in c["protocol"]


def test_runs_without_tuned_axes_stay_rows_of_their_own(tmp_path: Path):
    rows = board_of(tmp_path, sgdm_grid(tuned=None)).rows
    assert len(rows) == len(SIZES) * len(BETAS)
    assert {row.columns["axes"] for row in rows} == {""}


def test_a_smaller_grid_is_not_compared_and_the_sentence_says_what_to_type(tmp_path: Path):
    board = board_of(tmp_path, sgdm_grid(), sgd_grid())
    assert [pair.refused for pair in board.comparisons] == [True]
    [note] = [note for note in board.notes if "search budgets" in note]
    assert "6 points (learning rates 0.01 0.1 1; batch_size=4/8) for sgd" in note
    assert "18 points (learning rates 0.01 0.1 1; batch_size=4/8 momentum=0.5/0.9/0.99) for sgdm" in note
    assert "--learning-rates" in note
    assert not board.left_out


def test_equally_many_points_are_compared_and_a_failed_one_is_not(tmp_path: Path):
    nine = (*RATES, 0.02, 0.03, 0.05, 0.2, 0.3, 0.5)
    of_sgd = sgd_grid(nine)
    board = board_of(tmp_path / "whole", sgdm_grid(), of_sgd)
    [pair] = board.comparisons
    assert (pair.refused, pair.columns["n_pairs"]) == (False, 3)
    lost = of_sgd[0].spec
    failed = RunRecord(spec=lost, metric="accuracy", status="failed", failure="made up")
    board = board_of(tmp_path / "failed", sgdm_grid(), [failed, *of_sgd[1:]])
    [pair] = board.comparisons
    assert pair.columns["n_pairs"] == 2
    assert pair.columns["left_out"] == "sgd failed at rate 0.01 (batch_size=4) on seed 13"


def test_a_missing_point_of_one_seed_is_named(tmp_path: Path):
    [row] = board_of(tmp_path, sgdm_grid()[1:]).rows
    assert row.columns["n_missing"] == 1
    assert row.columns["left_out"] == "missing: rate 0.01 (batch_size=4 momentum=0.5) on seed 13"


def test_tables_of_the_learning_rate_alone_leave_such_rows_out_and_all_files_are_written(tmp_path: Path):
    board = board_of(tmp_path, sgdm_grid(), sgd_grid((*RATES, 0.02, 0.03, 0.05, 0.2, 0.3, 0.5)))
    tables = tables_of(board)
    assert [tables[name] for name in ("tuning_budget", "sensitivity", "matched_differences")] == [[], [], []]
    page = contents(board)["index.html"]
    assert isinstance(page, str)
    assert "0.1 (batch_size=8 momentum=0.9)" in page


def test_check_finds_nothing_in_such_a_board(tmp_path: Path):
    assert departures(submission(tmp_path, [*sgdm_grid(), *sgd_grid()])) == []


def test_the_sweep_behind_such_a_row_has_its_axes(tmp_path: Path):
    [row] = board_of(tmp_path, sgdm_grid(task="mine")).rows
    text = sweep_text(row)
    assert "\nbatch_size = [4, 8]\n" in text
    assert "\nmomentum = [0.5, 0.9, 0.99]\n" in text


@pytest.mark.parametrize("tuned", [(), ("momentum",), ("weight_decay", "batch_size"), ("seed",)])
def test_a_spec_with_axes_that_it_cannot_have_is_no_spec(tuned: tuple[str, ...]):
    with pytest.raises(ValidationError):
        make_spec(tuned=tuned)
