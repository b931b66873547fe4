"""Does momentum pay? What a leaderboard says of optimizers that differ in momentum alone."""

from __future__ import annotations

import pytest

from momentum_bench.harness.records.schema import RunSpec
from momentum_bench.leaderboards.build import Leaderboard, board_of
from momentum_bench.leaderboards.rendering.files import contents
from momentum_bench.leaderboards.tables import tables_of
from momentum_bench.leaderboards.twins import are_twins, momentum_answers
from tests.helpers.published import PUBLISHED, published_board
from tests.helpers.synthetic import Scores, sweep_records

ADAM = {"beta2": 0.999, "eps": 1e-8}


Arms = dict[str, dict[str, float]]


def board(arms: Arms, *more: Arms, gain: float = 0.0) -> Leaderboard:
    def score(spec: RunSpec) -> Scores:
        momentum = max(spec.hyperparameters.get("momentum", 0), spec.hyperparameters.get("beta1", 0))
        return Scores(test_metric=0.8 + 0.0001 * (spec.seed % 7) + gain * momentum)

    return board_of([record for each in (arms, *more) for record in sweep_records(score, arms=each)])


@pytest.mark.parametrize(
    ("arms", "more"),
    [
        ({"sgd": {}, "sgdm": {"momentum": 0.9}}, None),
        ({"signsgd": {}, "signum": {"momentum": 0.9}}, None),
        ({"adamw": {"beta1": 0.0, **ADAM}}, {"adamw": {"beta1": 0.9, **ADAM}}),
        ({"sgdm": {"momentum": 0.0}}, {"sgdm": {"momentum": 0.9}}),
    ],
)
@pytest.mark.parametrize(
    ("gain", "words"),
    [(0.1, "yes"), (-0.1, "no, it costs"), (0.0, "no, it makes no difference")],
)
def test_each_pair_of_twins_has_an_answer(arms: dict, more: dict | None, gain: float, words: str):
    found = board(arms, *([more] if more else []), gain=gain)
    (answer,) = momentum_answers(found.comparisons)
    assert answer.words == words
    assert answer.mean == pytest.approx(0.9 * gain, abs=1e-9)
    assert answer.low <= answer.mean <= answer.high
    assert 0.9 in answer.with_momentum.runs[0].spec.hyperparameters.values()
    page = contents(found)["index.html"]
    assert isinstance(page, str)
    assert "Does momentum pay?" in page
    assert words in page


def test_twins_of_one_name_are_told_apart_in_each_table_and_on_the_page():
    found = board({"adamw": {"beta1": 0.0, **ADAM}}, {"adamw": {"beta1": 0.9, **ADAM}})
    tables, n_found = tables_of(found), 0
    for lines in tables.values():
        for line in lines:
            if "first" in line:
                given = line["first_hyperparameters"], line["second_hyperparameters"]
                assert given == tuple(f"beta1={b};beta2=0.999;eps=1e-08" for b in ("0.9", "0"))
                n_found += 1
    assert n_found > 2
    assert [row.label for row in found.rows] == ["adamw beta1=0.9", "adamw beta1=0"]
    page = str(contents(found)["index.html"])
    assert "adamw beta1=0 instead of adamw beta1=0.9" in page
    assert "adamw beta1=0 - adamw beta1=0.9" in page


@pytest.mark.parametrize(
    "arms",
    [
        {"sgd": {}, "signum": {"momentum": 0.9}},
        {"sgdm": {"momentum": 0.9}, "nesterov": {"momentum": 0.9}},
        {"sgd": {}, "sgd_matched": {"momentum": 0.9}},
        {"sgd": {}, "adamw": {"beta1": 0.9, **ADAM}},
    ],
)
def test_other_pairs_are_no_twins(arms: dict[str, dict[str, float]]):
    found = board(arms)
    assert momentum_answers(found.comparisons) == []
    assert "Does momentum pay?" not in str(contents(found)["index.html"])


def test_a_momentum_that_is_tuned_may_be_zero():
    def score(spec: RunSpec) -> Scores:
        return Scores(
            test_metric=0.8 + 0.0001 * (spec.seed % 7) + 0.1 * spec.hyperparameters.get("momentum", 0)
        )

    records = sweep_records(score, arms={"sgd": {}})
    for momentum in (0.0, 0.9):
        records += sweep_records(score, arms={"sgdm": {"momentum": momentum}}, tuned=("momentum",))
    found = board_of(records)
    (row,) = (row for row in found.rows if row.columns["optimizer"] == "sgdm")
    assert row.runs[0].spec.hyperparameters == {"momentum": 0.0}
    (plain,) = (row for row in found.rows if row.columns["optimizer"] == "sgd")
    assert are_twins(plain, row)
    assert not are_twins(row, plain)


def test_other_hyperparameters_must_be_equal():
    found = board({"adamw": {"beta1": 0.0, **ADAM}}, {"adamw": {"beta1": 0.9, "beta2": 0.9, "eps": 1e-8}})
    assert len(found.comparisons) == 1
    assert momentum_answers(found.comparisons) == []


def test_the_published_digits_have_one_answer_for_each_batch_size_momentum_and_question():
    answers = momentum_answers(published_board("digits-momentum").comparisons)
    assert len(answers) == 3 * 3 * 2
    assert {answer.without.label for answer in answers} == {"sgd"}
    matched = [answer for answer in answers if answer.comparison.question == "matched"]
    assert [answer.words for answer in matched].count("yes") == 3


def test_rates_of_their_own_stand_in_the_order_of_the_optimizers():
    page = (PUBLISHED / "rivals-minilm" / "index.html").read_text(encoding="utf-8")
    answers = momentum_answers(published_board("rivals-minilm").comparisons)
    own = [answer for answer in answers if answer.comparison.question == "own"]
    for answer in own:
        pair = answer.comparison
        for between, rows in (
            (", ", (answer.without, answer.with_momentum)),
            (" - ", (pair.second, pair.first)),
        ):
            labels = between.join(row.label for row in rows)
            rates = " and ".join(f"{min(row.grid).learning_rate:g}" for row in rows)
            assert f'>{labels}<span class="sub">own rates, {rates}</span>' in page
    assert {len({min(row.grid).learning_rate for row in (a.without, a.with_momentum)}) for a in own} == {1, 2}
