"""The statistics of pairs against other implementations, as properties, and in simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from momentum_bench.harness.verdicts.paired import (
    FEWEST_PAIRS,
    LEVEL,
    MARGIN,
    PairedDifference,
    decided,
    holm,
    paired_difference,
    sign_flip_p,
    spread_floor,
    summary,
    t_tests,
)

DIFFERENCES = [0.010, -0.020, 0.030, 0.005, -0.004]


def test_summary_is_the_textbook_t_interval():
    s = summary([0.90, 0.92, 0.94, 0.91, 0.93])
    assert (s.n, s.mean, s.std) == (5, pytest.approx(0.92), pytest.approx(math.sqrt(0.00025)))
    half = 2.776445105 * math.sqrt(0.00025 / 5)  # t table, 4 degrees of freedom, 0.975
    assert (s.ci_low, s.ci_high) == (pytest.approx(0.92 - half), pytest.approx(0.92 + half))


def test_summary_of_too_few_values_is_undefined():
    assert math.isnan(summary([]).mean)
    one = summary([0.5])
    assert one.mean == 0.5
    assert math.isnan(one.std)
    assert math.isnan(one.ci_low)


def test_tost_against_statsmodels():
    weightstats = pytest.importorskip("statsmodels.stats.weightstats", reason="statsmodels is the oracle")
    rng = np.random.default_rng(3)
    for n in (3, 5, 12):
        first, second = rng.normal(0.9, 0.01, n), rng.normal(0.9, 0.01, n)
        expected = weightstats.ttost_paired(second, first, -MARGIN, MARGIN)[0]
        d = paired_difference(list(second - first))
        assert d.p_equivalence == pytest.approx(expected, rel=1e-9)


def test_the_t_test_against_scipy():
    expected = ttest_1samp(DIFFERENCES, 0.0)
    d = paired_difference(DIFFERENCES)
    assert d.p_difference == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.9)
    assert (d.ci90_low, d.ci90_high) == pytest.approx((interval.low, interval.high))


def test_holm_against_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is the oracle")
    p_values = [0.01, 0.04, 0.03, 0.005, 0.03, 0.9]
    assert holm(p_values) == pytest.approx(list(multitest.multipletests(p_values, method="holm")[1]))
    assert holm([]) == []


def test_sign_flips_are_enumerated():
    # 5 pairs of one sign: only all + and all - are as extreme, 2 of 32 patterns
    assert sign_flip_p([0.01, 0.02, 0.03, 0.04, 0.05]) == 2 / 32
    # sums of +-1 +-1 +-2: 4, 2, 2, 0, 0, -2, -2, -4; six of eight are as far from 0 as the 2 found
    assert sign_flip_p([0.01, -0.01, 0.02]) == 6 / 8


def verdict_alone(differences: list[float], floor: float = 0.0, learned: bool = True) -> PairedDifference:
    """The difference with its verdict where it is the only comparison and has one look."""
    d = paired_difference(differences, floor=floor)
    return decided(d, d.p_difference, d.p_equivalence, learned)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.001, -0.001, 0.002, 0.0, -0.002], "equivalent"),
        ([0.030, 0.031, 0.029, 0.032, 0.030], "b better"),
        ([-0.030, -0.031, -0.029, -0.032, -0.030], "a better"),
        # a real but small difference: both tests hold, and equivalence is the verdict
        ([0.0050, 0.0051, 0.0049, 0.0052, 0.0050], "equivalent"),
        (DIFFERENCES, "inconclusive"),
    ],
)
def test_verdicts(differences, expected):
    d = verdict_alone(differences)
    assert d.verdict == expected
    assert d.no_verdict == ""


@pytest.mark.parametrize("differences", [[0.01], [0.01, 0.02], [0.0, 0.0]])
def test_no_verdict_without_evidence(differences):
    d = verdict_alone(differences)
    assert d.verdict is None
    assert d.no_verdict


def test_equal_differences_are_evidence_as_far_as_the_test_rows_allow():
    # the models agree on every row: as equal as can be
    assert verdict_alone([0.0] * 5).verdict == "equivalent"
    # 3 % of 1,000 rows differ, so a difference has a standard deviation of 0.55 points at least
    floor = spread_floor([0.03] * 5, [1000] * 5)
    assert floor == pytest.approx(math.sqrt(0.03 / 1000))
    assert verdict_alone([0.001] * 5, floor).verdict == "equivalent"
    # 20 % of 100 rows: nothing is shown
    wide = verdict_alone([0.0] * 5, spread_floor([0.2] * 5, [100] * 5))
    assert wide.verdict == "inconclusive"
    assert wide.ci_high > MARGIN
    assert verdict_alone([0.02] * 5, floor).verdict == "b better"


def test_unequal_differences_do_not_need_the_floor():
    assert paired_difference(DIFFERENCES, floor=0.5) == paired_difference(DIFFERENCES)


def test_arms_that_learned_nothing_are_not_equivalent():
    assert verdict_alone([0.0, 0.001, -0.001, 0.0], learned=False).verdict == "not learned"
    assert verdict_alone([0.030, 0.031, 0.029, 0.032], learned=False).verdict == "b better"


def test_the_90_percent_interval_is_within_the_margin_where_equivalence_is_shown():
    rng = np.random.default_rng(4)
    for _ in range(300):
        d = verdict_alone(list(rng.normal(0.0, 0.008, 5)))
        inside = d.ci90_low > -MARGIN and d.ci90_high < MARGIN
        assert inside == (d.verdict == "equivalent")


def test_bad_arguments_are_refused():
    for differences, margin in (([], MARGIN), ([0.1, 0.2, 0.3], 0.0), ([0.1, 0.2, 0.3], math.nan)):
        with pytest.raises(ValueError, match="margin"):
            paired_difference(differences, margin)


# Power at margin 1 point and true difference 0, found by an independent simulation, to two digits.
POWERS = {
    (5, 0.004): 0.995,
    (5, 0.007): 0.68,
    (5, 0.010): 0.30,
    (5, 0.015): 0.07,
    (10, 0.004): 1.0,
    (10, 0.007): 0.99,
    (10, 0.010): 0.80,
    (10, 0.015): 0.28,
}


def decide(differences, margin=MARGIN):
    mean, std = float(np.mean(differences)), float(np.std(differences, ddof=1))
    d = PairedDifference(len(differences), mean, std, margin)
    return decided(d, *t_tests(mean, std, len(differences), margin)).verdict


@pytest.mark.parametrize("cell", [(5, 0.007), (5, 0.010), (10, 0.010), (10, 0.015)])
def test_without_a_difference_the_verdict_is_rarely_wrong_and_has_its_power(cell):
    n, std = cell
    repeats = 1000
    draws = np.random.default_rng(20).normal(0.0, std, (repeats, n))
    verdicts = [decide(d) for d in draws]
    better = sum(v in ("a better", "b better") for v in verdicts) / repeats
    assert better <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / repeats)
    allowance = 3 * math.sqrt(POWERS[cell] * (1 - POWERS[cell]) / repeats)
    assert verdicts.count("equivalent") / repeats == pytest.approx(POWERS[cell], abs=allowance + 0.005)


def test_a_difference_of_the_margin_is_rarely_called_equivalent():
    repeats = 1000
    draws = np.random.default_rng(21).normal(MARGIN, 0.004, (repeats, 5))
    equivalent = sum(decide(d) == "equivalent" for d in draws) / repeats
    assert equivalent <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / repeats)


# Scores as a test set of 1,000 examples gives them.
scores = st.integers(0, 1000).map(lambda n: n / 1000)
pairs = st.lists(st.tuples(scores, scores), min_size=FEWEST_PAIRS, max_size=8)
MIRRORED = {"a better": "b better", "b better": "a better"}


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_swapping_the_arms_mirrors_everything(pairs):
    forth = verdict_alone([b - a for a, b in pairs], floor=0.005)
    back = verdict_alone([a - b for a, b in pairs], floor=0.005)
    assert back.verdict == MIRRORED.get(forth.verdict, forth.verdict)
    same = pytest.approx
    assert back.mean == same(-forth.mean, abs=1e-12)
    assert (back.ci_low, back.ci_high) == same((-forth.ci_high, -forth.ci_low), abs=1e-9, nan_ok=True)
    for name in ("p_difference", "p_equivalence"):
        assert getattr(back, name) == same(getattr(forth, name), rel=1e-6, abs=1e-12, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(pairs, st.integers(-500, 500), st.sampled_from([0.5, 2.0, 10.0]))
def test_what_both_arms_share_does_not_matter_and_units_do_not_either(pairs, shift, scale):
    plain = verdict_alone([b - a for a, b in pairs])
    moved = verdict_alone([(b + shift / 1000) - (a + shift / 1000) for a, b in pairs])
    assert moved == plain or all(
        getattr(moved, name) == pytest.approx(getattr(plain, name), rel=1e-6, abs=1e-9, nan_ok=True)
        for name in ("mean", "std", "ci_low", "ci_high", "p_difference", "p_equivalence")
    )
    scaled = paired_difference([scale * (b - a) for a, b in pairs], margin=scale * MARGIN)
    assert (scaled.p_difference, scaled.p_equivalence) == pytest.approx(
        (plain.p_difference, plain.p_equivalence), rel=1e-6, abs=1e-9
    )
    assert scaled.ci_high == pytest.approx(scale * plain.ci_high, rel=1e-6, abs=1e-9, nan_ok=True)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_monotone_and_never_below_the_raw_value(p_values):
    adjusted = holm(p_values)
    assert all(raw <= high <= 1 for raw, high in zip(p_values, adjusted, strict=True))
    in_order = [high for _, high in sorted(zip(p_values, adjusted, strict=True))]
    assert in_order == sorted(in_order)
