"""The words that tell the rows of a leaderboard apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from momentum_bench.harness.records.schema import RunRecord
from momentum_bench.leaderboards.build import board_of
from momentum_bench.leaderboards.rendering.plots import forest_labels
from momentum_bench.leaderboards.rendering.wording import context
from tests.helpers.synthetic import Scores, sweep_records


def records(**setting: object) -> list[RunRecord]:
    return sweep_records(lambda spec: Scores(test_metric=0.8 + 0.001 * spec.seed), **setting)


def test_what_all_rows_share_is_said_once():
    rows = board_of([*records(), *records(task="cr")]).rows
    words = context(rows)
    assert words.shared == ["model made-up/model", "method prompt", "k = 16", "protocol mezo"]
    assert [words.of(row) for row in rows] == [[]] * 4
    assert forest_labels(board_of([*records(), *records(task="cr")])) == ["cr", "sst2"]


def test_settings_are_named_where_they_differ_and_short_names_are_minimal():
    board = board_of([r for size in (16, 1024) for r in records(batch_size=size, max_steps=size, k=0)])
    words = context(board.rows)
    assert words.shared == ["model made-up/model", "method prompt", "all training rows", "protocol mezo"]
    assert [words.of(row) for row in board.rows[::2]] == [
        ["batch_size=16", "max_steps=16"],
        ["batch_size=1024", "max_steps=1024"],
    ]
    assert words.short(board.rows[0]) == ["batch_size=16"]
    assert forest_labels(board) == ["sst2, batch_size=16", "sst2, batch_size=1024"]


def test_a_row_without_a_setting_that_others_state_is_told_apart_too():
    board = board_of([*records(), *records(batch_size=2), *records(model="other")])
    words = context(board.rows)
    assert sorted(tuple(words.of(row)) for row in board.rows[::2]) == [
        ("model made-up/model",),
        ("model made-up/model", "batch_size=2"),
        ("model other",),
    ]
    assert forest_labels(board) == ["sst2, made-up/model", "sst2, made-up/model, batch_size=2", "sst2, other"]


def test_no_rows_have_no_context():
    assert context([]).shared == []


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("sgd", "SGD"),
        ("sgdm momentum=0.9", "SGDM momentum=0.9"),
        ("sgd_matched", "sgd_matched"),
        ("torch.optim.NAdam betas=0.8/0.9", "torch.optim.NAdam betas=0.8/0.9"),
    ],
)
def test_a_sentence_names_an_optimizer_as_it_is_typed_unless_it_is_an_abbreviation(label: str, name: str):
    assert replace(board_of(records()).rows[0], label=label).name == name
