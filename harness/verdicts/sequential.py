"""When a comparison is decided: all pairs of a design, replayed from its first look to its last.

A pair goes on until it is decided or the last look is reached. What was decided stays as it was at its look.
The p-values of a look are adjusted for the looks, and then by Holm over all pairs of the design, because a
board of 18 pairs on which nothing differs would otherwise say "better" somewhere in half of all cases. This
is the group sequential procedure of Holm's kind (Ye, Li, Liu and Yao 2013), which keeps the error rate of the
whole family. `better` and `equivalent` are families of their own.

A sweep with a fixed number of seeds is the case of one look.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from momentum_bench.harness.intervals import t_quantile
from momentum_bench.harness.verdicts.looks import LEVEL, nominal_level, overall_p
from momentum_bench.harness.verdicts.paired import (
    FEWEST_PAIRS,
    PairedDifference,
    holm,
    paired_difference,
    spread_floor,
)

Key = TypeVar("Key", bound=Hashable)


class SeedDifference(NamedTuple):
    """What one confirming seed says about a pair.

    Attributes:
        difference: test score of the second arm minus that of the first, a fraction.
        disagreement: share of test rows on which the two models disagree; 0 where the score is no share of
            right rows, because nothing about its sampling follows from it then.
        n_test: number of test rows.
    """

    difference: float
    disagreement: float
    n_test: int


@dataclass(frozen=True)
class AtLook:
    """A pair at its last look so far.

    Attributes:
        n_seeds: the number of seeds of the look, those without a score among them.
        difference: what the pairs of these seeds show, without a verdict; None: no seed has a pair.
        p_difference, p_equivalence: adjusted for the looks and for the other pairs.
        is_decided: whether one of these is below 0.05.
    """

    n_seeds: int
    difference: PairedDifference | None
    p_difference: float
    p_equivalence: float
    is_decided: bool


@dataclass(frozen=True)
class Replay(Generic[Key]):
    """Where all pairs of a design stand.

    Attributes:
        pairs: each pair at its last look; a pair without a look is not there.
        undecided: the pairs that are not decided.
        next_look: the number of seeds that the undecided pairs need next; None: the design has ended.
    """

    pairs: dict[Key, AtLook] = field(default_factory=dict)
    undecided: tuple[Key, ...] = ()
    next_look: int | None = None


def replay(
    seeds: Mapping[Key, Sequence[SeedDifference | None]],
    looks: Sequence[int],
    margin: float,
    families: Mapping[Key, Hashable] | None = None,
) -> Replay[Key]:
    """Where the pairs stand, from what their seeds say. Nothing is looked at between two looks.

    Args:
        seeds: for each pair, what its confirming seeds say, in their order, as far as both runs of a seed
            have ended; None: a run of this seed ended without a score.
        looks: numbers of seeds, ascending.
        margin: half width of the band of equivalence.
        families: of each pair; pairs of one family are adjusted together. None: all are one family.
    """
    family_of = families or dict.fromkeys(seeds, "all")
    standing: dict[Key, tuple[int, PairedDifference | None]] = {}
    undecided = list(seeds)
    found: dict[Key, AtLook] = {}
    for look in looks:
        if any(len(seeds[key]) < look for key in undecided):
            return Replay(found, tuple(undecided), look)
        standing |= {key: (look, _difference(seeds[key][:look], margin)) for key in undecided}
        found = {}
        for family in dict.fromkeys(family_of[key] for key in seeds):
            members = [key for key in seeds if family_of[key] == family]
            found |= _adjusted({key: standing[key] for key in members}, looks)
        undecided = [key for key in undecided if not found[key].is_decided]
        if not undecided:
            break
    return Replay(found, tuple(undecided), None)


def _difference(seeds: Sequence[SeedDifference | None], margin: float) -> PairedDifference | None:
    there = [seed for seed in seeds if seed is not None]
    if not there:
        return None
    floor = spread_floor([seed.disagreement for seed in there], [seed.n_test for seed in there])
    return paired_difference([seed.difference for seed in there], margin, floor)


def _adjusted(
    standing: Mapping[Key, tuple[int, PairedDifference | None]], looks: Sequence[int]
) -> dict[Key, AtLook]:
    """The pairs of one family with their adjusted p-values. A pair that has no test has p-values of 1."""
    tested = {key: d is not None and d.n_pairs >= FEWEST_PAIRS for key, (_, d) in standing.items()}
    differences = [
        overall_p(d.p_difference, looks) if tested[key] and d else 1.0 for key, (_, d) in standing.items()
    ]
    equivalences = [
        overall_p(d.p_equivalence, looks, one_sided=True) if tested[key] and d else 1.0
        for key, (_, d) in standing.items()
    ]
    return {
        key: AtLook(n, d, p_difference, p_equivalence, min(p_difference, p_equivalence) < LEVEL)
        for (key, (n, d)), p_difference, p_equivalence in zip(
            standing.items(), holm(differences), holm(equivalences), strict=True
        )
    }


def over_looks(difference: PairedDifference, looks: Sequence[int]) -> PairedDifference:
    """The difference with intervals that hold over all looks together, so that they fit its verdict.

    They are t intervals at the levels of the looks (repeated confidence intervals, Jennison and Turnbull
    1989). Nothing changes for one look.
    """
    n = difference.n_pairs
    if len(looks) == 1 or n < 2:
        return difference
    error = difference.spread / math.sqrt(n)
    half = t_quantile(n - 1, 1 - nominal_level(looks)) * error
    half90 = t_quantile(n - 1, 1 - 2 * nominal_level(looks, one_sided=True)) * error
    mean = difference.mean
    return replace(
        difference,
        ci_low=mean - half,
        ci_high=mean + half,
        ci90_low=mean - half90,
        ci90_high=mean + half90,
    )
