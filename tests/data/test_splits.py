from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from momentum_bench.harness.data.examples import Example, TaskData
from momentum_bench.harness.data.splits import (
    CANONICAL_SEEDS,
    FewShotSplit,
    draw_split,
    few_shot_split,
    select_test_rows,
    shuffled_rows,
)
from momentum_bench.harness.errors import UserError
from momentum_bench.harness.seeds import batch_indices, derived_seed
from momentum_bench.tasks import get_task

LABELS = st.lists(st.integers(0, 2), min_size=12, max_size=80)
SEEDS = st.integers(0, 2**32 - 1)


def split_of(labels: list[int], n_classes: int, k: int, seed: int) -> FewShotSplit:
    return few_shot_split(labels, n_classes, k, shuffled_rows(len(labels), seed))


def by_the_reference(labels: list[int], k: int, seed: int) -> tuple[list[int], list[int]]:
    """LM-BFF's procedure, in its own terms: global generator, in-place shuffle, dict of lists."""
    state = np.random.get_state()
    rows = list(range(len(labels)))
    np.random.seed(seed)
    np.random.shuffle(rows)
    np.random.set_state(state)
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(labels[row], []).append(row)
    train = [row for group in groups.values() for row in group[:k]]
    dev = [row for group in groups.values() for row in group[k : 2 * k]]
    return train, dev


@given(LABELS, st.integers(1, 10), SEEDS)
def test_the_split_is_the_reference_procedure(labels: list[int], k: int, seed: int):
    sizes = [labels.count(c) for c in range(3)]
    assume(min(sizes) > 0 and sum(size > k for size in sizes) >= 2)
    split = split_of(labels, 3, k, seed)
    assert (split.train, split.dev) == by_the_reference(labels, k, seed)
    assert not set(split.train) & set(split.dev)
    assert split.short_classes == [c for c in range(3) if sizes[c] < 2 * k]


@pytest.mark.parametrize(
    ("seed", "order"),
    [(13, "3561478902"), (21, "1273560489"), (42, "8150729436"), (87, "2475103896"), (100, "7615420398")],
)
def test_the_shuffle_is_numpys_legacy_one(seed: int, order: str):
    """The orders are those in which numpy's legacy shuffle leaves 0 .. 9."""
    rows = [int(digit) for digit in order]
    assert shuffled_rows(10, seed) == rows
    low, high = [row for row in rows if row < 5], [row for row in rows if row >= 5]
    first, second = (low, high) if rows[0] < 5 else (high, low)
    split = split_of([0] * 5 + [1] * 5, 2, 2, seed)
    assert split.train == first[:2] + second[:2]
    assert split.dev == first[2:4] + second[2:4]


def test_shuffles_of_the_canonical_seeds_accumulate_whichever_was_asked_for():
    assert shuffled_rows(10, 100, accumulate=True) == shuffled_rows(10, 100)
    assert shuffled_rows(10, 87, accumulate=True) == [9, 4, 3, 8, 0, 7, 2, 6, 5, 1]
    assert shuffled_rows(10, 7, accumulate=True) == shuffled_rows(10, 7)


@given(st.integers(1, 60), st.sampled_from(CANONICAL_SEEDS))
def test_accumulating_is_shuffling_one_list_in_place(n: int, seed: int):
    rows = list(range(n))
    for each in CANONICAL_SEEDS:
        np.random.RandomState(each).shuffle(rows)
        if each == seed:
            break
    assert shuffled_rows(n, seed, accumulate=True) == rows


@pytest.mark.parametrize(
    ("name", "protocol", "accumulates"),
    [("cola", "lm-bff", True), ("cola", "mezo", False), ("sst2", "lm-bff", False)],
)
def test_only_cola_under_lm_bff_accumulates(name: str, protocol: str, accumulates: bool):
    rows = [Example((str(i),), i % 2) for i in range(40)]
    data = TaskData(get_task(name), rows, rows, "folder", "f", 0, 0)
    labels = [row.label for row in rows]
    expected = few_shot_split(labels, 2, 3, shuffled_rows(40, 42, accumulates))
    assert draw_split(data, 3, 42, protocol) == expected


def test_the_capped_test_set_is_mezos_draw():
    assert select_test_rows(1043, 1000)[:5] == [1035, 280, 535, 822, 643]
    assert len(select_test_rows(1043, 1000)) == 1000
    assert select_test_rows(872, 1000) == list(range(872))
    assert select_test_rows(5, None) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0] * 50, "no example of class 1"), ([0] * 50 + [1] * 4, "fewer than two classes with dev rows")],
)
def test_too_few_rows_are_an_error(labels: list[int], message: str):
    with pytest.raises(UserError, match=message):
        split_of(labels, 2, 4, 13)


def _rows(data_dir: Path, task: str) -> list[dict]:
    with gzip.open(data_dir / task / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _csv(rows: list[tuple[int, str]]) -> str:
    text = io.StringIO()
    pd.DataFrame(rows).to_csv(text, header=False, index=False)
    return text.getvalue()


def test_the_files_of_lm_bff_come_out_byte_for_byte(data_dir: Path):
    """The md5 sums are those that LM-BFF publishes for its 16-shot files of seed 13."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    rows = _rows(data_dir, "sst2")
    split = split_of([row["label"] for row in rows], 2, 16, 13)
    for part, expected in zip(
        split[:2], ("fe166f3b9e9952cb729a8d2c3bd682ae", "0eeeb2195d82899d15ab5eeaddcaa944"), strict=True
    ):
        lines = [f"{rows[i]['sentence']}\t{rows[i]['label']}\n" for i in part]
        assert md5("sentence\tlabel\n" + "".join(lines)) == expected

    rows = _rows(data_dir, "sst5")
    split = split_of([row["label"] for row in rows], 5, 16, 13)
    assert md5(_csv([(rows[i]["label"], rows[i]["text"]) for i in split.train])) == (
        "c446d010f7ea4846be28d58d81169648"
    )

    rows = _rows(data_dir, "trec")
    lm_bff_labels = {2: 0, 1: 1, 0: 2, 3: 3, 4: 4, 5: 5}
    labels = [lm_bff_labels[row["coarse_label"]] for row in rows]
    split = split_of(labels, 6, 16, 13)
    assert md5(_csv([(labels[i], rows[i]["text"]) for i in split.train])) == (
        "50cff1542195f5321cb951ca1d980ec0"
    )


def test_trec_at_512_is_short_but_possible(data_dir: Path):
    labels = [row["coarse_label"] for row in _rows(data_dir, "trec")]
    split = split_of(labels, 6, 512, 13)
    assert (len(split.train), len(split.dev)) == (2646, 2243)
    assert 0 in split.short_classes
    with pytest.raises(UserError):
        split_of(labels, 6, 10000, 13)


@given(SEEDS, st.integers(1, 20), st.integers(1, 9), st.integers(1, 4))
def test_every_epoch_sees_every_example_once(seed: int, n: int, batch_size: int, epochs: int):
    steps = -(-epochs * n // batch_size)
    seen = [i for step in range(steps) for i in batch_indices(seed, step, n, batch_size)]
    assert len(seen) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(SEEDS, st.integers(0, 1000))
def test_a_batch_depends_on_its_arguments_alone(seed: int, step: int):
    before = batch_indices(seed, step, 32, 8)
    np.random.random(3)
    batch_indices(seed + 1, step, 32, 8)
    assert batch_indices(seed, step, 32, 8) == before


def test_derived_seeds_differ_by_purpose_seed_and_position():
    seeds = {
        derived_seed(s, purpose, position)
        for s in range(20)
        for purpose in ("head", "order", "dropout")
        for position in range(20)
    }
    assert len(seeds) == 20 * 3 * 20
    # Frozen: another number here means other runs for the same spec, hence a new protocol version.
    assert derived_seed(13, "head") == 133998162
