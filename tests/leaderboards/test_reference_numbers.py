"""Published numbers follow the stated formula, and are shown only if a row of ours fits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from momentum_bench.leaderboards.build import build
from momentum_bench.leaderboards.reference_numbers import matching, published_lines
from momentum_bench.leaderboards.rendering.page import page
from momentum_bench.leaderboards.rows import rows_of
from momentum_bench.leaderboards.tables import csv_tables
from tests.helpers.synthetic import RATES, Scores, fill, sweep_records


def score(_: object) -> Scores:
    return Scores()


def test_published_lines_are_consistent():
    for line in published_lines():
        assert 0 < float(line["test_mean"]) < 1
        assert bool(line["test_std_reported"]) == bool(line["n_seeds"])
        assert bool(line["test_std_ddof1"]) == bool(line["ddof"])
        if line["ddof"]:
            n, ddof = int(line["n_seeds"]), int(line["ddof"])
            converted = float(line["test_std_reported"]) * math.sqrt((n - ddof) / (n - 1))
            assert float(line["test_std_ddof1"]) == pytest.approx(converted, rel=1e-9)


def test_no_result_is_there_twice():
    names = ("source", "task", "model", "method", "optimizer", "k", "metric", "test_set")
    keys = [tuple(line[name] for name in names) for line in published_lines()]
    assert len(set(keys)) == len(keys)


def test_only_lines_of_our_task_model_method_and_k_are_shown():
    (line,) = {
        tuple(
            (found["source"], found["optimizer"], found["test_mean"]) for found in matching(rows_of(records))
        )
        for model in ("roberta-large", "FacebookAI/roberta-large")
        if (records := sweep_records(score, task="trec", model=model, seeds=(13,)))
    }
    mezo = "MeZO (Malladi et al. 2023)"
    assert line == ((mezo, "MeZO", "0.769"), (mezo, "Adam", "0.85"))
    others: tuple[dict, ...] = (
        {"model": "roberta-base"},
        {"k": 32},
        {"task": "bbc_news"},
        {"method": "head"},
    )
    for other in (*others, {"peft": "ia3"}, {"freeze": "encoder"}):
        changes = {"task": "trec", "model": "roberta-large", "seeds": (13,)} | other
        assert not matching(rows_of(sweep_records(score, rates=RATES[:1], **changes)))


@pytest.mark.parametrize(
    ("changes", "method", "k"),
    [
        ({"peft": "lora"}, "prompt LoRA", "16"),
        ({"peft": "prefix"}, "prompt prefix", "16"),
        ({"max_steps": 0}, "zero-shot prompt", "0"),
    ],
)
def test_adapters_and_zero_shot_match_lines_of_their_kind(changes: dict, method: str, k: str):
    common = {
        "task": "sst2",
        "model": "roberta-large",
        "method": "prompt",
        "seeds": (13,),
        "rates": RATES[:1],
    }
    found = matching(rows_of(sweep_records(score, **common | changes)))
    assert found
    assert {(line["method"], line["k"]) for line in found} == {(method, k)}


def test_they_have_their_own_part_of_the_page_and_are_in_no_table(tmp_path: Path):
    board = build(fill(tmp_path, sweep_records(score, task="trec", model="roberta-large", seeds=(13, 21))))
    text = page(board, {}, {})
    assert text.index("Published elsewhere") > text.index("Cost of each row")
    assert "MeZO (Malladi et al. 2023)" in text
    assert "MeZO" not in "".join(csv_tables(board).values())  # the protocol is called mezo
    both = build(fill(tmp_path / "both", sweep_records(score, model="roberta-large", seeds=(13, 21))))
    assert 'id="elsewhere-2"' in page(both, {}, {})  # sources are not mixed in one table
    other = build(fill(tmp_path / "other", sweep_records(score, seeds=(13, 21))))
    assert "Published elsewhere" not in page(other, {}, {})
