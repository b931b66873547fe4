"""Does momentum pay? The comparisons of optimizers that differ in momentum alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from momentum_bench.harness.optimizers.arms import parse_arm
from momentum_bench.harness.optimizers.registry import TWINS
from momentum_bench.leaderboards.comparison import Comparison
from momentum_bench.leaderboards.rows import Row

MOMENTA = ("momentum", "beta1")
"""The hyperparameters that are a decay rate of a momentum buffer."""


@dataclass(frozen=True)
class Answer:
    """What one comparison says about momentum.

    Attributes:
        without, with_momentum: the two rows.
        mean, low, high: what momentum adds to the test score, with its 95 % interval; fractions.
    """

    comparison: Comparison
    without: Row
    with_momentum: Row
    mean: float
    low: float
    high: float

    @property
    def words(self) -> str:
        """The answer."""
        d = self.comparison.difference
        if d.verdict in ("a better", "b better"):
            return "yes" if self.mean > 0 else "no, it costs"
        answers = {
            "equivalent": "no, it makes no difference",
            "inconclusive": "not decided",
            "not learned": "nothing was learned",
        }
        return answers.get(d.verdict or "", "no verdict")


def momentum_answers(comparisons: Iterable[Comparison]) -> list[Answer]:
    """The answers of those comparisons whose two optimizers are twins, in the same order."""
    found = []
    for pair in comparisons:
        d = pair.difference
        if pair.refused:
            continue
        if are_twins(pair.first, pair.second):
            found.append(Answer(pair, pair.first, pair.second, d.mean, d.ci_low, d.ci_high))
        elif are_twins(pair.second, pair.first):
            found.append(Answer(pair, pair.second, pair.first, -d.mean, -d.ci_high, -d.ci_low))
    return found


def are_twins(without: Row, with_momentum: Row) -> bool:
    """Whether two optimizers differ in momentum alone, and only the second one has it."""
    specs = [row.runs[0].spec for row in (without, with_momentum)]
    others = [
        {name: value for name, value in spec.hyperparameters.items() if name not in MOMENTA} for spec in specs
    ]
    if others[0] != others[1] or not _has_momentum(with_momentum):
        return False
    if specs[0].optimizer == specs[1].optimizer:
        return not _has_momentum(without)
    return any(_is(without, one) and _is(with_momentum, other) for one, other in TWINS)


def _has_momentum(row: Row) -> bool:
    """Whether any of its runs has one: a tuned list of momenta may hold 0."""
    return any(run.spec.hyperparameters.get(name) for run in row.runs for name in MOMENTA)


def _is(row: Row, arm: str) -> bool:
    """Whether a row is of an arm; settings that the arm does not name may have any value."""
    wanted, spec = parse_arm(arm), row.runs[0].spec
    return wanted.name == spec.optimizer and wanted.settings.items() <= spec.hyperparameters.items()
