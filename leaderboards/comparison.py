"""One comparison of two rows, and what it says in words. Differences are in points there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from momentum_bench.harness.records.design import Design
from momentum_bench.harness.records.schema import Settings, settings_text
from momentum_bench.harness.verdicts.advice import MOST_SEEDS, Advice, advice
from momentum_bench.harness.verdicts.paired import LEVEL, PairedDifference, in_points
from momentum_bench.harness.verdicts.sequential import AtLook
from momentum_bench.leaderboards.columns import metric_on_test
from momentum_bench.leaderboards.rows import Row

AT = {"matched": "matched rates", "own": "their own rates"}
IN_WORDS = {"tuned": ", tuned"} | {question: f", at {rates}" for question, rates in AT.items()}
"""What a sentence over several tasks says of its question."""


def above_constant(scored: Sequence[tuple[Row, Sequence[int]]], margin: float) -> bool:
    """Whether some rows score above the best constant answer by more than a margin, on the mean of tests.

    It is so, too, where the best constant answer is not known. Rows without a score learned nothing.

    Args:
        scored: rows of one arm, of one or more tasks, and the seeds that count.
    """
    scores = [
        [metric_on_test(row.chosen[seed]) for seed in seeds if seed in row.chosen] for row, seeds in scored
    ]
    if not all(scores):
        return False
    constant = fmean(row.columns["majority"] for row, _ in scored)
    return not fmean(map(fmean, scores)) <= constant + margin


@dataclass(frozen=True)
class Comparison:
    """Two rows of one table, paired by seed; differences are second minus first.

    Attributes:
        differences: one for each seed that has a pair.
        difference: what they show, with the verdict.
        p_difference, p_equivalence: adjusted for the other comparisons of the family, and for looks.
        floor: the spread that the sampling of test rows alone gives.
        look: of confirming seeds: where the comparison stands; None: a tuned comparison.
        other_margin: the margin of the design, where the leaderboard is built with another one.
        columns: the row of comparison.csv.
        levels: below which its p-values of a difference and of equivalence, as they are, would decide. They
            are smaller than 0.05 where other comparisons and looks share this error rate.
        diverged: which arm diverged on which seeds, in words; empty without such a seed.
    """

    first: Row
    second: Row
    differences: tuple[float, ...]
    difference: PairedDifference
    p_difference: float
    p_equivalence: float
    floor: float
    look: AtLook | None
    other_margin: float | None
    columns: dict[str, Any]
    levels: tuple[float, float] = (LEVEL, LEVEL)
    diverged: str = ""

    @property
    def question(self) -> str:
        """What is compared: arms that are `tuned` on each seed, or confirmed at `matched` or `own` rates."""
        return self.first.role

    @property
    def advice(self) -> Advice | None:
        """How many seeds would probably decide; None: it is decided, or there is nothing to go on.

        A design is tested at its looks alone, so there it is the next look that has as many seeds.
        """
        d = self.difference
        spread = max(d.spread, self.floor)
        if d.verdict != "inconclusive" or not spread > 0:
            return None
        advised = advice(d.n_pairs, d.mean, spread, d.margin, self.levels)
        return Advice(self._at_a_look(advised.if_equal), self._at_a_look(advised.as_observed))

    def _at_a_look(self, n: int | None) -> int | None:
        return n if n is None else min((look for look in self.looks if look >= n), default=n)

    @property
    def refused(self) -> bool:
        """Whether the two rows must not be compared; `columns["no_verdict"]` says why."""
        return not self.difference.n_pairs

    @property
    def sentence(self) -> str:
        """The comparison in words: one sentence for a tuned one, three for one of confirming seeds."""
        task = f"{self.columns['task']}: "
        if self.refused:
            first, second = _names(self)
            return f"{task}{first} and {second} are not compared: {self.difference.no_verdict}."
        if self.look is None:
            return f"{task}{_found(self)}."
        return f"{task}{_asked(self)} {_found(self)}. {_how_sure(self)}".rstrip()

    @property
    def verdict(self) -> str:
        """The verdict in words, with the name of the better optimizer instead of a or b."""
        words = {"a better": f"{self.first.label} better", "b better": f"{self.second.label} better"}
        return words.get(verdict, verdict) if (verdict := self.difference.verdict) else "no verdict"

    @property
    def advice_in_words(self) -> str:
        """How many seeds would probably decide; empty where nothing is left to decide."""
        if self.difference.verdict != "inconclusive":
            return ""
        if self.look is not None and self.look.n_seeds < self.looks[-1]:
            return f"the next look is at {self.looks[self.looks.index(self.look.n_seeds) + 1]} seeds"
        if (advised := self.advice) is None:
            return ""
        if_equal, as_observed = (_number(n) for n in (advised.if_equal, advised.as_observed))
        return (
            f"{if_equal} seeds would probably decide if there is no difference, {as_observed} if it is as "
            f"observed"
        )

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of confirming seeds at which there are looks; empty for a tuned comparison."""
        return self.first.design.looks if self.look is not None and self.first.design is not None else ()


def _names(comparison: Comparison) -> tuple[str, str]:
    return comparison.first.name, comparison.second.name


def _asked(comparison: Comparison) -> str:
    """The question of confirming seeds."""
    first, second = _names(comparison)
    c, design = comparison.columns, comparison.first.design
    assert design is not None
    rates = f"{c['first_learning_rate']:g}", f"{c['second_learning_rate']:g}"
    is_choice = _leaves_a_choice(design, str(c["task"]))
    chosen = "the only one that was tried"
    if is_choice:
        n = len(design.tune_seeds)
        chosen = f"chosen by dev on {n} other seed{'s' if n > 1 else ''}"
    points = min(comparison.first.grid), min(comparison.second.grid)
    if comparison.question == "matched":
        names = [f"{n}{_in_brackets(p.own)}" for n, p in zip((first, second), points, strict=True)]
        at = f"at one effective learning rate, {rates[0]}{_in_brackets(points[0].shared.settings)}"
        return f"Do {' and '.join(names)} differ {at}, {chosen}?"
    at_first, at_second = (
        f"{rate}{_in_brackets(point.settings)}" for rate, point in zip(rates, points, strict=True)
    )
    question = f"Do {first} at rate {at_first} and {second} at rate {at_second} differ, each rate {chosen}?"
    luck = "The luck of this choice is common to all seeds, so the answer is about these two settings alone."
    return f"{question} ({luck})" if is_choice else question


def _leaves_a_choice(design: Design, name: str) -> bool:
    """Whether dev could choose among several points on a task: a grid may have one rate alone."""
    [task] = [task for task in design.tasks if task.task == name]
    return bool(design.extend_grid) or any(len(points) > 1 for points in task.whole_grids)


def _in_brackets(settings: Settings) -> str:
    return f" ({settings_text(settings)})" if settings else ""


def _found(comparison: Comparison) -> str:
    """The difference, its interval and the verdict."""
    first, second = _names(comparison)
    d, look = comparison.difference, comparison.look
    seeds = "confirming seed" if look else "paired seed"
    text = f"{second} minus {first}: {100 * d.mean:+.1f} points over {d.n_pairs} {seeds}"
    if comparison.columns["choice"] == "bagged" and d.n_pairs > 1:
        plain = 100 * comparison.columns["plain_mean_difference"]
        seeds += f"s with a bagged choice of rates (plain choice: {plain:+.1f})"
        text = f"{second} minus {first}: {100 * d.mean:+.1f} points over {d.n_pairs} {seeds}"
    elif d.n_pairs > 1:
        text += "s"
    if d.n_pairs == 1:
        return f"{text}; one pair says nothing about chance"
    over = " over all looks" if look and len(comparison.looks) > 1 else ""
    text += f", 95 % interval{over} {_range(d.ci_low, d.ci_high)}: {_verdict_in_words(comparison)}"
    if comparison.other_margin is not None:
        text += f" (the design's margin was {in_points(comparison.other_margin)})"
    if comparison.diverged:
        text += f" ({comparison.diverged})"
    return text


def _range(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _verdict_in_words(comparison: Comparison) -> str:
    """The verdict and what belongs to it, without a full stop."""
    first, second = _names(comparison)
    d, margin = comparison.difference, in_points(comparison.difference.margin)
    if d.verdict is None:
        return f"no verdict ({d.no_verdict})"
    if d.verdict == "equivalent":
        return (
            f"equivalent within {margin} (90 % interval {_range(d.ci90_low, d.ci90_high)}){_at(comparison)}"
        )
    if d.verdict == "not learned":
        majority = 100 * comparison.first.columns["majority"]
        return (
            f"not learned: they are equal within {margin}, but not better than the commonest answer, "
            f"{majority:.1f} %, by more than that{_at(comparison)}"
        )
    if d.verdict != "inconclusive":
        return f"{second if d.verdict == 'b better' else first} scores higher{_at(comparison)}"
    text = f"inconclusive, neither a difference nor equivalence within {margin} is shown"
    if advised := comparison.advice_in_words:
        return f"{text}; {advised}"
    return text


def _at(comparison: Comparison) -> str:
    looks = comparison.looks
    if comparison.look is None or len(looks) == 1:
        return ""
    return f", at look {looks.index(comparison.look.n_seeds) + 1} of at most {len(looks)}"


def _number(n: int | None) -> str:
    return f"more than {MOST_SEEDS:,}" if n is None else f"about {n:,}"


def _how_sure(comparison: Comparison) -> str:
    """The error rate that the design keeps; empty without a decision."""
    d, design = comparison.difference, comparison.first.design
    assert design is not None
    if d.verdict in (None, "inconclusive") or comparison.other_margin is not None:
        return ""
    n = len(design.pairs) * len(design.tasks)
    which = "of the sweep" if design.confirm == "matched" else f"at {AT[comparison.question]}"
    over = [f"all {n} comparisons {which}"] if n > 1 else []
    over += ["all looks"] if len(design.looks) > 1 else []
    share = f"in at most 5 % of cases{', over ' if over else ''}{' and '.join(over)}"
    if d.verdict in ("equivalent", "not learned"):
        return f"If they differed by {in_points(d.margin)} or more, this would come out {share}."
    return f"If they did not differ, such a result would come out {share}."
